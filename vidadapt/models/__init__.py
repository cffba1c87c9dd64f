"""Backbones and heads."""

from vidadapt.models.backbone import BACKBONES, RANDOM, WITHOUT_FILE, VideoModel, build
from vidadapt.models.frames import FrameByFrame
from vidadapt.models.inflated import InflatedViT

__all__ = [
    "BACKBONES",
    "RANDOM",
    "WITHOUT_FILE",
    "FrameByFrame",
    "InflatedViT",
    "VideoModel",
    "build",
]
