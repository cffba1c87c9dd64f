"""Backbones and heads."""

from vidadapt.models.backbone import BACKBONES, RANDOM, WITHOUT_FILE, VideoModel, build
from vidadapt.models.batchnorm import over_all_processes, require_two_clips, without_clips
from vidadapt.models.frames import FrameByFrame
from vidadapt.models.inflated import InflatedViT
from vidadapt.models.precision import NonFinite, autocast, cast_frozen, resolved_precision

__all__ = [
    "BACKBONES",
    "RANDOM",
    "WITHOUT_FILE",
    "FrameByFrame",
    "InflatedViT",
    "NonFinite",
    "VideoModel",
    "autocast",
    "build",
    "cast_frozen",
    "over_all_processes",
    "require_two_clips",
    "resolved_precision",
    "without_clips",
]
