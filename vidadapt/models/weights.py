"""Load a checkpoint file into a `VideoViT`, strictly, with a report of its coverage.

Every tensor of the backbone must be found with its shape, and every tensor of the file must be
either used or known as unused here; anything else is an error. The number of heads is in no such
file; it is the backbone's.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from vidadapt.models.coverage import FLOATS, NOT_BACKBONE, LoadReport, State, require_match
from vidadapt.models.layouts import TUBELET_VIT, our_names
from vidadapt.models.positions import sincos_table
from vidadapt.models.tensor_files import read_tensors
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
HEAD_NORM = {"norm in front of the head (this head has its own)": r"fc_norm\."}
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
    family, state = our_names(file, TUBELET_VIT)
    target, unused, notes = model.state_dict(), UNUSED | LAST_NORM | OLD_HEAD, file.notes
    first_token = keep_head and "norm.weight" in state and "fc_norm.weight" not in state
    if keep_head:
        unused = UNUSED
    if "fc_norm.weight" not in target:
        unused = unused | HEAD_NORM
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
