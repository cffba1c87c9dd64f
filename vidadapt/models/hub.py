"""The weights that the user names: a file, the package's own, or one of the Hugging Face hub."""

from __future__ import annotations

import contextlib
from pathlib import Path

import timm
from huggingface_hub.errors import EntryNotFoundError

from vidadapt.hub import (
    FILES,
    PREFIX,
    HubError,
    download,
    download_if_there,
    first_download,
)
from vidadapt.models.config_json import COMPANIONS
from vidadapt.models.shards import INDEX, shards_of

HUB = "hub"
# Weights without a file of the user's: those shipped with the package, and a fixed random draw.
DEMO, RANDOM = "demo", "random"
WITHOUT_FILE = (DEMO, RANDOM)
DEMO_WEIGHTS = Path(__file__).parents[1] / "weights" / "demo_vit_tiny.safetensors"


def weights_file(weights: str | Path | None, timm_name: str | None = None) -> Path | None:
    """The file that `weights` names, fetched first if it is on the hub; None: random weights.

    Args:
        weights: see `backbone.BackboneOptions`.
        timm_name: timm's name of the model; None: not a timm model.
    """
    if weights is None or weights == RANDOM:
        return None
    if isinstance(weights, str) and is_hub_name(weights):
        return hub_file(weights, timm_name)
    return DEMO_WEIGHTS if weights == DEMO else Path(weights)


def is_hub_name(weights: str) -> bool:
    """Check that `weights` names the hub rather than a file.

    >>> is_hub_name("hub"), is_hub_name("hub:owner/repo"), is_hub_name("hub.pth")
    (True, True, False)
    """
    return weights == HUB or weights.startswith(PREFIX)


def hub_file(weights: str, timm_name: str | None) -> Path:
    """Return the local copy of a hub file, from the cache or downloaded into it.

    For a model in several files: the index, with the other files beside it. For a video model also
    config.json and what states the preprocessing, where the repository has them.

    Args:
        weights: `hub:OWNER/REPO` (the first of `FILES` that it has), `hub:OWNER/REPO/FILE`, or
            `hub`: what timm itself loads for `timm_name`.
        timm_name: timm's name of the model, with or without a tag; None: not a timm model.

    Raises:
        ValueError: a malformed name, no such repository or file, or no network.
    """
    repository, names = _wanted(weights, timm_name)
    try:
        name, local = first_download(repository, names)
        if name.endswith(INDEX):
            _fetch_shards(repository, name, local)
        if timm_name is None:
            _fetch_companions(repository, name, local)
    except HubError as error:
        raise ValueError(
            f"model.weights: {error}. Or fetch the file elsewhere and give its path: "
            "--model.weights FILE"
        ) from error
    return local


def _fetch_companions(repository: str, name: str, weights: Path) -> None:
    """Fetch what describes a file of the hub's cache, beside it."""
    folders, revision = _place(name, weights)
    for companion in COMPANIONS:
        download_if_there(repository, "/".join([*folders, companion]), revision)


def _place(name: str, local: Path) -> tuple[list[str], str]:
    """Folders in the repository, and the revision, of a file of the hub's cache."""
    *folders, _ = name.split("/")
    return folders, local.parents[len(folders)].name


def _fetch_shards(repository: str, name: str, index: Path) -> None:
    """Fetch the files that an index of the hub's cache names, beside it."""
    folders, revision = _place(name, index)
    for shard in shards_of(index):
        if not index.with_name(shard).exists():
            # If the repository lacks the file, reading the index reports it.
            with contextlib.suppress(EntryNotFoundError):
                download(repository, "/".join([*folders, shard]), revision=revision)


def _wanted(weights: str, timm_name: str | None) -> tuple[str, tuple[str, ...]]:
    if weights == HUB:
        config = None if timm_name is None else timm.get_pretrained_cfg(timm_name)
        if config is None or not config.hf_hub_id:
            raise ValueError(
                "model.weights: hub alone stands for what timm publishes for model.backbone "
                "timm/NAME, and there is nothing for this backbone; give hub:OWNER/REPO or a file"
            )
        return config.hf_hub_id, (config.hf_hub_filename,) if config.hf_hub_filename else FILES
    parts = weights.removeprefix(PREFIX).split("/", 2)
    if len(parts) < 2 or not all(parts):
        raise ValueError(
            f"model.weights: {weights!r}: expected hub:OWNER/REPO or hub:OWNER/REPO/FILE"
        )
    return "/".join(parts[:2]), tuple(parts[2:]) or FILES
