"""One small model of each kind of backbone, and what a method adds to it by closed formula."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from timm.models import register_model
from timm.models.eva import Eva
from timm.models.mlp_mixer import MlpMixer
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer

from vidadapt.models import VideoModel, build

NUM_CLASSES = 5

# timm's classes at sizes that test in milliseconds.
SMALL = {
    VisionTransformer: {"patch_size": 16, "embed_dim": 48, "depth": 3, "num_heads": 3},
    Eva: {
        **{"patch_size": 16, "embed_dim": 48, "depth": 3, "num_heads": 3, "init_values": 1.0},
        **{"use_rot_pos_emb": True, "use_abs_pos_emb": False, "num_reg_tokens": 2},
    },
    SwinTransformer: {
        **{"patch_size": 4, "window_size": 4, "embed_dim": 24, "depths": (2, 2)},
        **{"num_heads": (2, 4)},
    },
    MlpMixer: {"patch_size": 8, "embed_dim": 48, "num_blocks": 3},
}


def _registered(cls: type, sizes: dict) -> None:
    def small(pretrained: bool = False, **options: Any) -> torch.nn.Module:
        chosen = {k: v for k, v in options.items() if not k.startswith(("pretrained", "cache"))}
        return cls(**{**sizes, **chosen})

    small.__name__ = f"small_{cls.__name__.lower()}"
    globals()[small.__name__] = small
    register_model(small)


for _cls, _sizes in SMALL.items():
    _registered(_cls, _sizes)

INFLATED, FRAMES = {"from_image": "inflate"}, {"from_image": "frames"}

# Title in docs/methods.md -> backbone and how an image model becomes a video model.
KINDS: dict[str, dict] = {
    "tubelet ViT": {"backbone": "vit_tiny"},
    "V-JEPA 2": {"backbone": "vjepa2_tiny"},
    "InternVideo2": {"backbone": "internvideo2_tiny", "patch_size": 16},
    "TimeSformer": {"backbone": "timesformer_tiny"},
    "ViViT": {"backbone": "vivit_tiny"},
    "VideoPrism": {"backbone": "videoprism_tiny", "patch_size": 16},
    "inflated ViT": {"backbone": "timm/small_visiontransformer", **INFLATED},
    "inflated EVA": {"backbone": "timm/small_eva", **INFLATED},
    "frame-wise ViT": {"backbone": "timm/small_visiontransformer", **FRAMES},
    "frame-wise Swin": {"backbone": "timm/small_swintransformer", **FRAMES},
    "frame-wise Mixer": {"backbone": "timm/small_mlpmixer", **FRAMES},
    "image ViT": {"backbone": "timm/small_visiontransformer", **FRAMES, "num_frames": 1},
}

# What a method must be told to be defined on a kind, beyond its defaults.
OPTIONS: dict[tuple[str, str], dict] = {("lora", "frame-wise Mixer"): {"targets": ["fc1", "fc2"]}}


def chosen(method: str, kind: str) -> dict:
    """The method with the options that it needs on this kind."""
    return {"name": method, **OPTIONS.get((method, kind), {})}


@functools.cache
def _built(kind: str) -> VideoModel:
    torch.manual_seed(0)
    shape = {"num_frames": num_frames(kind), "crop_size": 32, "num_classes": NUM_CLASSES}
    model = build(**{**KINDS[kind], **shape})[0]
    for name, parameter in model.named_parameters():
        if name.endswith(".gamma"):  # untrained, LayerScale lets hardly any gradient pass
            parameter.data.fill_(1.0)
    return model


def fresh(kind: str) -> VideoModel:
    """A model of this kind with the same random weights at every call."""
    return copy.deepcopy(_built(kind))


def num_frames(kind: str) -> int:
    return KINDS[kind].get("num_frames", 4)


def clips(batch: int = 4, kind: str = "tubelet ViT") -> torch.Tensor:
    shape = (batch, 3, num_frames(kind), 32, 32)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def disturb(model: torch.nn.Module) -> None:
    """Move what is trained a little, as some training would."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
