"""Published weights of TimeSformer, ViViT and InternVideo2."""

from __future__ import annotations

from vidadapt.weights.published import Published

HUB = "https://huggingface.co"
TIMESFORMER = "https://github.com/facebookresearch/TimeSformer/blob/main/README.md"
DROPBOX = "https://www.dropbox.com/s"
ZOO = "https://github.com/OpenGVLab/InternVideo/blob/main/InternVideo2/single_modality/MODEL_ZOO.md"
SLOWFAST = {"data.normalization": "slowfast"}
SETS = {"k400": "Kinetics-400", "k600": "Kinetics-600", "ssv2": "Something-Something V2"}
UNSEEN = "size of the file"


def _timesformer(
    data: str, top1: float, repository: str, size: str, frames: int = 8, crop: int = 224
) -> Published:
    """Return a classifier of TimeSformer's that is on the hub."""
    crops = {"data.crop_size": str(crop)} if crop != 224 else {}
    return Published(
        maker="Meta AI (FAIR)",
        data=f"{SETS[data]}, with labels",
        licence="CC-BY-NC-4.0",
        backbone="timesformer_base",
        millions=121.3,
        hub=f"facebook/{repository}",
        options={**SLOWFAST, "data.num_frames": str(frames), **crops},
        size=size,
        figure=f"{top1} top-1 on {SETS[data]} ({frames} frames of {crop}; model zoo)",
        sources=(TIMESFORMER, f"{HUB}/facebook/{repository}"),
        unverified=(
            "whether the hub's file is that of the model zoo",
            *(() if size else (UNSEEN,)),
        ),
    )


def _own_timesformer(
    data: str, top1: float, folder: str, name: str, frames: int, crop: int
) -> Published:
    """Return a classifier of TimeSformer's in its own layout, on Dropbox."""
    crops = {"data.crop_size": str(crop)} if crop != 224 else {}
    return Published(
        maker="Meta AI (FAIR)",
        data=f"{SETS[data]}, with labels",
        licence="CC-BY-NC-4.0",
        backbone="timesformer_base",
        millions=121.3,
        address=f"{DROPBOX}/{folder}/{name}.pyth",
        options={**SLOWFAST, "data.num_frames": str(frames), **crops},
        figure=f"{top1} top-1 on {SETS[data]} ({frames} frames of {crop})",
        sources=(TIMESFORMER,),
        unverified=(UNSEEN, "licence of the file (stated is that of the project)"),
    )


def _vivit(repository: str, data: str, size: str) -> Published:
    return Published(
        maker="Google Research",
        data=data,
        licence="MIT",
        backbone="vivit_base",
        millions=88.6,
        hub=f"google/{repository}",
        options={"data.normalization": "half", "data.num_frames": "32"},
        size=size,
        sources=(f"{HUB}/google/{repository}",),
        unverified=("published accuracy", *(() if size else (UNSEEN,))),
    )


ENCODERS: dict[str, Published] = {
    "timesformer-k400": _timesformer("k400", 77.9, "timesformer-base-finetuned-k400", "486 MB"),
    "timesformer-k600": _timesformer("k600", 79.1, "timesformer-base-finetuned-k600", "487 MB"),
    "timesformer-ssv2": _timesformer("ssv2", 59.1, "timesformer-base-finetuned-ssv2", "486 MB"),
    "timesformer-hr-k600": _timesformer(
        "k600", 81.8, "timesformer-hr-finetuned-k600", "", frames=16, crop=448
    ),
    "timesformer-hr-ssv2": _timesformer(
        "ssv2", 61.8, "timesformer-hr-finetuned-ssv2", "487 MB", frames=16, crop=448
    ),
    "timesformer-hr-k400": _own_timesformer(
        "k400", 79.6, "6f0x172lpqy3oxt", "TimeSformer_divST_16x16_448_K400", 16, 448
    ),
    "timesformer-large-k400": _own_timesformer(
        "k400", 80.6, "r1iuxahif3sgimo", "TimeSformer_divST_96x4_224_K400", 96, 224
    ),
    "timesformer-large-k600": _own_timesformer(
        "k600", 82.2, "857rx6xeclxfhdg", "TimeSformer_divST_96x4_224_K600", 96, 224
    ),
    "timesformer-large-ssv2": _own_timesformer(
        "ssv2", 62.0, "3f1rm2al8mhprwa", "TimeSformer_divST_64_224_SSv2", 64, 224
    ),
    "vivit-k400": _vivit("vivit-b-16x2-kinetics400", "Kinetics-400, with labels", "356 MB"),
    "internvideo2-1b": Published(
        maker="OpenGVLab (Shanghai AI Lab, Nanjing University)",
        data="K-Mash-1.1M, 300 epochs without labels",
        licence="Apache-2.0",
        backbone="internvideo2_1b",
        millions=1013.7,
        hub="OpenGVLab/InternVideo2-Stage1-1B-224p-f8",
        file="pretrain.pth",
        options={"data.num_frames": "8"},
        figure=(
            "91.3 top-1 on Kinetics-400 after fine-tuning on Kinetics-710 and on it (8 frames, "
            "4 clips x 3 crops)"
        ),
        sources=(ZOO, "https://github.com/OpenGVLab/InternVideo/blob/main/LICENSE"),
        unverified=(
            UNSEEN,
            "licence of the file (stated is that of the project)",
            "whether the hub asks for a login",
        ),
    ),
}
