"""The two ends of the scale: train only the readout, or everything.

Linear probe as in AdaptFormer (arXiv 2205.13535): mean pool -> fc_norm (trainable, as released
and as the papers count it) -> BatchNorm without affine -> Linear.
"""

from __future__ import annotations

from vidadapt.models import VideoModel


def inject_linear(model: VideoModel) -> None:
    """Nothing inside the backbone; the head and fc_norm are made trainable for every method."""


def inject_full(model: VideoModel) -> None:
    """Train every parameter."""
    model.requires_grad_(True)
