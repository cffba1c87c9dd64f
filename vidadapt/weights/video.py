"""Published weights of tubelet ViTs: VideoMAE and VideoMAE V2."""

from __future__ import annotations

from vidadapt.weights.published import Published

ZOO = "https://github.com/MCG-NJU/VideoMAE/blob/main/MODEL_ZOO.md"
README = "https://github.com/MCG-NJU/VideoMAE/blob/main/README.md"
ZOO_V2 = "https://github.com/OpenGVLab/VideoMAEv2/blob/master/docs/MODEL_ZOO.md"
HUB = "https://huggingface.co"
DRIVE = "https://drive.google.com/file/d/{}/view"

LAB = "MCG-NJU (Nanjing University)"
LAB_V2 = "OpenGVLab (Shanghai AI Lab, Nanjing University)"
NC = "CC-BY-NC-4.0"
MILLIONS = {
    "vit_small": 21.9,
    "vit_base": 86.2,
    "vit_large": 303.9,
    "vit_huge": 631.6,
    "vit_giant": 1011.6,
}
UNSEEN = "licence on the hub's page (stated is that of the project)"
K400, SSV2 = "Kinetics-400", "Something-Something V2"
VIEWS = {K400: "16 frames, 5 clips x 3 crops", SSV2: "16 frames, 2 clips x 3 crops"}


def _pretrained(
    backbone: str, data: str, epochs: int, top1: float, repository: str, size: str, *notes: str
) -> Published:
    """Return a file of VideoMAE's pre-training, without labels, that is on the hub."""
    return Published(
        maker=LAB,
        data=f"{data}, {epochs:,} epochs without labels",
        licence=NC,
        backbone=backbone,
        millions=MILLIONS[backbone],
        hub=f"MCG-NJU/{repository}",
        size=size,
        figure=f"{top1} top-1 on {data} after full fine-tuning ({VIEWS[data]})",
        sources=(ZOO, f"{HUB}/MCG-NJU/{repository}"),
        unverified=(*notes, *(() if size else ("size of the file",))),
    )


def _tuned(
    backbone: str, data: str, epochs: int, top1: float, repository: str, size: str
) -> Published:
    """Return a classifier of VideoMAE's that is on the hub; its head is not used."""
    found = _pretrained(backbone, data, epochs, top1, repository, size)
    return Published(
        **{
            **vars(found),
            "data": f"{found.data}, then fine-tuned with its labels",
            "figure": f"{top1} top-1 on {data} ({VIEWS[data]}; model zoo)",
            "unverified": (
                *found.unverified,
                "whether the hub's file is that of the model zoo (cards on the hub state up to 0.6 "
                "points less)",
            ),
        }
    )


def _by_hand(
    backbone: str, data: str, epochs: int, figure: str, drive_id: str, *notes: str
) -> Published:
    """Return a file of VideoMAE's pre-training in its own layout, on Google Drive."""
    return Published(
        maker=LAB,
        data=f"{data}, {epochs:,} epochs without labels",
        licence=NC,
        backbone=backbone,
        millions=MILLIONS[backbone],
        address=DRIVE.format(drive_id),
        figure=figure,
        sources=(ZOO, README),
        unverified=("size and name of the file", *notes),
    )


def _v2(
    backbone: str, repository: str, size: str, epochs: str, *notes: str, sha256: str = ""
) -> Published:
    """Return a file of VideoMAE V2's pre-training that is on the hub."""
    return Published(
        maker=LAB_V2,
        data=f"UnlabeledHybrid-1M, {epochs} epochs without labels",
        licence=NC,
        backbone=backbone,
        millions=MILLIONS[backbone],
        hub=f"OpenGVLab/{repository}",
        file="model.safetensors",
        size=size,
        sha256=sha256,
        sources=(f"{HUB}/OpenGVLab/{repository}", ZOO_V2),
        unverified=(
            *notes,
            "published accuracy",
            "names of its tensors (read as VideoMAE V2's, with `model.` in front)",
        ),
    )


def _distilled(backbone: str, file: str, k710: float, k400: float) -> Published:
    """Return a small model of VideoMAE V2 that learned from the giant one."""
    return Published(
        maker=LAB_V2,
        data="Kinetics-710 (with labels), distilled from the ViT-giant of VideoMAE V2",
        licence="Apache-2.0",
        backbone=backbone,
        millions=MILLIONS[backbone],
        hub="OpenGVLab/VideoMAE2",
        file=f"distill/{file}",
        figure=f"{k710} top-1 on Kinetics-710, {k400} on Kinetics-400 ({VIEWS[K400]})",
        sources=(ZOO_V2, f"{HUB}/OpenGVLab/VideoMAE2"),
        unverified=("size of the file",),
    )


