"""Coverage of a weights file: what reached the model, and the error if not all did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

State = dict[str, Tensor]

# Types whose values convert to a model's type by rounding at most; others have another meaning.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

# Parts around the backbone of any model, which each task trains.
NOT_BACKBONE = ("fc_norm.", "head.", "time_embed.")


@dataclass(frozen=True)
class Pixels:
    """Recipe of the pixels that a model was trained on, as a file beside its weights states.

    Attributes:
        path: the file.
        mean, std: of red, green and blue, where black is 0 and white 1.
        crop: side of the square in pixels; None: not stated.
        short_side: of the frames before the crop; None: not stated.
    """

    path: Path
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop: int | None
    short_side: int | None


@dataclass(frozen=True)
class LoadReport:
    """The tensors that were taken from a weights file, and those that were not, with the reasons.

    Attributes:
        path: the file.
        family: whose layout it has.
        loaded: names of the model's tensors that came from the file (image models: timm's names).
        loaded_values: number of values in them.
        fresh: names of the model's tensors that the file lacks and that keep their initial values.
        dropped: reason to the file's tensor names that are not used.
        notes: further facts about the loading, a line each.
        pixels: that the weights were trained on, where a file beside them states it.
    """

    path: Path
    family: str
    loaded: tuple[str, ...] = field(repr=False)
    loaded_values: int
    fresh: tuple[str, ...] = field(repr=False)
    dropped: dict[str, tuple[str, ...]] = field(repr=False)
    notes: tuple[str, ...] = ()
    pixels: Pixels | None = None

    def __str__(self) -> str:
        count = f"{len(self.loaded)} tensors, {self.loaded_values:,} values"
        extras = [name for name in self.loaded if name.startswith(NOT_BACKBONE)]
        lines = [
            f"weights {self.path}",
            f"  layout   {self.family}",
            f"  loaded   {count}: whole backbone" + (f" + {listed(extras)}" if extras else ""),
        ]
        if self.fresh:
            lines.append(f"  fresh    {listed(self.fresh)}")
        for reason, names in self.dropped.items():
            lines.append(f"  dropped  {len(names)} tensors: {reason}; {listed(names)}")
        lines += [f"  note     {note}" for note in self.notes]
        return "\n".join(lines)


def require_match(
    path: Path | str, used: State, target: State, required: Sequence[str], advice: str
) -> None:
    """Refuse tensors that are not exactly those required, with their shapes and usable values.

    Args:
        used: tensors of the file under the model's names.
        target: the model's tensors.
        required: names in `target` that must be found.
        advice: last line of the message: what the file is, and what to do.

    Raises:
        ValueError: all missing, mismatched and unexpected tensors; or those that hold NaN or
            infinite values, or would in the model's type.
    """
    missing = [name for name in required if name not in used]
    unexpected = [name for name in used if name not in target]
    mismatched = [
        f"{name} is {tuple(tensor.shape)}, needs {tuple(target[name].shape)}"
        for name, tensor in used.items()
        if name in target and tensor.shape != target[name].shape
    ]
    mistyped = [
        f"{name} is {_short(tensor.dtype)}, needs {_short(target[name].dtype)}"
        for name, tensor in used.items()
        if name in target and not _same_kind(tensor.dtype, target[name].dtype)
    ]
    if not (missing or unexpected or mismatched or mistyped):
        require_finite(path, {name: t.to(target[name].dtype) for name, t in used.items()})
        return
    lines = [f"{path} does not fit this model; nothing was loaded"]
    for kind, names in (
        ("missing from the file", missing),
        ("of another shape", mismatched),
        ("of another type", mistyped),
        ("in the file but not in the model", unexpected),
    ):
        if names:
            lines.append(f"  {len(names)} tensors {kind}: {listed(names)}")
    raise ValueError("\n".join([*lines, f"  {advice}"]))


def require_finite(source: Path | str, tensors: State) -> None:
    """Refuse NaN and infinite values, which would make every result NaN.

    Raises:
        ValueError: naming the file and the tensors.
    """
    broken = [
        f"{name} ({int((~torch.isfinite(tensor)).sum())} of {tensor.numel()} values)"
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    if broken:
        raise ValueError(
            f"{source}: NaN or infinite values in {listed(broken)}; nothing was loaded. The file "
            "was damaged, or written by a training run that diverged: use another"
        )


def _same_kind(found: torch.dtype, wanted: torch.dtype) -> bool:
    """Check that values of one type keep their meaning in the other."""
    return found == wanted or (found in FLOATS and wanted in FLOATS)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def listed(names: Sequence[str], limit: int = 6) -> str:
    """The first names, and how many more there are.

    >>> listed(["a", "b", "c"], limit=2)
    'a, b, ... (1 more)'
    """
    more = f", ... ({len(names) - limit} more)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
