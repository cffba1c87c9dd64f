"""Names of Hugging Face's video models to ours (transformers' `models/NAME`).

VideoMAE: version 4 and all published files have `q_bias` and `v_bias`, version 5 has `query.bias`
and `value.bias`.
"""

from __future__ import annotations

import re

import torch

from vidadapt.models.coverage import State
from vidadapt.models.renaming import by_patterns, fuse_qkv, renamed

VIT_NAMES = {
    r"^embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
    r"^embeddings\.position_embeddings$": "pos_embed",
    r"^embeddings\.cls_token$": "cls_token",
    r"^encoder\.layer\.(\d+)\.": r"blocks.\1.",
    r"^layernorm\.": "norm.",
    r"^classifier\.": "head.",
    r"^(blocks\.\d+)\.layernorm_before\.": r"\1.norm1.",
    r"^(blocks\.\d+)\.layernorm_after\.": r"\1.norm2.",
    r"^(blocks\.\d+)\.attention\.output\.dense\.": r"\1.attn.proj.",
    r"^(blocks\.\d+)\.attention\.attention\.([qkv])(uery|ey|alue)\.": r"\1.attn.\2_proj.",
    r"^(blocks\.\d+)\.intermediate\.dense\.": r"\1.mlp.fc1.",
    r"^(blocks\.\d+)\.output\.dense\.": r"\1.mlp.fc2.",
}
VIDEOMAE_NAMES = {
    r"^videomae\.": "",
    **VIT_NAMES,
    r"^(blocks\.\d+)\.attention\.attention\.(q_bias|v_bias)$": r"\1.attn.\2",
    r"^(blocks\.\d+)\.attn\.([qkv])_proj\.bias$": r"\1.attn.\2_bias",
}


def from_videomae(state: State) -> State:
    """VideoMAE: base model, pre-training or classification; v4 or v5 bias names."""
    return fuse_qkv(renamed(state, by_patterns(VIDEOMAE_NAMES)))


TIMESFORMER_NAMES = {
    r"^timesformer\.": "",
    **VIT_NAMES,
    r"^embeddings\.time_embeddings$": "time_pos_embed",
    r"^(blocks\.\d+)\.attention\.attention\.qkv\.": r"\1.attn.qkv.",
    r"^blocks\.(\d+)\.temporal_layernorm\.": r"befores.\1.norm.",
    r"^blocks\.(\d+)\.temporal_attention\.attention\.qkv\.": r"befores.\1.attn.qkv.",
    r"^blocks\.(\d+)\.temporal_attention\.output\.dense\.": r"befores.\1.attn.proj.",
    r"^blocks\.(\d+)\.temporal_dense\.": r"befores.\1.dense.",
}


def from_timesformer(state: State) -> State:
    """TimeSformer: the model or a classifier, with divided attention."""
    return divided_timesformer(renamed(state, by_patterns(TIMESFORMER_NAMES)))


def divided_timesformer(state: State) -> State:
    """Check, by our names, that attention is divided; make the patch a tubelet of one frame."""
    if not any(name.startswith("befores.") for name in state):
        kind = "joint_space_time" if "time_pos_embed" in state else "space_only"
        raise ValueError(
            f"this TimeSformer's layers have no temporal_attention: its attention_type is {kind}, "
            "and only divided_space_time is supported; choose such a file"
        )
    patch = state.get("patch_embed.proj.weight")
    if patch is not None and patch.ndim == 4:
        state["patch_embed.proj.weight"] = patch.unsqueeze(2)
    return state


VIVIT_NAMES = {
    r"^vivit\.": "",
    r"^layers\.": "encoder.layer.",  # in memory, version 5 has other names than in files
    **VIT_NAMES,
    r"^(blocks\.\d+)\.attention\.o_proj\.": r"\1.attn.proj.",
    r"^(blocks\.\d+)\.attention\.([qkv])_proj\.": r"\1.attn.\2_proj.",
}


def from_vivit(state: State) -> State:
    """ViViT: the model or a classifier."""
    return fuse_qkv(renamed(state, by_patterns(VIVIT_NAMES)))


