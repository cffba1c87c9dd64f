"""Checks of the clips that enter a model."""

from __future__ import annotations

from torch import Tensor


def require_clip(clip: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a batch of clips that is not (B, *shape) of floats.

    Raises:
        ValueError: naming both shapes, or the type.
    """
    require_shape(clip, shape)
    if not clip.is_floating_point():
        raise ValueError(
            f"clip holds {str(clip.dtype).removeprefix('torch.')}; this model takes floats that "
            "are normalised: data.transforms.normalize(clip, NAME) makes them of uint8"
        )


def require_shape(clip: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a batch of clips that is not (B, *shape).

    Raises:
        ValueError: naming both shapes.
    """
    if clip.ndim != 5 or tuple(clip.shape[1:]) != shape:
        want = ", ".join(str(n) for n in shape)
        raise ValueError(f"clip has shape {tuple(clip.shape)}; this model takes (B, {want})")


def require_divides(name: str, value: int, divisor_name: str, divisor: int) -> None:
    """Refuse a size that does not divide.

    Raises:
        ValueError: naming both numbers.
    """
    if divisor < 1 or value < 1 or value % divisor != 0:
        raise ValueError(
            f"{name} is {value}, which is not a positive multiple of {divisor_name} ({divisor})"
        )
