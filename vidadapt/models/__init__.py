"""Backbones and heads."""

from vidadapt.models.attention import QkvLinear
from vidadapt.models.backbone import BackboneOptions, VideoModel, put_head
from vidadapt.models.batchnorm import over_all_processes, require_two_clips, without_clips
from vidadapt.models.blocks import Block, Slot
from vidadapt.models.clip_shape import require_shape
from vidadapt.models.config_json import stated_beside
from vidadapt.models.coverage import Pixels, require_match
from vidadapt.models.families import BACKBONES, build
from vidadapt.models.frame_by_frame import FrameByFrame
from vidadapt.models.heads import HEADS, READ_OUT, pools
from vidadapt.models.hub import RANDOM, WITHOUT_FILE, is_hub_name, weights_file
from vidadapt.models.inflated import InflatedViT
from vidadapt.models.plain import LAYOUTS, fold_batchnorm, plain_state, write_plain
from vidadapt.models.precision import (
    NonFinite,
    Precision,
    autocast,
    cast_frozen,
    resolved_precision,
)
from vidadapt.models.published_head import (
    PublishedHead,
    published_head,
    published_probe,
    reorder_classes,
)
from vidadapt.models.timm_attention import ShiftedWindowAttention, TokenAttention
from vidadapt.models.to_huggingface import huggingface_form
from vidadapt.models.vit import SIZES, PatchEmbed, VideoViT
from vidadapt.models.vjepa import VJepaViT
from vidadapt.models.weights import LoadReport, fingerprint, load_weights

__all__ = [
    "BACKBONES",
    "HEADS",
    "LAYOUTS",
    "RANDOM",
    "READ_OUT",
    "SIZES",
    "WITHOUT_FILE",
    "BackboneOptions",
    "Block",
    "FrameByFrame",
    "InflatedViT",
    "LoadReport",
    "NonFinite",
    "PatchEmbed",
    "Pixels",
    "Precision",
    "PublishedHead",
    "QkvLinear",
    "ShiftedWindowAttention",
    "Slot",
    "TokenAttention",
    "VJepaViT",
    "VideoModel",
    "VideoViT",
    "autocast",
    "build",
    "cast_frozen",
    "fingerprint",
    "fold_batchnorm",
    "huggingface_form",
    "is_hub_name",
    "load_weights",
    "over_all_processes",
    "plain_state",
    "pools",
    "published_head",
    "published_probe",
    "put_head",
    "reorder_classes",
    "require_match",
    "require_shape",
    "require_two_clips",
    "resolved_precision",
    "stated_beside",
    "weights_file",
    "without_clips",
    "write_plain",
]