VIDEO: dict[str, Published] = {
    "videomae-base": _pretrained("vit_base", K400, 1600, 81.5, "videomae-base", "377 MB"),
    "videomae-base-short": _pretrained(
        "vit_base", K400, 800, 81.0, "videomae-base-short", "377 MB", UNSEEN
    ),
    "videomae-large": _pretrained("vit_large", K400, 1600, 85.2, "videomae-large", ""),
    "videomae-base-ssv2": _pretrained("vit_base", SSV2, 2400, 70.8, "videomae-base-ssv2", "377 MB"),
    "videomae-base-short-ssv2": _pretrained(
        "vit_base", SSV2, 800, 69.6, "videomae-base-short-ssv2", "", UNSEEN
    ),
    "videomae-small-k400": _by_hand(
        "vit_small",
        K400,
        1600,
        f"79.0 top-1 on {K400} after full fine-tuning ({VIEWS[K400]})",
        "1nU-H1u3eJ-VuyCveU7v-WIOcAVxs5Hww",
    ),
    "videomae-small-ssv2": _by_hand(
        "vit_small",
        SSV2,
        2400,
        f"66.8 top-1 on {SSV2} after full fine-tuning ({VIEWS[SSV2]})",
        "1p_I1aaONOeUvRmRQw1UT3-L2H8XJClHu",
    ),
    "videomae-base-k400": _by_hand(
        "vit_base",
        K400,
        1600,
        f"81.5 top-1 on {K400} after full fine-tuning ({VIEWS[K400]}); the weights of "
        "AdaptFormer's video experiments",
        "1tEhLyskjb755TJ65ptsrafUG2llSwQE1",
        "whether videomae-base on the hub holds the same numbers",
    ),
    "videomae-huge-k400": _by_hand(
        "vit_huge",
        K400,
        1600,
        f"86.6 top-1 on {K400} after full fine-tuning ({VIEWS[K400]})",
        "1AJQR1Rsi2N1pDn9tLyJ8DQrUREiBA1bO",
    ),
    "videomae-base-ucf101": _by_hand(
        "vit_base",
        "UCF101",
        3200,
        f"91.3 top-1 on UCF101 after full fine-tuning ({VIEWS[K400]})",
        "1BHev4meNgKM0o_8DMRbuzAsKSP3IpQ3o",
    ),
    "videomae-small-finetuned-kinetics": _tuned(
        "vit_small", K400, 1600, 79.0, "videomae-small-finetuned-kinetics", "88.2 MB"
    ),
    "videomae-base-finetuned-kinetics": _tuned(
        "vit_base", K400, 1600, 81.5, "videomae-base-finetuned-kinetics", "346 MB"
    ),
    "videomae-large-finetuned-kinetics": _tuned(
        "vit_large", K400, 1600, 85.2, "videomae-large-finetuned-kinetics", ""
    ),
    "videomae-huge-finetuned-kinetics": _tuned(
        "vit_huge", K400, 1600, 86.6, "videomae-huge-finetuned-kinetics", "2.53 GB"
    ),
    "videomae-base-finetuned-ssv2": _tuned(
        "vit_base", SSV2, 2400, 70.8, "videomae-base-finetuned-ssv2", "346 MB"
    ),
    "videomaev2-base": _v2("vit_base", "VideoMAEv2-Base", "345 MB", "800"),
    "videomaev2-large": _v2("vit_large", "VideoMAEv2-Large", "1.22 GB", "800"),
    "videomaev2-huge": _v2(
        "vit_huge",
        "VideoMAEv2-Huge",
        "2.53 GB",
        "800 or 1,200",
        "epochs (its card has said both)",
        sha256="6a05040256a2043d05551dd3d036a1c1139edfcfb600454a338bf4b92ca70338",
    ),
    "videomaev2-giant": _v2(
        "vit_giant",
        "VideoMAEv2-giant",
        "4.11 GB",
        "800",
        sha256="a231169cd13307aeb29bc56259a494ef273bfd9b7232f881ac4e8d7e39713add",
    ),
    "videomaev2-small-distilled": _distilled(
        "vit_small", "vit_s_k710_dl_from_giant.pth", 77.6, 83.7
    ),
    "videomaev2-base-distilled": _distilled("vit_base", "vit_b_k710_dl_from_giant.pth", 81.5, 86.6),
    "videomaev2-giant-k710": Published(
        maker=LAB_V2,
        data="UnlabeledHybrid, 1,200 epochs without labels, then fine-tuned on Kinetics-710",
        licence="Apache-2.0",
        backbone="vit_giant",
        millions=MILLIONS["vit_giant"],
        hub="OpenGVLab/VideoMAE2",
        file="mae-g/vit_g_hybrid_pt_1200e_k710_ft.pth",
        figure=f"83.8 top-1 on Kinetics-710 ({VIEWS[K400]})",
        sources=(ZOO_V2, f"{HUB}/OpenGVLab/VideoMAE2"),
        unverified=("size of the file",),
    ),
}
