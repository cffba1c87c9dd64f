"""Publish a run's adapter: a folder for the Hugging Face hub, with a model card, and its upload.

adapter.safetensors   what was trained, the very bytes of the checkpoint
adapter.json          its description; of a local file of weights only the name is left
checksums.json        of these two
labels.txt            class names in label order, where the adapter has them
protocol.json         clips, views and fusion, and every figure with what it was measured on
README.md             the model card
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidadapt.console import printable
from vidadapt.evaluation import metrics_in
from vidadapt.files import checksum, write_json, write_text, writing
from vidadapt.hub import publish
from vidadapt.models import WITHOUT_FILE, is_hub_name
from vidadapt.runs import RunError, SavedAdapter, adapters, checkpoints, from_hub
from vidadapt.serving.card import CARD, model_card

LABELS, PROTOCOL = "labels.txt", "protocol.json"
PUBLISHED_FILES = (
    *(checkpoints.TENSORS, checkpoints.DESCRIPTION, checkpoints.CHECKSUMS),
    *(LABELS, PROTOCOL, CARD),
)
# Of an evaluation's metrics.json: what its figures were measured on, and how.
MEASURED = (
    *("num_videos", "views", "fusion", "manifest", "num_frames", "crop_size", "normalization"),
    "precision",
)


@dataclass(frozen=True)
class Pushed:
    """A published adapter.

    Attributes:
        address: page of the repository, or the folder where nothing was uploaded.
        reference: `hub:OWNER/NAME@COMMIT`, by which others use it; None: not uploaded.
        files: name -> size in bytes.
        left_out: a line for each evaluation of the run that is not in the card, with the reason.
    """

    address: str
    reference: str | None
    files: dict[str, int]
    left_out: tuple[str, ...]


def push(
    run: str | Path,
    repository: str,
    *,
    private: bool = False,
    checkpoint: str | None = None,
    licence: str | None = None,
) -> Pushed:
    """Write a run's adapter, with its card, into a repository of the hub, made where needed.

    Args:
        run: run or adapter folder.
        repository: OWNER/NAME.
        private: see `hub.publish`.
        checkpoint: `best` or `last` of a run; default: see `find_adapter`.
        licence: of the adapter, by the hub's name of it, e.g. "apache-2.0"; default: none is named.

    Raises:
        RunError, ConfigError: no such run or checkpoint, or a damaged one.
        HubError: see `hub.publish`.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        written = write_published(run, folder, repository, checkpoint=checkpoint, licence=licence)
        address, commit = publish(
            folder,
            PUBLISHED_FILES,
            checkpoints.DESCRIPTION,
            repository,
            private=private,
            message="Upload an adapter with vidadapt",
        )
    return Pushed(
        address, f"{from_hub.PREFIX}{repository}@{commit}", written.files, written.left_out
    )


def write_published(
    run: str | Path,
    folder: Path,
    repository: str,
    *,
    checkpoint: str | None = None,
    licence: str | None = None,
) -> Pushed:
    """Write the files that `push` uploads into a folder that is empty or not there.

    Args: see `push`.

    Raises:
        RunError, ConfigError: see `push`; or the folder holds something.
        WriteError: the disk refused it.
    """
    if from_hub.is_reference(run):
        raise RunError(f"{printable(str(run))}: is on the hub already; give a run's folder")
    from_hub.parts_of(f"{from_hub.PREFIX}{repository}")  # an error for a malformed name
    if checkpoint is None:
        adapter = adapters.read_adapter(adapters.find_adapter(run))
    else:
        adapter = adapters.read_adapter(adapters.checkpoint_folder(Path(run), checkpoint))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"--to: {folder} holds something; give a new folder")
    figures, left_out = figures_of(adapter)
    about = {**adapter.about, "model": {**adapter.about["model"]}}
    about["model"]["weights"] = _without_folder(about["model"]["weights"])
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(adapter.source, folder / checkpoints.TENSORS)
    write_json(folder / checkpoints.DESCRIPTION, about)
    both = (checkpoints.TENSORS, checkpoints.DESCRIPTION)
    write_json(folder / checkpoints.CHECKSUMS, {name: checksum(folder / name) for name in both})
    if adapter.plan.label_names is not None:
        write_text(folder / LABELS, "".join(f"{name}\n" for name in adapter.plan.label_names))
    write_json(folder / PROTOCOL, protocol_of(adapter, figures))
    write_text(folder / CARD, model_card(about, adapter.plan, figures, repository, licence))
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    return Pushed(str(folder), None, files, tuple(left_out))


def figures_of(adapter: SavedAdapter) -> tuple[list[dict[str, Any]], list[str]]:
    """Read the evaluations of a run that are of this very adapter.

    Returns:
        For each its metrics, and what they were measured on and how; and a line for each
        evaluation that is left out.
    """
    own = checksum(Path(adapter.source))
    figures, left_out = [], []
    for file in sorted(adapter.folder.absolute().parent.glob("eval_*/metrics.json")):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            if found.get("adapter_sha256") != own:
                left_out.append(
                    f"{file}: is of another checkpoint, or of an older version that does not say "
                    "of which; evaluate again to have it in the card"
                )
                continue
            figures.append(
                {
                    "list": Path(found["list"]).name,
                    **{name: found[name] for name in metrics_in(found)},
                    **{key: found[key] for key in MEASURED},
                    "unreadable": len(found["unreadable"]),
                }
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            left_out.append(f"{file}: cannot be read ({error!r})")
    return figures, left_out


def protocol_of(adapter: SavedAdapter, figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Make protocol.json: all that another person needs to measure the same."""
    return {
        "clip": adapter.about["clip"],
        "evaluation": adapter.about["evaluation"],
        "reader": adapter.about["reader"],
        "train_manifest": adapter.about["train_manifest"],
        "figures": figures,
    }


def _without_folder(weights: str | None) -> str | None:
    """Return the name of a weights file without its folder, which is of this machine alone."""
    if weights is None or weights in WITHOUT_FILE or is_hub_name(weights):
        return weights
    return Path(weights).name
