"""Small image models of timm's with random weights."""

from __future__ import annotations

from functools import partial
from typing import Any

import timm
import torch
from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock
from torch import nn

SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 32, "num_classes": 0}
SWIN = {"img_size": 32, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4), "num_classes": 0}

# What each stands for -> timm's name and changed sizes.
VITS: dict[str, tuple[str, dict[str, Any]]] = {
    "class token": ("vit_tiny_patch16_224", {}),
    "distilled": ("deit_tiny_distilled_patch16_224", {}),
    "DINOv2, registers, LayerScale": ("vit_small_patch14_reg4_dinov2", {"img_size": 42}),
    "CLIP, norm in front": ("vit_base_patch16_clip_224", {}),
    "SigLIP, attention pool": ("vit_base_patch16_siglip_224", {}),
    "DeiT III, LayerScale": ("deit3_small_patch16_224", {}),
    "average pool": ("vit_tiny_patch16_224", {"global_pool": "avg"}),
    "EVA, no rotation": ("eva_large_patch14_196", {"img_size": 28}),
    "EVA-02, rotation, separate qkv": ("eva02_base_patch14_224", {"img_size": 28}),
    "DINOv3, rotation, registers": ("vit_small_patch16_dinov3", {}),
    "DINOv3 with biases": ("vit_small_patch16_dinov3_qkvb", {}),
    "rotation, plain attention": ("vit_base_patch16_rope_224", {}),
}
OTHERS = ("Swin, shifted windows", "Swin, padded windows", "Mixer", "ResMLP")


def image_model(kind: str, *, drop_path: float = 0.0) -> nn.Module:
    """In eval mode, every parameter away from its initial value."""
    torch.manual_seed(0)
    if kind in VITS:
        name, changes = VITS[kind]
        model = timm.create_model(name, **{**SMALL, "drop_path_rate": drop_path, **changes})
    elif kind.startswith("Swin"):
        window = 4 if "shifted" in kind else 3
        model = timm.create_model("swin_tiny_patch4_window7_224", **SWIN, window_size=window)
    else:
        mixer: Any = partial(MlpMixer, num_classes=0, img_size=32, num_blocks=2, embed_dim=48)
        model = mixer()
        if kind == "ResMLP":
            model = mixer(block_layer=ResBlock, norm_layer=Affine, mlp_ratio=4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def crop_size(kind: str) -> int:
    return VITS[kind][1].get("img_size", 32) if kind in VITS else 32
