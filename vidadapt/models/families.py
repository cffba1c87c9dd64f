"""The families of backbones, and how one is built by its name.

A family is a function of a name and options that returns the model, with loaded weights, and the
loading report. A new family: a class as `backbone.VideoModel` describes it, such a function, and
its names in `BACKBONES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import timm

from vidadapt.console import require_known
from vidadapt.models.backbone import (
    BackboneOptions,
    VideoModel,
    require_one_segment,
    require_unset,
)
from vidadapt.models.config_json import compare
from vidadapt.models.coverage import LoadReport, State
from vidadapt.models.encoder import ClipEncoder
from vidadapt.models.encoder_files import (
    INTERNVIDEO2_FILES,
    TIMESFORMER_FILES,
    VIDEOPRISM_FILES,
    VIVIT_FILES,
)
from vidadapt.models.encoder_weights import EncoderFiles, load_encoder
from vidadapt.models.from_image import video_from_image
from vidadapt.models.heads import HEADS
from vidadapt.models.hub import weights_file
from vidadapt.models.image import PREFIX
from vidadapt.models.internvideo2 import INTERNVIDEO2_SIZES, InternVideo2
from vidadapt.models.learned_positions import (
    fit_internvideo2,
    fit_timesformer,
    fit_videoprism,
    fit_vivit,
)
from vidadapt.models.positions import Grid, interpolated_table
from vidadapt.models.probe_file import load_probe
from vidadapt.models.timesformer import TIMESFORMER_SIZES, TimeSformer
from vidadapt.models.videoprism import VIDEOPRISM_SIZES, VideoPrism
from vidadapt.models.vit import SIZES, VideoViT
from vidadapt.models.vivit import VIVIT_SIZES, ViViT
from vidadapt.models.vjepa import VJEPA_SIZES, VJepaViT
from vidadapt.models.vjepa_weights import load_vjepa_weights
from vidadapt.models.weights import load_weights

Family = Callable[[str, BackboneOptions], tuple[VideoModel, LoadReport | None]]


def tubelet_vit(name: str, options: BackboneOptions) -> tuple[VideoModel, LoadReport | None]:
    """Return a `VideoViT` of one of `SIZES`, and the loading report."""
    _require_no_image_options(name, options)
    require_one_segment(name, options)
    sizes = options.of_a_vit(SIZES[name])
    vit = VideoViT(
        num_frames=options.num_frames,
        crop_size=options.crop_size,
        tubelet_size=options.tubelet_size,
        drop_path=options.drop_path,
        num_classes=options.num_classes,
        **sizes,
    )
    vit.name = name
    options.put_head(vit)
    if options.interpolate_from is not None:
        vit.pos_embed = interpolated_table(options.interpolate_from, vit.grid, vit.width)
    path = weights_file(options.weights)
    if path is None:
        return vit, None
    said, pixels = compare(path, "videomae", name, sizes, options, SIZES)
    report = load_weights(vit, path, key=options.weights_key, keep_head=options.keep_head)
    return vit, replace(report, notes=(*report.notes, *said), pixels=pixels)


def vjepa(name: str, options: BackboneOptions) -> tuple[VideoModel, LoadReport | None]:
    """Return a `VJepaViT` of one of `VJEPA_SIZES`, and the loading report."""
    _require_no_image_options(name, options)
    require_unset(
        f"is for position tables; leave it out with {name}, which rotates instead",
        position_grid=options.interpolate_from,
    )
    sizes = options.of_a_vit(VJEPA_SIZES[name])
    vit = VJepaViT(
        num_frames=options.num_frames,
        crop_size=options.crop_size,
        tubelet_size=options.tubelet_size,
        drop_path=options.drop_path,
        segments=options.segments,
        num_classes=options.num_classes,
        **sizes,
    )
    vit.name = name
    options.put_head(vit)
    path = weights_file(options.weights)
    if path is None:
        return vit, None
    said, pixels = compare(path, "vjepa2", name, sizes, options, VJEPA_SIZES)
    report = load_vjepa_weights(vit, path, key=options.weights_key, keep_head=options.keep_head)
    if options.head_weights is not None:
        report = load_probe(vit, Path(options.head_weights), report, options.head_weights_key)
    return vit, replace(report, notes=(*report.notes, *said), pixels=pixels)


def timesformer(name: str, options: BackboneOptions) -> tuple[VideoModel, LoadReport | None]:
    """Return a `TimeSformer` of one of `TIMESFORMER_SIZES`, and the loading report."""
    _require_own_tables(name, options)
    model = TimeSformer(**_encoder_sizes(name, options, TIMESFORMER_SIZES))
    return _loaded(model, name, options, TIMESFORMER_FILES, fit_timesformer, "timesformer")


def videoprism(name: str, options: BackboneOptions) -> tuple[VideoModel, LoadReport | None]:
    """Return a `VideoPrism` of one of `VIDEOPRISM_SIZES`, and the loading report."""
    _require_own_tables(name, options)
    model = VideoPrism(**_encoder_sizes(name, options, VIDEOPRISM_SIZES))
    return _loaded(
        model, name, options, VIDEOPRISM_FILES, fit_videoprism, "videoprism_vision_model"
    )


def internvideo2(name: str, options: BackboneOptions) -> tuple[VideoModel, LoadReport | None]:
    """Return an `InternVideo2` of one of `INTERNVIDEO2_SIZES`, and the loading report."""
    _require_own_tables(name, options)
    if options.keep_head:
        raise ValueError(
            f"keep_head: {name} gets a new head; the release's reads an attention pool that is "
            "left out here"
        )
    model = InternVideo2(**_encoder_sizes(name, options, INTERNVIDEO2_SIZES))
    return _loaded(model, name, options, INTERNVIDEO2_FILES, fit_internvideo2)


def vivit(name: str, options: BackboneOptions) -> tuple[VideoModel, LoadReport | None]:
    """Return a `ViViT` of one of `VIVIT_SIZES`, and the loading report."""
    sizes = _encoder_sizes(name, options, VIVIT_SIZES)
    model = ViViT(tubelet_size=options.tubelet_size, **sizes)
    fit = partial(fit_vivit, table_grid=options.interpolate_from)
    return _loaded(model, name, options, VIVIT_FILES, fit, "vivit")


def _encoder_sizes(
    name: str, options: BackboneOptions, sizes: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Arguments of a `ClipEncoder`, after the check of options that none has."""
    _require_no_image_options(name, options)
    require_one_segment(name, options)
    return {
        "num_frames": options.num_frames,
        "crop_size": options.crop_size,
        "drop_path": options.drop_path,
        "num_classes": options.num_classes,
        **options.of_a_vit(sizes[name]),
    }


