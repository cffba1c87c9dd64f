"""Load a checkpoint file of V-JEPA 2 or 2.1 into a `VJepaViT`, strictly, with a report."""

from __future__ import annotations

import re
from pathlib import Path

from vidadapt.models.coverage import LoadReport, State, require_match
from vidadapt.models.layouts import VJEPA, our_names
from vidadapt.models.tensor_files import MODEL_KEYS, read_tensors
from vidadapt.models.vjepa import VJEPA_SIZES, VJepaViT

# Entries of Meta's files: the average of the weights is what was published. Distilled models of 2.1
# have `ema_encoder`, where `target_encoder` would be the teacher.
ENCODERS = ("ema_encoder", "target_encoder", *MODEL_KEYS)
PARTS = ("patch_embed.", "video_embed", "blocks.", "norm.")
UNUSED = {
    "predictor of the pre-training": r"(predictor\.|mask_token)",
    "positions of an older model (this one rotates instead)": r"pos_embed$",
    "patch embedding of images": r"(patch_embed_img\.|img_mod_embed$)",
    "norms of lower layers, for the pre-training": r"norms_block\.",
}
OLD_HEAD = {"old head (a new one is trained)": r"(head|fc_norm)\."}


def load_vjepa_weights(
    model: VJepaViT, path: Path, *, key: str | None = None, keep_head: bool = False
) -> LoadReport:
    """Load the encoder of a file of Meta's or of Hugging Face's, or one of this package.

    Args:
        key: entry of the file to take; default: the first of `ENCODERS`.
        keep_head: take the head from the file, too.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another family or version, a predictor alone; or one message with all
            tensors that are missing, left over or of another shape.
    """
    file = read_tensors(path, key, ENCODERS)
    path = file.path
    family, state = our_names(file, VJEPA)
    target = model.state_dict()
    unused = UNUSED if keep_head else UNUSED | OLD_HEAD
    dropped = {reason: tuple(k for k in state if re.match(unused[reason], k)) for reason in unused}
    dropped = {reason: names for reason, names in dropped.items() if names}
    used = {k: v for k, v in state.items() if not any(k in names for names in dropped.values())}
    parts = (*PARTS, "fc_norm.", "head.") if keep_head else PARTS
    required = [name for name in target if name.startswith(parts)]
    advice = f"the file looks like {_described(used)}; choose model.backbone to match"
    require_match(path, used, target, required, advice)
    model.load_state_dict({**target, **used}, strict=True)
    return LoadReport(
        path=path,
        family=family,
        loaded=tuple(used),
        loaded_values=sum(tensor.numel() for tensor in used.values()),
        fresh=tuple(name for name in target if name not in used),
        dropped=dropped,
        notes=file.notes,
    )


def _described(state: State) -> str:
    """Version, width, depth and patch of a file, and the backbones that have them."""
    version = "2.1" if "video_embed" in state else "2"
    patch = state.get("patch_embed.proj.weight")
    blocks = {int(m[1]) for name in state if (m := re.match(r"blocks\.(\d+)\.", name))}
    if patch is None:
        return f"no encoder ({len(blocks)} blocks)"
    fits = [
        name
        for name, size in VJEPA_SIZES.items()
        if (size["width"], size["depth"]) == (patch.shape[0], len(blocks))
        and size.get("version", "2") == version
    ]
    kernel = "x".join(str(size) for size in patch.shape[2:])
    size = f"V-JEPA {version}, width {patch.shape[0]}, {len(blocks)} blocks, tubelet {kernel}"
    return f"{' or '.join(fits)}: {size}" if fits else size
