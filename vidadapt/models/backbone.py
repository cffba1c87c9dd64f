"""Backbones: clip to logits. `models` imports only `files` and `naming` of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm

from vidadapt.console.naming import require_known
from vidadapt.models.frames import FrameByFrame
from vidadapt.models.from_image import video_from_image
from vidadapt.models.heads import HEADS
from vidadapt.models.hub import hub_file, is_hub_name
from vidadapt.models.image import PREFIX
from vidadapt.models.inflated import InflatedViT
from vidadapt.models.positions import interpolated_table
from vidadapt.models.vit import VideoViT
from vidadapt.models.weights import LoadReport, load_weights

VideoModel = VideoViT | InflatedViT | FrameByFrame  # what methods, training and evaluation take

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

# Weights without a file of the user's: those shipped with the package, and a fixed random draw.
DEMO, RANDOM = "demo", "random"
WITHOUT_FILE = (DEMO, RANDOM)
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
    weights_key: str | None = None,
    keep_head: bool = False,
    interpolate_from: tuple[int, int, int] | None = None,
    from_image: str | None = None,
    inflation: str | None = None,
) -> tuple[VideoModel, LoadReport | None]:
    """Return a backbone with a head, all parameters trainable, and the loading report.

    Args:
        backbone: key of `BACKBONES`, or `timm/NAME` for an image model of timm's.
        num_frames: T of a clip.
        crop_size: S of a clip, pixels.
        num_classes: K.
        tubelet_size: frames of one token; not used frame by frame.
        patch_size: side of one token in pixels, of a tubelet ViT; default: the backbone's.
        drop_path: stochastic depth rate of the last block.
        head: key of `HEADS`.
        weights: checkpoint file of any recognised family, the index of one in several files, or
            their folder; `demo` for the tiny backbone shipped with the package; `hub:OWNER/REPO`,
            `hub:OWNER/REPO/FILE` or `hub` (what timm publishes for its model) for a file of the
            Hugging Face hub, see `hub.hub_file`; none: random initialisation.
        weights_key: entry of the weights file to take, e.g. `model_ema`; default: see
            `tensor_files.read_tensors`.
        keep_head: take the head from the file too; it must have K classes and the same kind.
        interpolate_from: token grid (t, h, w) of the pre-training whose position table is to be
            interpolated, of a tubelet ViT; default: the table is recomputed for this model's
            number of tokens.
        from_image: how an image model becomes a video model: `inflate` (default) or `frames`.
        inflation: how its patch embedding becomes that of tubelets: `average` (default) or
            `centre`, see `inflated.inflate`.

    Raises:
        ValueError: unknown names, impossible sizes, options that do not apply to the backbone,
            weights that do not fit.
        FileNotFoundError: no such weights file.
    """
    new_head = HEADS[require_known("model.head", head, HEADS)]
    if backbone.startswith(PREFIX):
        _require_unset(
            f"is for tubelet ViTs ({', '.join(BACKBONES)}); leave it out with {backbone}",
            {"patch_size": patch_size, "position_grid": interpolate_from},
        )
        if keep_head:
            raise ValueError(f"keep_head: {backbone} gets a new head; its file has none for clips")
        model, report = video_from_image(
            backbone,
            num_frames=num_frames,
            crop_size=crop_size,
            num_classes=num_classes,
            tubelet_size=tubelet_size,
            drop_path=drop_path,
            from_image=from_image,
            inflation=inflation,
            weights=_local(weights, backbone),
            weights_key=weights_key,
        )
        model.head = new_head(model.width, num_classes)
        return model, report
    _require_unset(
        f"is for image models (model.backbone: {PREFIX}NAME); leave it out with {backbone}",
        {"from_image": from_image, "inflation": inflation},
    )
    if backbone not in BACKBONES and timm.is_model(backbone):
        raise ValueError(f"model.backbone: write {PREFIX}{backbone} for this model of timm's")
    sizes = {"patch_size": 16, **BACKBONES[require_known("model.backbone", backbone, BACKBONES)]}
    if patch_size is not None:
        sizes["patch_size"] = patch_size
    vit = VideoViT(
        num_frames=num_frames,
        crop_size=crop_size,
        tubelet_size=tubelet_size,
        drop_path=drop_path,
        num_classes=num_classes,
        **sizes,
    )
    vit.name = backbone
    vit.head = new_head(vit.width, num_classes)
    if interpolate_from is not None:
        vit.pos_embed = interpolated_table(interpolate_from, vit.grid, vit.width)
    path = _local(weights, backbone)
    if path is None:
        return vit, None
    return vit, load_weights(vit, path, key=weights_key, keep_head=keep_head, known_sizes=BACKBONES)


def _local(weights: str | Path | None, backbone: str) -> Path | None:
    """The file that `weights` names; fetched first if it is on the hub."""
    if weights is None or weights == RANDOM:
        return None
    if isinstance(weights, str) and is_hub_name(weights):
        of_timm = backbone.startswith(PREFIX)
        return hub_file(weights, backbone.removeprefix(PREFIX) if of_timm else None)
    return DEMO_WEIGHTS if weights == DEMO else Path(weights)


def _require_unset(why: str, options: dict[str, Any]) -> None:
    for key, value in options.items():
        if value is not None:
            raise ValueError(f"model.{key}: {value!r} {why}")
