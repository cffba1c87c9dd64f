"""Layouts of checkpoint files: their tensor names to ours.

A layout is recognised by its tensor names, never by the file's name. Sources of the names:
MCG-NJU/VideoMAE and OpenGVLab/VideoMAEv2 (the same names), ShoufaChen/AdaptFormer (`convert.py`),
Hugging Face transformers' `models/videomae`, where version 4 and all published files have `q_bias`
and `v_bias`, and version 5 has `query.bias` and `value.bias`, and its `models/vjepa2`;
facebookresearch/vjepa2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from vidadapt.console import printable
from vidadapt.models.coverage import State, listed
from vidadapt.models.tensor_files import TensorFile

TUBELET_VIT, VJEPA = "vit_...", "vjepa2_..."  # the backbones that a layout is of


def _from_videomae(state: State) -> State:
    """VideoMAE and VideoMAE V2: ours, with `encoder.` (pre-training) or `backbone.` in front."""
    return _renamed(state, lambda name: re.sub(r"^(backbone\.|encoder\.)", "", name))


def _from_adaptformer(state: State) -> State:
    """AdaptFormer's converted files: separate q, k, v; the MLP's layers directly on the block."""
    state = _from_videomae(state)
    mlp = re.compile(r"^(blocks\.\d+)\.(fc[12])\.")
    return _fuse_qkv(_renamed(state, lambda name: mlp.sub(r"\1.mlp.\2.", name)))


HF_NAMES = {
    r"^(videomae\.)?embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
    r"^(videomae\.)?encoder\.layer\.(\d+)\.": r"blocks.\2.",
    r"^(videomae\.)?layernorm\.": "norm.",
    r"^classifier\.": "head.",
    r"^(blocks\.\d+)\.layernorm_before\.": r"\1.norm1.",
    r"^(blocks\.\d+)\.layernorm_after\.": r"\1.norm2.",
    r"^(blocks\.\d+)\.attention\.output\.dense\.": r"\1.attn.proj.",
    r"^(blocks\.\d+)\.attention\.attention\.(q_bias|v_bias)$": r"\1.attn.\2",
    r"^(blocks\.\d+)\.attention\.attention\.([qkv])\w+\.weight$": r"\1.attn.\2_proj.weight",
    r"^(blocks\.\d+)\.attention\.attention\.([qkv])\w+\.bias$": r"\1.attn.\2_bias",
    r"^(blocks\.\d+)\.intermediate\.dense\.": r"\1.mlp.fc1.",
    r"^(blocks\.\d+)\.output\.dense\.": r"\1.mlp.fc2.",
}


def _from_huggingface(state: State) -> State:
    """Hugging Face VideoMAE: base model, pre-training or classification; v4 or v5 bias names."""
    return _fuse_qkv(_renamed(state, _by_patterns(HF_NAMES)))


HF_VJEPA_NAMES = {
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


def _from_huggingface_vjepa(state: State) -> State:
    """Hugging Face V-JEPA 2: the model or a classifier."""
    state = _fuse_qkv(_renamed(state, _by_patterns(HF_VJEPA_NAMES)))
    cross = "head.cross_attention_block."
    for kind in ("weight", "bias"):
        parts = [f"{cross}{part}_proj.{kind}" for part in "kv"]
        if all(part in state for part in parts):
            state[f"{cross}kv.{kind}"] = torch.cat([state.pop(part) for part in parts])
    return state


# Version 2.1 has four norms after its last block, and reads the last.
META_VJEPA_NAMES = {
    r"^backbone\.": "",
    r"^video_mod_embed$": "video_embed",
    r"^norms_block\.3\.": "norm.",
}


def _from_meta_vjepa(state: State) -> State:
    """Meta's V-JEPA 2 and 2.1, and what this package writes of them."""
    return _renamed(state, _by_patterns(META_VJEPA_NAMES))


def _by_patterns(patterns: Mapping[str, str]) -> Callable[[str], str]:
    """Rename by all of these substitutions, one after the other."""

    def ours(name: str) -> str:
        for pattern, replacement in patterns.items():
            name = re.sub(pattern, replacement, name)
        return name

    return ours


def _renamed(state: State, rename: Callable[[str], str]) -> State:
    renamed = {rename(name): tensor for name, tensor in state.items()}
    if len(renamed) != len(state):
        raise ValueError("two tensors of the file have the same name but for a prefix")
    return renamed


