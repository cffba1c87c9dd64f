"""Checkpoint families: their tensor names to ours, strict loading, coverage report.

A family is recognised by its tensor names, never by the file's name. Every tensor of the backbone
must be found with its shape, and every tensor of the file must be either used or known as unused
here; anything else is an error. Sources of the names: MCG-NJU/VideoMAE and
OpenGVLab/VideoMAEv2 (the same names), ShoufaChen/AdaptFormer (`convert.py`), and Hugging Face
transformers' `models/videomae`, where version 4 and all published files have `q_bias` and
`v_bias`, and version 5 has `query.bias` and `value.bias`.

The number of heads is in none of these files; it is the backbone's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from vidadapt.console import printable
from vidadapt.models.coverage import FLOATS, NOT_BACKBONE, LoadReport, State, listed, require_match
from vidadapt.models.positions import sincos_table
from vidadapt.models.tensor_files import TensorFile, read_tensors
from vidadapt.models.vit import SIZES, VideoViT

BACKBONE = ("patch_embed.", "blocks.")  # of a tubelet ViT

# Tensors, under our names, that a fine-tuned classifier does not use.
UNUSED = {
    "decoder of the pre-training": r"(decoder\.|encoder_to_decoder\.|mask_token$)",
    "key bias (adds the same to all scores of a query, so the softmax cancels it)": (
        r"blocks\.\d+\.attn\.k_bias$"
    ),
    "fixed sin-cos positions (computed, not stored)": r"pos_embed$",
}
LAST_NORM = {
    "norm after the last encoder block (fine-tuning pools first, then applies fc_norm)": r"norm\."
}
OLD_HEAD = {"old head (a new one is trained)": r"head\."}


def load_weights(
    model: VideoViT,
    path: Path,
    *,
    key: str | None = None,
    keep_head: bool = False,
) -> LoadReport:
    """Load a checkpoint file of any recognised family into a `VideoViT`, strictly.

    The whole backbone comes from the file; `fc_norm` too where the file has it; the head only with
    `keep_head`, and with it the norm in front of it. A classifier of the first token (with a last
    `norm` and no `fc_norm`: `use_mean_pooling` false) keeps its read-out. Half-precision files are
    cast to the model's type.

    Args:
        key: entry of the file to take, see `read_tensors`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable or unknown file, or one message with all missing, mismatched and
            unexpected tensors, or with those that hold NaN or infinite values.
    """
    file = read_tensors(path, key)
    path = file.path
    family, state = _to_our_names(file)
    target, unused, notes = model.state_dict(), UNUSED | LAST_NORM | OLD_HEAD, file.notes
    first_token = keep_head and "norm.weight" in state and "fc_norm.weight" not in state
    if keep_head:
        unused = UNUSED
    if first_token:
        target = {re.sub(r"^fc_norm\.", "norm.", name): t for name, t in target.items()}
        notes += ("the head reads the first token, as it was trained to: no mean pooling",)
    dropped = {reason: tuple(k for k in state if re.match(unused[reason], k)) for reason in unused}
    dropped = {reason: names for reason, names in dropped.items() if names}
    used = {k: v for k, v in state.items() if not any(k in names for names in dropped.values())}
    parts: tuple[str, ...] = BACKBONE
    if keep_head:  # with the norm in front of it
        parts += ("norm." if first_token else "fc_norm.", "head.")
    elif any(name.startswith("fc_norm.") for name in used):
        parts += ("fc_norm.",)
    required = [name for name in target if name.startswith(parts)]
    size = _describe_size(used)
    advice = f"the file looks like {size}; choose the backbone, patch and tubelet size to match"
    require_match(path, used, target, required, advice)
    if "pos_embed" in state:
        _require_fixed_positions(path, state["pos_embed"])
    if first_token:
        model.read_first_token()
    model.load_state_dict({**target, **used}, strict=True)
    return LoadReport(
        path=path,
        family=family,
        loaded=tuple(used),
        loaded_values=sum(v.numel() for v in used.values()),
        fresh=tuple(k for k in target if k not in used),
        dropped=dropped,
        notes=notes,
    )


def backbone_state(model: nn.Module) -> State:
    """The tensors of a backbone, by name, not copied: all but `NOT_BACKBONE`."""
    return {k: v for k, v in model.state_dict().items() if not k.startswith(NOT_BACKBONE)}


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the backbone's tensors: sorted names, shapes and float32 bytes.

    Take it before a method is injected: a method may rename or add tensors.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone_state(model).items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


# --- families: one function each, its names -> ours --------------------------------------------


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

    def ours(name: str) -> str:
        for pattern, replacement in HF_NAMES.items():
            name = re.sub(pattern, replacement, name)
        return name

    return _fuse_qkv(_renamed(state, ours))


def _renamed(state: State, rename: Callable[[str], str]) -> State:
    renamed = {rename(name): tensor for name, tensor in state.items()}
    if len(renamed) != len(state):
        raise ValueError("two tensors of the file have the same name but for a prefix")
    return renamed


def _fuse_qkv(state: State) -> State:
    """Join `attn.{q,k,v}_proj.weight` (D, D) to `attn.qkv.weight` (3 D, D), in this order."""
    fused = {k: v for k, v in state.items() if not re.search(r"\.attn\.[qkv]_proj\.weight$", k)}
    for name in [k for k in state if k.endswith(".attn.q_proj.weight")]:
        parts = [name.replace("q_proj", part) for part in ("q_proj", "k_proj", "v_proj")]
        if all(part in state for part in parts):
            types = {str(state[part].dtype) for part in parts}
            if len(types) > 1:  # torch would widen one of them
                raise ValueError(f"{', '.join(parts)} are of different types: {sorted(types)}")
            fused[name.replace("q_proj", "qkv")] = torch.cat([state[part] for part in parts])
    return fused


# Layout -> (pattern of a tensor that only this layout has, its function). The first match decides.
FAMILIES: dict[str, tuple[str, Callable[[State], State]]] = {
    "Hugging Face VideoMAE": (
        r"^(videomae\.)?embeddings\.patch_embeddings\.projection\.weight$",
        _from_huggingface,
    ),
    "AdaptFormer (separate q, k, v)": (
        r"^(backbone\.|encoder\.)?blocks\.0\.attn\.q_proj\.weight$",
        _from_adaptformer,
    ),
    "VideoMAE / VideoMAE V2 pre-training": (
        r"^encoder\.patch_embed\.proj\.weight$",
        _from_videomae,
    ),
    "VideoMAE / VideoMAE V2 fine-tuned, vidadapt": (
        r"^(backbone\.)?patch_embed\.proj\.weight$",
        _from_videomae,
    ),
}

# Left in front of every name by DistributedDataParallel, torch.compile, and V2's wrapper class.
WRAPPERS = re.compile(r"^(module\.|_orig_mod\.|model\.)+")


def without_wrappers(tensors: State) -> State:
    """Tensors of a file without the prefixes that wrappers leave in front of every name."""
    return _renamed(tensors, lambda name: WRAPPERS.sub("", name))


def _to_our_names(file: TensorFile) -> tuple[str, State]:
    bare = without_wrappers(file.tensors)
    for family, (pattern, convert) in FAMILIES.items():
        if any(re.match(pattern, name) for name in bare):
            try:
                return f"{family}{file.where}", convert(bare)
            except (ValueError, RuntimeError) as error:  # e.g. q, k and v that cannot be joined
                raise ValueError(f"{file.path}: {error}") from error
    raise ValueError(
        f"{file.path} holds none of the known layouts ({'; '.join(FAMILIES)}): it has no patch "
        f"embedding under a known name. Its first tensors: {printable(listed(list(file.tensors)))}"
    )


def _require_fixed_positions(path: Path, stored: Tensor) -> None:
    table = stored.float().flatten(0, -2) if stored.ndim > 1 and stored.dtype in FLOATS else None
    if table is None or not torch.allclose(table, sincos_table(*table.shape), atol=2e-3):
        raise ValueError(
            f"{path} holds position codes (`pos_embed`) that are not the fixed sin-cos table; "
            f"this model has no learned positions, so the file's features would change"
        )


def _describe_size(state: State) -> str:
    """Width, depth, tubelet and patch of a file, and the backbone that has them."""
    blocks = {int(m[1]) for name in state if (m := re.match(r"blocks\.(\d+)\.", name))}
    patch = state.get("patch_embed.proj.weight")
    if patch is not None and patch.ndim == 4:
        return f"an image model ({len(blocks)} blocks), which is for model.backbone timm/NAME"
    if patch is None or patch.ndim != 5:
        return f"no tubelet ViT ({len(blocks)} blocks)"
    width, depth = patch.shape[0], len(blocks)
    fits = [k for k, size in SIZES.items() if (size["width"], size["depth"]) == (width, depth)]
    name = f"{fits[0]}: " if fits else ""
    tubelet = "x".join(str(n) for n in patch.shape[2:])
    return f"{name}width {width}, {depth} blocks, tubelet {tubelet}"
