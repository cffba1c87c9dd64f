"""What files of TimeSformer, ViViT and VideoPrism hold, see `EncoderFiles`."""

from __future__ import annotations

from vidadapt.models.encoder_weights import EncoderFiles
from vidadapt.models.layouts import TIMESFORMER, VIDEOPRISM, VIVIT
from vidadapt.models.timesformer import TIMESFORMER_SIZES
from vidadapt.models.videoprism import VIDEOPRISM_SIZES
from vidadapt.models.vivit import VIVIT_SIZES

PARTS = ("cls_token", "pos_embed", "patch_embed.", "befores.", "blocks.", "norm.")

TIMESFORMER_FILES = EncoderFiles(
    backbone=TIMESFORMER,
    title=lambda state: "TimeSformer",
    sizes=TIMESFORMER_SIZES,
    parts=(*PARTS, "time_pos_embed"),
    unused={},
)

VIVIT_FILES = EncoderFiles(
    backbone=VIVIT,
    title=lambda state: "ViViT",
    sizes=VIVIT_SIZES,
    parts=PARTS,
    unused={"pooler of the base model, which no classifier reads": r"pooler\."},
)

VIDEOPRISM_FILES = EncoderFiles(
    backbone=VIDEOPRISM,
    title=lambda state: "VideoPrism",
    sizes=VIDEOPRISM_SIZES,
    parts=PARTS,
    unused={
        "pool and layers behind the encoder": r"pooler\.",
        "text tower": r"text_model\.",
    },
)