def _fuse_qkv(state: State) -> State:
    """Join `attn.{q,k,v}_proj.weight` (D, D) to `attn.qkv.weight` (3 D, D), in this order.

    Biases of these names likewise.
    """
    parted = re.compile(r"\.attn\.[qkv]_proj\.(weight|bias)$")
    fused = {k: v for k, v in state.items() if not parted.search(k)}
    for name in [k for k in state if re.search(r"\.attn\.q_proj\.(weight|bias)$", k)]:
        parts = [name.replace("q_proj", part) for part in ("q_proj", "k_proj", "v_proj")]
        if all(part in state for part in parts):
            types = {str(state[part].dtype) for part in parts}
            if len(types) > 1:  # torch would widen one of them
                raise ValueError(f"{', '.join(parts)} are of different types: {sorted(types)}")
            fused[name.replace("q_proj", "qkv")] = torch.cat([state[part] for part in parts])
    return fused


@dataclass(frozen=True)
class Layout:
    """A way to name the tensors of a backbone.

    Attributes:
        backbone: `TUBELET_VIT` or `VJEPA`.
        mark: pattern of a tensor that only this layout has, of those that come later.
        convert: its names to ours.
    """

    backbone: str
    mark: str
    convert: Callable[[State], State]


# The first whose mark is found decides.
LAYOUTS = {
    "Hugging Face VideoMAE": Layout(
        TUBELET_VIT,
        r"^(videomae\.)?embeddings\.patch_embeddings\.projection\.weight$",
        _from_huggingface,
    ),
    "Hugging Face V-JEPA 2": Layout(
        VJEPA,
        r"^(vjepa2\.)?encoder\.embeddings\.patch_embeddings\.proj\.weight$",
        _from_huggingface_vjepa,
    ),
    "AdaptFormer (separate q, k, v)": Layout(
        TUBELET_VIT, r"^(backbone\.|encoder\.)?blocks\.0\.attn\.q_proj\.weight$", _from_adaptformer
    ),
    "V-JEPA 2.1": Layout(VJEPA, r"^(backbone\.)?video_(mod_)?embed$", _from_meta_vjepa),
    "V-JEPA 2": Layout(VJEPA, r"^(backbone\.)?blocks\.0\.attn\.qkv\.bias$", _from_meta_vjepa),
    "VideoMAE / VideoMAE V2 pre-training": Layout(
        TUBELET_VIT, r"^encoder\.patch_embed\.proj\.weight$", _from_videomae
    ),
    "VideoMAE / VideoMAE V2 fine-tuned, vidadapt": Layout(
        TUBELET_VIT, r"^(backbone\.)?patch_embed\.proj\.weight$", _from_videomae
    ),
}

# Left in front of every name by DistributedDataParallel, torch.compile, and V2's wrapper class.
WRAPPERS = re.compile(r"^(module\.|_orig_mod\.|model\.)+")


def without_wrappers(tensors: State) -> State:
    """Tensors of a file without the prefixes that wrappers leave in front of every name."""
    return _renamed(tensors, lambda name: WRAPPERS.sub("", name))


def our_names(file: TensorFile, backbone: str) -> tuple[str, State]:
    """Recognise the layout of a file: its name for reports, and the tensors by our names.

    Args:
        backbone: that the tensors are for.

    Raises:
        ValueError: a layout that is not known or is of another backbone, or tensors of it that
            cannot be brought into our form.
    """
    bare = without_wrappers(file.tensors)
    for name, layout in LAYOUTS.items():
        if not any(re.match(layout.mark, tensor) for tensor in bare):
            continue
        try:
            state = layout.convert(bare)
        except (ValueError, RuntimeError) as error:  # e.g. q, k and v that cannot be joined
            raise ValueError(f"{file.path}: {error}") from error
        patch = state.get("patch_embed.proj.weight")
        is_of_clips = patch is None or patch.ndim == 5
        if layout.backbone != backbone and is_of_clips:
            raise ValueError(
                f"{file.path} holds {name}, which is for model.backbone {layout.backbone}; "
                "choose one of these names, or another file"
            )
        return f"{name}{file.where}", state
    known = [name for name, layout in LAYOUTS.items() if layout.backbone == backbone]
    raise ValueError(
        f"{file.path} holds none of the known layouts ({'; '.join(known)}): it has no patch "
        f"embedding under a known name. Its first tensors: {printable(listed(list(file.tensors)))}"
    )
