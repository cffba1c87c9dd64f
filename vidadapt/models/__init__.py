"""Backbones: a clip becomes logits. Imports nothing of ours from outside this folder."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from vidadapt.models.frames import FrameByFrame
from vidadapt.models.heads import HEADS
from vidadapt.models.image import PREFIX, create_image_model
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

DEMO_WEIGHTS = Path(__file__).parents[1] / "weights" / "demo_vit_tiny.safetensors"

# Two ways in which an image model becomes a video model, see `InflatedViT` and `FrameByFrame`.
FROM_IMAGE = ("inflate", "frames")
INFLATIONS = ("average", "centre")


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
    from_image: str | None = None,
    inflation: str | None = None,
) -> tuple[VideoModel, LoadReport | None]:
    """A backbone with a head, every parameter trainable, and what was loaded into it.

    Args:
        backbone: key of `BACKBONES`, or `timm/NAME` for an image model of timm's.
        num_frames: T of a clip.
        crop_size: S of a clip, pixels.
        num_classes: K.
        tubelet_size: frames of one token; not used frame by frame.
        patch_size: side of one token in pixels, of a tubelet ViT; default: the backbone's.
        drop_path: stochastic depth rate of the last block.
        head: key of `HEADS`.
        weights: checkpoint file of any recognised family, or `demo` for the tiny backbone shipped
            with the package; none: random initialisation.
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
    new_head = _choose("head", head, HEADS)
    if backbone.startswith(PREFIX):
        _require_unset(
            f"is for tubelet ViTs ({', '.join(BACKBONES)}); leave it out with {backbone}",
            {"patch_size": patch_size, "position_grid": interpolate_from},
        )
        model = _from_image(
            backbone,
            from_image or "inflate",
            inflation,
            num_frames=num_frames,
            crop_size=crop_size,
            num_classes=num_classes,
            tubelet_size=tubelet_size,
            drop_path=drop_path,
        )
        model.head = new_head(model.width, num_classes)
        return model, None
    _require_unset(
        f"is for image models (model.backbone: {PREFIX}NAME); leave it out with {backbone}",
        {"from_image": from_image, "inflation": inflation},
    )
    sizes = {"patch_size": 16, **_choose("backbone", backbone, BACKBONES)}
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


def _from_image(
    backbone: str,
    how: str,
    inflation: str | None,
    *,
    num_frames: int,
    crop_size: int,
    num_classes: int,
    tubelet_size: int,
    drop_path: float,
) -> InflatedViT | FrameByFrame:
    _require_one_of("model.from_image", how, FROM_IMAGE)
    _require_one_of("model.inflation", inflation or "average", INFLATIONS)
    if how == "frames":
        _require_unset("is for model.from_image: inflate", {"inflation": inflation})
        if tubelet_size != 2:  # the default
            raise ValueError(
                f"model.tubelet_size: {tubelet_size} is for model.from_image: inflate; frame by "
                "frame there are no tubelets"
            )
    image = create_image_model(backbone, crop_size=crop_size, drop_path=drop_path)
    if how == "frames":
        return FrameByFrame(
            image,
            num_frames=num_frames,
            crop_size=crop_size,
            num_classes=num_classes,
            name=backbone,
        )
    return InflatedViT(
        image,
        num_frames=num_frames,
        crop_size=crop_size,
        tubelet_size=tubelet_size,
        inflation=inflation or "average",
        num_classes=num_classes,
        name=backbone,
    )


def _require_unset(why: str, options: dict[str, Any]) -> None:
    for key, value in options.items():
        if value is not None:
            raise ValueError(f"model.{key}: {value!r} {why}")


def _require_one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{key}: expected {' or '.join(known)}, got {value!r}")


def _choose(kind: str, name: str, choices: dict[str, Any]) -> Any:
    if name not in choices:
        near = difflib.get_close_matches(name, choices, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"unknown {kind} {name!r}{hint} (known: {', '.join(choices)})")
    return choices[name]
