"""Load a checkpoint file of an encoder with a last norm, strictly, with a report."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidadapt.models.backbone import VideoModel
from vidadapt.models.coverage import LoadReport, State, require_match
from vidadapt.models.layouts import our_names
from vidadapt.models.tensor_files import MODEL_KEYS, read_tensors

OLD_HEAD = {"old head (a new one is trained)": r"(head|fc_norm)\."}


@dataclass(frozen=True)
class EncoderFiles:
    """Contents of a family's files.

    Attributes:
        backbone: of their layouts, see `layouts`.
        title: of the family, from a file's tensors.
        sizes: its backbones, by name.
        parts: beginnings of the names that must be found, under our names.
        unused: reason to pattern of names that are known and not used.
        entries: of the file that hold the model.
        traits: what a file's tensors say of its size, beyond width and depth.
    """

    backbone: str
    title: Callable[[State], str]
    sizes: Mapping[str, Mapping[str, Any]]
    parts: tuple[str, ...]
    unused: Mapping[str, str]
    entries: tuple[str, ...] = MODEL_KEYS
    traits: Callable[[State], Mapping[str, Any]] = lambda state: {}


def load_encoder(
    model: VideoModel,
    path: Path,
    files: EncoderFiles,
    *,
    key: str | None = None,
    keep_head: bool = False,
    fit: Callable[[State], tuple[str, ...]] = lambda state: (),
    read_class_token: Callable[[], None] | None = None,
) -> LoadReport:
    """Load the encoder of a file of this family, from others or from this package.

    Args:
        files: of the family.
        key: entry of the file to take; default: the first of `files.entries`.
        keep_head: take the head from the file, too.
        fit: change tensors of the file, under our names, to fit the model; returns notes.
        read_class_token: makes the model read out as a classifier without `fc_norm` does; called
            for such a file with `keep_head`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another family or version, or without an encoder; or one message with
            all tensors that are missing, left over or of another shape.
    """
    file = read_tensors(path, key, files.entries)
    path = file.path
    family, state = our_names(file, files.backbone)
    notes = file.notes
    if keep_head and read_class_token and "head.weight" in state and "fc_norm.weight" not in state:
        read_class_token()
        notes += ("the head reads the class token, as it was trained to: no mean pooling",)
    target = model.state_dict()
    unused = {**files.unused, **({} if keep_head else OLD_HEAD)}
    dropped = {reason: tuple(k for k in state if re.match(unused[reason], k)) for reason in unused}
    dropped = {reason: names for reason, names in dropped.items() if names}
    used = {k: v for k, v in state.items() if not any(k in names for names in dropped.values())}
    parts = (*files.parts, "fc_norm.", "head.") if keep_head else files.parts
    required = [name for name in target if name.startswith(parts)]
    advice = f"the file looks like {_described(used, files)}; choose model.backbone to match"
    notes += fit(used)
    require_match(path, used, target, required, advice)
    model.load_state_dict({**target, **used}, strict=True)
    return LoadReport(
        path=path,
        family=family,
        loaded=tuple(used),
        loaded_values=sum(tensor.numel() for tensor in used.values()),
        fresh=tuple(name for name in target if name not in used),
        dropped=dropped,
        notes=notes,
    )


def _described(state: State, files: EncoderFiles) -> str:
    """Family, width, depth and patch of a file, and the backbones that have them."""
    patch = state.get("patch_embed.proj.weight")
    blocks = {int(m[1]) for name in state if (m := re.match(r"blocks\.(\d+)\.", name))}
    if patch is None:
        return f"no encoder ({len(blocks)} blocks)"
    if patch.ndim == 4:
        return f"an image model ({len(blocks)} blocks), which is for model.backbone timm/NAME"
    traits = {"width": patch.shape[0], "depth": len(blocks), **files.traits(state)}
    fits = [name for name, size in files.sizes.items() if traits.items() <= size.items()]
    kernel = "x".join(str(size) for size in patch.shape[2:])
    size = f"{files.title(state)}, width {patch.shape[0]}, {len(blocks)} blocks, tubelet {kernel}"
    return f"{' or '.join(fits)}: {size}" if fits else size
