"""Backbones: a clip becomes logits. Imports nothing of ours from outside this folder."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from vidadapt.models.heads import HEADS
from vidadapt.models.positions import interpolated_table
from vidadapt.models.vit import VideoViT
from vidadapt.models.weights import LoadReport, load_weights

VideoModel = VideoViT  # what methods, training and evaluation take

BACKBONES: dict[str, dict[str, Any]] = {
    "vit_tiny": {"width": 192, "depth": 6, "num_heads": 3},
    "vit_small": {"width": 384, "depth": 12, "num_heads": 6},
    "vit_base": {"width": 768, "depth": 12, "num_heads": 12},
    "vit_large": {"width": 1024, "depth": 24, "num_heads": 16},
    "vit_huge": {"width": 1280, "depth": 32, "num_heads": 16},
    "vit_giant": {
        "width": 1408,
        "depth": 40,
        "num_heads": 16,
        "mlp_ratio": 48 / 11,
        "patch_size": 14,
    },
}

DEMO_WEIGHTS = Path(__file__).parents[1] / "weights" / "demo_vit_tiny.safetensors"


def build(
    backbone: str,
    *,
    num_frames: int,
    crop_size: int,
    num_classes: int,
    tubelet_size: int = 2,
    patch_size: int | None = None,
    drop_path: float = 0.0,
    head: str = "batchnorm_linear",
    weights: str | Path | None = None,
    keep_head: bool = False,
    interpolate_from: tuple[int, int, int] | None = None,
) -> tuple[VideoModel, LoadReport | None]:
    """A backbone with a head, every parameter trainable, and what was loaded into it.

    Args:
        backbone: key of `BACKBONES`.
        num_frames: T of a clip.
        crop_size: S of a clip, pixels.
        num_classes: K.
        tubelet_size: frames of one token.
        patch_size: side of one token in pixels; default: the backbone's.
        drop_path: stochastic depth rate of the last block.
        head: key of `HEADS`.
        weights: checkpoint file of any recognised family, or `demo` for the tiny backbone shipped
            with the package; none: random initialisation.
        keep_head: take the head from the file too; it must have K classes and the same kind.
        interpolate_from: token grid (t, h, w) of the pre-training whose position table is to be
            interpolated; default: the table is recomputed for this model's number of tokens.

    Raises:
        ValueError: unknown names, impossible sizes, weights that do not fit.
        FileNotFoundError: no such weights file.
    """
    sizes = {"patch_size": 16, **_choose("backbone", backbone, BACKBONES)}
    new_head = _choose("head", head, HEADS)
    if patch_size is not None:
        sizes["patch_size"] = patch_size
    model = VideoViT(
        num_frames=num_frames,
        crop_size=crop_size,
        tubelet_size=tubelet_size,
        drop_path=drop_path,
        num_classes=num_classes,
        **sizes,
    )
    model.name = backbone
    model.head = new_head(model.width, num_classes)
    if interpolate_from is not None:
        model.pos_embed = interpolated_table(interpolate_from, model.grid, model.width)
    if weights is None:
        return model, None
    path = DEMO_WEIGHTS if weights == "demo" else Path(weights)
    return model, load_weights(model, path, keep_head=keep_head, known_sizes=BACKBONES)


def _choose(kind: str, name: str, choices: dict[str, Any]) -> Any:
    if name not in choices:
        near = difflib.get_close_matches(name, choices, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"unknown {kind} {name!r}{hint} (known: {', '.join(choices)})")
    return choices[name]
