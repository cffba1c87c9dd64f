"""Load a checkpoint file of V-JEPA 2 or 2.1 into a `VJepaViT`, strictly, with a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidadapt.models.coverage import LoadReport, State
from vidadapt.models.encoder_weights import EncoderFiles, load_encoder
from vidadapt.models.layouts import VJEPA
from vidadapt.models.tensor_files import MODEL_KEYS
from vidadapt.models.vjepa import VJEPA_SIZES, VJepaViT


def _version(state: State) -> str:
    return "2.1" if "video_embed" in state else "2"


VJEPA_FILES = EncoderFiles(
    backbone=VJEPA,
    title=lambda state: f"V-JEPA {_version(state)}",
    sizes={name: {"version": "2", **size} for name, size in VJEPA_SIZES.items()},
    parts=("patch_embed.", "video_embed", "blocks.", "norm."),
    unused={
        "predictor of the pre-training": r"(predictor\.|mask_token)",
        "positions of an older model (this one rotates instead)": r"pos_embed$",
        "patch embedding of images": r"(patch_embed_img\.|img_mod_embed$)",
        "norms of lower layers, for the pre-training": r"norms_block\.",
    },
    # Of Meta's files: the average of the weights is what was published. Distilled models of 2.1
    # have `ema_encoder`, where `target_encoder` would be the teacher.
    entries=("ema_encoder", "target_encoder", *MODEL_KEYS),
    traits=lambda state: {"version": _version(state)},
)


def load_vjepa_weights(model: VJepaViT, path: Path, **options: Any) -> LoadReport:
    """Load the encoder of a file of Meta's or of Hugging Face's, or one of this package.

    Args:
        options: `key` and `keep_head`, see `load_encoder`.

    Raises:
        FileNotFoundError, ValueError: see `load_encoder`; so also for a predictor alone.
    """
    return load_encoder(model, path, VJEPA_FILES, **options)