VIDEOPRISM_NAMES = {
    r"^(video_model\.)?vision_model\.": "",
    r"^(video_model\.)?(head|head_layernorm|auxiliary_layers)\.": r"pooler.\2.",
    r"^classifier\.": "head.",
    r"^spatial_embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
    r"^spatial_embeddings\.position_embeddings$": "pos_embed",
    r"^layernorm2\.": "norm.",
    r"^spatial_layers\.": "blocks.",
    r"^(blocks\.\d+)\.layernorm_before\.": r"\1.norm1.",
    r"^(blocks\.\d+)\.layernorm_after\.": r"\1.norm2.",
    r"^(blocks\.\d+)\.attention\.o_proj\.": r"\1.attn.proj.",
    r"^(blocks\.\d+)\.attention\.([qkv])_proj\.": r"\1.attn.\2_proj.",
}


def from_videoprism(state: State) -> State:
    """VideoPrism: the encoder alone, or with what classifies or compares with texts."""
    found = [re.search(r"(?:^|\.)spatial_layers\.(\d+)\.", name) for name in state]
    first = 1 + max((int(match[1]) for match in found if match), default=-1)

    def of_time(name: str) -> str:
        """Blocks over time come after those over space, and between them what enters time."""
        name = re.sub(r"(^|\.)layernorm1\.", rf"\1befores.{first}.norm.", name)
        name = re.sub(
            r"(^|\.)temporal_embeddings\.position_embeddings$",
            rf"\1befores.{first}.pos_embed",
            name,
        )
        return re.sub(
            r"(^|\.)temporal_layers\.(\d+)\.",
            lambda match: f"{match[1]}spatial_layers.{first + int(match[2])}.",
            name,
        )

    state = fuse_qkv(renamed(renamed(state, of_time), by_patterns(VIDEOPRISM_NAMES)))
    norm = re.compile(r"(befores\.\d+\.norm|blocks\.\d+\.norm[12]|norm)\.weight$")
    scales = [name for name, t in state.items() if norm.match(name) and t.is_floating_point()]
    # Files hold a norm's scale less 1, with digits that half precision has not near 1.
    return {**state, **{name: state[name].double() + 1 for name in scales}}


VJEPA_NAMES = {
    r"^vjepa2\.": "",
    r"^encoder\.embeddings\.patch_embeddings\.proj\.": "patch_embed.proj.",
    r"^encoder\.layer\.(\d+)\.": r"blocks.\1.",
    r"^encoder\.layernorm\.": "norm.",
    r"^(blocks\.\d+)\.attention\.([qkv])(uery|ey|alue)\.": r"\1.attn.\2_proj.",
    r"^(blocks\.\d+)\.attention\.proj\.": r"\1.attn.proj.",
    r"^classifier\.": "head.classifier.",
    r"^pooler\.query_tokens$": "head.query_tokens",
    r"^pooler\.self_attention_layers\.": "head.blocks.",
    r"^pooler\.cross_attention_layer\.": "head.cross_attention_block.",
    r"^(head\..+)\.layer_norm([12])\.": r"\1.norm\2.",
    r"^(head\..+)\.self_attn\.([qkv])_proj\.": r"\1.attn.\2_proj.",
    r"^(head\..+)\.self_attn\.out_proj\.": r"\1.attn.proj.",
    r"^(head\..+)\.cross_attn\.q_proj\.": r"\1.q.",
    r"^(head\..+)\.cross_attn\.([kv])_proj\.": r"\1.\2_proj.",
}


def from_vjepa(state: State) -> State:
    """V-JEPA 2: the model or a classifier."""
    state = fuse_qkv(renamed(state, by_patterns(VJEPA_NAMES)))
    cross = "head.cross_attention_block."
    for kind in ("weight", "bias"):
        parts = [f"{cross}{part}_proj.{kind}" for part in "kv"]
        if all(part in state for part in parts):
            state[f"{cross}kv.{kind}"] = torch.cat([state.pop(part) for part in parts])
    return state
