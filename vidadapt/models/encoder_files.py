"""What files of TimeSformer and ViViT hold, see `EncoderFiles`."""

from __future__ import annotations

from vidadapt.models.encoder_weights import EncoderFiles
from vidadapt.models.layouts import TIMESFORMER, VIVIT
from vidadapt.models.timesformer import TIMESFORMER_SIZES
from vidadapt.models.vivit import VIVIT_SIZES

PARTS = ("cls_token", "pos_embed", "patch_embed.", "blocks.", "norm.")

TIMESFORMER_FILES = EncoderFiles(
    backbone=TIMESFORMER,
    title=lambda state: "TimeSformer",
    sizes=TIMESFORMER_SIZES,
    parts=(*PARTS, "time_pos_embed", "befores."),
    unused={},
)

VIVIT_FILES = EncoderFiles(
    backbone=VIVIT,
    title=lambda state: "ViViT",
    sizes=VIVIT_SIZES,
    parts=PARTS,
    unused={"pooler of the base model, which no classifier reads": r"pooler\."},
)
