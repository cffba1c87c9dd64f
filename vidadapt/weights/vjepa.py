"""Published weights of V-JEPA 2 and 2.1."""

from __future__ import annotations

from vidadapt.weights.published import Published

README = "https://github.com/facebookresearch/vjepa2/blob/main/README.md"
FILES = "https://dl.fbaipublicfiles.com/vjepa2"
MILLIONS = {  # patch embedding, blocks and last norm
    "vjepa2_large": 303.9,
    "vjepa2_huge": 631.6,
    "vjepa2_giant": 1012.2,
    "vjepa2_1_base": 86.2,
    "vjepa2_1_large": 303.9,
    "vjepa2_1_giant": 1012.2,
    "vjepa2_1_gigantic": 1843.9,
}
PROBE = "{} top-1 on Something-Something V2 with a frozen encoder and an attentive probe ({})"
UNSEEN = ("size of the file", "licence of the file (stated is that of the project)")


def _version_2(backbone: str, repository: str, crop: int, figure: str = "") -> Published:
    return Published(
        maker="Meta AI (FAIR)",
        data=f"VideoMix22M (22 million clips and images) without labels, 64 frames of {crop}",
        licence="MIT",
        backbone=backbone,
        millions=MILLIONS[backbone],
        hub=f"facebook/{repository}",
        options={"data.crop_size": str(crop)},
        figure=figure,
        sources=(README, "https://arxiv.org/abs/2506.09985"),
        unverified=UNSEEN,
    )


def _version_2_1(backbone: str, file: str, *, distilled: bool) -> Published:
    how = ", distilled from the gigantic model" if distilled else ""
    return Published(
        maker="Meta AI (FAIR)",
        data=f"videos and images without labels, 64 frames of 384{how}",
        licence="MIT",
        backbone=backbone,
        millions=MILLIONS[backbone],
        address=f"{FILES}/{file}.pt",
        options={"data.crop_size": "384"},
        sources=(README,),
        unverified=(*UNSEEN, "data of the pre-training"),
    )


VJEPA: dict[str, Published] = {
    "vjepa2-large": _version_2(
        "vjepa2_large", "vjepa2-vitl-fpc64-256", 256, PROBE.format(73.7, "16 x 2 x 3 views, 256")
    ),
    "vjepa2-huge": _version_2("vjepa2_huge", "vjepa2-vith-fpc64-256", 256),
    "vjepa2-giant": _version_2("vjepa2_giant", "vjepa2-vitg-fpc64-256", 256),
    "vjepa2-giant-384": _version_2(
        "vjepa2_giant", "vjepa2-vitg-fpc64-384", 384, PROBE.format(77.3, "64 x 2 x 3 views, 384")
    ),
    "vjepa2.1-base": _version_2_1("vjepa2_1_base", "vjepa2_1_vitb_dist_vitG_384", distilled=True),
    "vjepa2.1-large": _version_2_1("vjepa2_1_large", "vjepa2_1_vitl_dist_vitG_384", distilled=True),
    "vjepa2.1-giant": _version_2_1("vjepa2_1_giant", "vjepa2_1_vitg_384", distilled=False),
    "vjepa2.1-gigantic": _version_2_1("vjepa2_1_gigantic", "vjepa2_1_vitG_384", distilled=False),
}
