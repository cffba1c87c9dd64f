"""A model in the form of Hugging Face transformers: its names of tensors, and config.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from vidadapt.models.backbone import VideoModel
from vidadapt.models.blocks import NORM_EPS
from vidadapt.models.coverage import State
from vidadapt.models.positions import sincos_table
from vidadapt.models.vit import VideoViT
from vidadapt.models.vjepa import VJepaViT
from vidadapt.models.vjepa_head import VJepaHead

VIDEOMAE_NAMES = {
    r"^patch_embed\.proj\.": "videomae.embeddings.patch_embeddings.projection.",
    r"^norm\.": "videomae.layernorm.",
    r"^head\.": "classifier.",
    r"^blocks\.(\d+)\.": r"videomae.encoder.layer.\1.",
    r"\.norm1\.": ".layernorm_before.",
    r"\.norm2\.": ".layernorm_after.",
    r"\.attn\.proj\.": ".attention.output.dense.",
    r"\.attn\.(q_bias|v_bias|query|key|value)": r".attention.attention.\1",
    r"\.mlp\.fc1\.": ".intermediate.dense.",
    r"\.mlp\.fc2\.": ".output.dense.",
}
VJEPA_NAMES = {
    r"^patch_embed\.proj\.": "vjepa2.encoder.embeddings.patch_embeddings.proj.",
    r"^norm\.": "vjepa2.encoder.layernorm.",
    r"^blocks\.(\d+)\.attn\.": r"vjepa2.encoder.layer.\1.attention.",
    r"^blocks\.(\d+)\.": r"vjepa2.encoder.layer.\1.",
    r"^head\.classifier\.": "classifier.",
    r"^head\.query_tokens$": "pooler.query_tokens",
    r"^head\.blocks\.": "pooler.self_attention_layers.",
    r"^head\.cross_attention_block\.": "pooler.cross_attention_layer.",
    r"^(pooler\..+)\.norm([12])\.": r"\1.layer_norm\2.",
    r"^(pooler\..+)\.attn\.proj\.": r"\1.self_attn.out_proj.",
    r"^(pooler\..+)\.attn\.([qkv])[a-z]+\.": r"\1.self_attn.\2_proj.",
    r"^(pooler\.cross_attention_layer)\.q\.": r"\1.cross_attn.q_proj.",
    r"^(pooler\.cross_attention_layer)\.([kv])[a-z]+\.": r"\1.cross_attn.\2_proj.",
}


def huggingface_form(model: VideoModel) -> tuple[dict[str, Any], State]:
    """Return config.json's facts about a classifier, and its tensors by transformers' names.

    Args:
        model: without a method, its head folded.

    Raises:
        ValueError: transformers has no such model or head.
    """
    attn: Any = model.slots()[0].block.attn
    mlp: Any = model.slots()[0].block.mlp
    _, num_frames, crop_size, _ = model.clip_shape
    kernel: Any = getattr(model, "patch_embed").proj.kernel_size  # noqa: B009 # not of all models
    shared = {
        "hidden_size": model.width,
        "num_hidden_layers": model.depth,
        "num_attention_heads": attn.num_heads,
        "patch_size": kernel[1],
        "tubelet_size": kernel[0],
        "hidden_act": "gelu",
        "layer_norm_eps": NORM_EPS,
        "qkv_bias": True,
        "dtype": "float32",
    }
    state = model.state_dict()
    if isinstance(model, VideoViT):
        _require_videomae(model)
        form = {
            "architectures": ["VideoMAEForVideoClassification"],
            "model_type": "videomae",
            "image_size": crop_size,
            "num_frames": num_frames,
            "intermediate_size": mlp.fc1.out_features,
            "use_mean_pooling": model.norm is None,
        }
        return {**form, **shared}, _renamed(_apart(state), VIDEOMAE_NAMES)
    if not isinstance(model, VJepaViT):
        raise ValueError(
            f"--layout: huggingface is for tubelet ViTs and V-JEPA 2, and the backbone is "
            f"{model.name}; choose another layout"
        )
    head = _vjepa_head(model)
    form = {
        "architectures": ["VJEPA2ForVideoClassification"],
        "model_type": "vjepa2",
        "crop_size": crop_size,
        "frames_per_clip": num_frames,
        "mlp_ratio": mlp.fc1.out_features / model.width,
        "num_pooler_layers": len(head.blocks),
    }
    return {**form, **shared}, _renamed(_apart(state), VJEPA_NAMES)


def _require_videomae(model: VideoViT) -> None:
    if not isinstance(model.head, nn.Linear):
        raise ValueError(
            "--layout: huggingface is for linear heads on this backbone, and this head is of "
            "another kind (model.head); choose --layout vidadapt, or backbone"
        )
    if not torch.equal(model.pos_embed.cpu(), sincos_table(*model.pos_embed.shape)):
        raise ValueError(
            "--layout: this model interpolates its positions (model.position_grid), and "
            "transformers computes them anew; choose --layout vidadapt"
        )


def _vjepa_head(model: VJepaViT) -> VJepaHead:
    heads: Any = model.slots()[0].block.attn
    if not isinstance(model.head, VJepaHead):
        raise ValueError(
            "--layout: transformers' V-JEPA 2 has the head vjepa_attentive alone, and this head "
            "is of another kind (model.head); choose --layout vidadapt, or backbone"
        )
    if model.video_embed is not None or model.segments > 1:
        what = "version 2.1" if model.video_embed is not None else "clips in segments"
        raise ValueError(
            f"--layout: transformers' V-JEPA 2 does not know {what}; choose --layout vidadapt"
        )
    if model.head.cross_attention_block.num_heads != heads.num_heads:
        raise ValueError(
            f"--layout: this probe has {model.head.cross_attention_block.num_heads} heads, and in "
            f"transformers it has as many as the backbone, {heads.num_heads}; choose --layout "
            "vidadapt"
        )
    return model.head


def _apart(state: State) -> State:
    """Cut joint projections into `query`, `key` and `value`, or `key` and `value`."""
    found: State = {}
    for name, tensor in state.items():
        cut = re.fullmatch(r"(.*)\b(qkv|kv)\.(weight|bias)", name)
        if not cut:
            found[name] = tensor
            continue
        parts = ("query", "key", "value")[-len(cut[2]) :]
        for part, own in zip(parts, tensor.chunk(len(parts)), strict=True):
            found[f"{cut[1]}{part}.{cut[3]}"] = own.clone()
    return found


def _renamed(state: State, patterns: Mapping[str, str]) -> State:
    found: State = {}
    for name, tensor in state.items():
        for pattern, replacement in patterns.items():
            name = re.sub(pattern, replacement, name)
        found[name] = tensor
    return found
