"""Backbones and heads."""

from vidadapt.models.backbone import VideoModel
from vidadapt.models.batchnorm import over_all_processes, require_two_clips, without_clips
from vidadapt.models.coverage import require_match
from vidadapt.models.families import BACKBONES, build
from vidadapt.models.frames import FrameByFrame
from vidadapt.models.hub import RANDOM, WITHOUT_FILE
from vidadapt.models.inflated import InflatedViT
from vidadapt.models.precision import NonFinite, autocast, cast_frozen, resolved_precision
from vidadapt.models.vit import SIZES

__all__ = [
    "BACKBONES",
    "RANDOM",
    "SIZES",
    "WITHOUT_FILE",
    "FrameByFrame",
    "InflatedViT",
    "NonFinite",
    "VideoModel",
    "autocast",
    "build",
    "cast_frozen",
    "over_all_processes",
    "require_match",
    "require_two_clips",
    "resolved_precision",
    "without_clips",
]