def _loaded(
    model: ClipEncoder,
    name: str,
    options: BackboneOptions,
    files: EncoderFiles,
    fit: Callable[[State, Grid], tuple[str, ...]],
    kind: str | None = None,
) -> tuple[VideoModel, LoadReport | None]:
    """Name a model, give it the chosen head, and load its weights.

    Args:
        kind: `model_type` of a config.json beside the weights; None: none is looked for.
    """
    model.name = name
    options.put_head(model)
    path = weights_file(options.weights)
    if path is None:
        return model, None
    said: tuple[str, ...] = ()
    pixels = None
    if kind is not None:
        sizes = options.of_a_vit(files.sizes[name])
        said, pixels = compare(path, kind, name, sizes, options, files.sizes)
    report = load_encoder(
        model,
        path,
        files,
        key=options.weights_key,
        keep_head=options.keep_head,
        fit=lambda state: fit(state, model.grid),
        read_class_token=model.read_class_token,
    )
    return model, replace(report, notes=(*report.notes, *said), pixels=pixels)


def _require_own_tables(name: str, options: BackboneOptions) -> None:
    """Refuse options of tubelets, and the grid of a table that says its grid itself."""
    require_unset(
        f"is for vit_... and vivit_...; leave it out with {name}, whose tables say their grid",
        position_grid=options.interpolate_from,
    )
    if options.tubelet_size not in (1, BackboneOptions.tubelet_size):
        raise ValueError(
            f"model.tubelet_size: {options.tubelet_size} is for tubelets; leave it out with "
            f"{name}, whose tokens are of one frame"
        )


def _require_no_image_options(name: str, options: BackboneOptions) -> None:
    require_unset(
        f"is for image models (model.backbone: {PREFIX}NAME); leave it out with {name}",
        from_image=options.from_image,
        inflation=options.inflation,
    )


# A key that ends in / means every name that begins with it.
BACKBONES: dict[str, Family] = {
    **dict.fromkeys(SIZES, tubelet_vit),
    **dict.fromkeys(VJEPA_SIZES, vjepa),
    **dict.fromkeys(TIMESFORMER_SIZES, timesformer),
    **dict.fromkeys(VIVIT_SIZES, vivit),
    **dict.fromkeys(VIDEOPRISM_SIZES, videoprism),
    **dict.fromkeys(INTERNVIDEO2_SIZES, internvideo2),
    PREFIX: video_from_image,
}


def build(backbone: str, **options: Any) -> tuple[VideoModel, LoadReport | None]:
    """Return a backbone with a head, all parameters trainable, and the loading report.

    Args:
        backbone: key of `BACKBONES`, e.g. `vit_base`, or `timm/NAME` for an image model of timm's.
        options: fields of `BackboneOptions`: `num_frames`, `crop_size`, `num_classes` and others.

    Raises:
        ValueError: unknown names, impossible sizes, options that do not apply to the backbone,
            weights that do not fit.
        FileNotFoundError: no such weights file.
    """
    chosen = BackboneOptions(**options)
    require_known("model.head", chosen.head, HEADS)
    if backbone not in BACKBONES and timm.is_model(backbone):
        raise ValueError(f"model.backbone: write {PREFIX}{backbone} for this model of timm's")
    if chosen.num_heads is not None and backbone not in (*SIZES, *VJEPA_SIZES):
        require_unset("is for vit_... and vjepa2_...; leave it out", num_heads=chosen.num_heads)
    if backbone not in VJEPA_SIZES:
        require_unset("is for vjepa2_...; leave it out", head_weights=chosen.head_weights)
    prefix = f"{backbone.partition('/')[0]}/"
    key = prefix if prefix in BACKBONES else backbone
    return BACKBONES[require_known("model.backbone", key, BACKBONES)](backbone, chosen)
