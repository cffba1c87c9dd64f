"""What files of TimeSformer, ViViT, InternVideo2 and VideoPrism hold, see `EncoderFiles`."""

from __future__ import annotations

from vidadapt.models.encoder_weights import EncoderFiles
from vidadapt.models.internvideo2 import INTERNVIDEO2_SIZES
from vidadapt.models.layouts import INTERNVIDEO2, TIMESFORMER, VIDEOPRISM, VIVIT
from vidadapt.models.tensor_files import MODEL_KEYS
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
    entries=("model_state", *MODEL_KEYS),  # of its own files
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

INTERNVIDEO2_FILES = EncoderFiles(
    backbone=INTERNVIDEO2,
    title=lambda state: "InternVideo2",
    sizes=INTERNVIDEO2_SIZES,
    parts=tuple(part for part in PARTS if part != "norm."),
    unused={
        "attention pool of the release (the mean over the patches stands in its place)": (
            r"clip_projector\."
        ),
        "decoders of the pre-training": r"(final_clip|clip|mae)_decoder\.",
        "positions of these decoders": r"(clip|mae)_pos_embed$",
    },
)
