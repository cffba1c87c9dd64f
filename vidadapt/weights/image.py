"""Published weights of image models: what timm publishes on the hub, and files of their makers."""

from __future__ import annotations

from typing import TypedDict

from vidadapt.weights.published import Published

# Facts of timm's own models that its package states: hub id, licence, normalisation. A test
# compares them with the package that is installed.
TIMM = "package timm, pretrained_cfg"
RESULTS = (
    "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"
)
MAE = "https://github.com/facebookresearch/mae/blob/main/README.md"
DINOV2 = "https://github.com/facebookresearch/dinov2/blob/main/README.md"
CLIP = "https://github.com/openai/CLIP/blob/main/clip/clip.py and LICENSE"
OPENAI = "https://openaipublic.azureedge.net/clip/models"
GOOGLE, META, OPENAI_LAB = "Google Research", "Meta AI (FAIR)", "OpenAI"
APACHE, MIT, NC = "Apache-2.0", "MIT", "CC-BY-NC-4.0"


class Figure(TypedDict):
    """A published accuracy, and where it was read."""

    figure: str
    sources: tuple[str, ...]


def _timm(
    name: str,
    millions: float,
    maker: str,
    data: str,
    licence: str,
    normalization: str,
    *,
    figure: str = "",
    sources: tuple[str, ...] = (),
    from_image: str = "",
    repository: str = "",
    size: str = "",
) -> Published:
    """Return a file of timm's on the hub, by timm's name with its tag."""
    options = {"data.normalization": normalization} if normalization != "imagenet" else {}
    if from_image:
        options["model.from_image"] = from_image
    return Published(
        maker=maker,
        data=data,
        licence=licence,
        backbone=f"timm/{name}",
        millions=millions,
        hub=f"timm/{repository or name}",
        options=options,
        size=size,
        figure=figure,
        sources=(TIMM, *sources),
        unverified=(
            *(() if size else ("size of the file",)),
            *(() if figure else ("published accuracy",)),
        ),
    )


def _probe(figure: float) -> Figure:
    return {
        "figure": f"{figure} top-1 of a linear probe on ImageNet-1k (its makers)",
        "sources": (DINOV2,),
    }


def _tuned(name: str, figure: float, pixels: int = 224) -> Figure:
    return {
        "figure": f"{figure} top-1 on ImageNet-1k at {pixels} pixels of {name} (timm)",
        "sources": (RESULTS,),
    }


I21K = "ImageNet-21k, with labels"
LVD, LVD3 = "LVD-142M, without labels (DINOv2)", "LVD-1689M, without labels (DINOv3)"
CAPTIONS = "image-text pairs (CLIP)"

_MODELS = (
    _timm("vit_tiny_patch16_224.augreg_in21k", 5.5, GOOGLE, I21K, APACHE, "half"),
    _timm("vit_small_patch16_224.augreg_in21k", 21.7, GOOGLE, I21K, APACHE, "half"),
    _timm("vit_base_patch16_224.augreg_in21k", 85.8, GOOGLE, I21K, APACHE, "half", size="410 MB"),
    _timm(
        "vit_large_patch16_224.augreg_in21k", 303.3, GOOGLE, I21K, APACHE, "half",
        **_tuned("vit_large_patch16_224.augreg_in21k_ft_in1k", 85.83),
    ),
    _timm("vit_base_patch16_224.orig_in21k", 85.8, GOOGLE, I21K, APACHE, "half"),
    _timm(
        "vit_base_patch16_224.mae", 85.8, META, "ImageNet-1k, without labels (MAE)", NC,
        "imagenet", figure="83.6 top-1 on ImageNet-1k after full fine-tuning", sources=(MAE,),
    ),
    _timm(
        "vit_large_patch16_224.mae", 303.3, META, "ImageNet-1k, without labels (MAE)", NC,
        "imagenet", figure="85.9 top-1 on ImageNet-1k after full fine-tuning", sources=(MAE,),
    ),
    _timm(
        "vit_huge_patch14_224.mae", 630.8, META, "ImageNet-1k, without labels (MAE)", NC,
        "imagenet", figure="86.9 top-1 on ImageNet-1k after full fine-tuning", sources=(MAE,),
    ),
    _timm(
        "vit_small_patch14_dinov2.lvd142m", 22.1, META, LVD, APACHE, "imagenet", **_probe(81.1)
    ),
    _timm("vit_base_patch14_dinov2.lvd142m", 86.6, META, LVD, APACHE, "imagenet", **_probe(84.5)),
    _timm(
        "vit_large_patch14_dinov2.lvd142m", 304.4, META, LVD, APACHE, "imagenet", **_probe(86.3)
    ),
    _timm(
        "vit_base_patch14_reg4_dinov2.lvd142m", 86.6, META, f"{LVD}, 4 register tokens", APACHE,
        "imagenet", **_probe(84.6),
    ),
    _timm(
        "vit_large_patch14_reg4_dinov2.lvd142m", 304.4, META, f"{LVD}, 4 register tokens", APACHE,
        "imagenet", size="1.22 GB", **_probe(86.7),
    ),
    _timm("vit_small_patch16_dinov3.lvd1689m", 21.6, META, LVD3, "DINOv3 licence", "imagenet"),
    _timm("vit_base_patch16_dinov3.lvd1689m", 85.6, META, LVD3, "DINOv3 licence", "imagenet"),
    _timm("vit_large_patch16_dinov3.lvd1689m", 303.1, META, LVD3, "DINOv3 licence", "imagenet"),
    _timm(
        "vit_base_patch16_clip_quickgelu_224.openai", 85.8, OPENAI_LAB, f"OpenAI's {CAPTIONS}",
        APACHE, "clip", repository="vit_base_patch16_clip_224.openai",
    ),
    _timm(
        "vit_large_patch14_clip_quickgelu_224.openai", 303.2, OPENAI_LAB, f"OpenAI's {CAPTIONS}",
        APACHE, "clip", repository="vit_large_patch14_clip_224.openai",
    ),
    _timm(
        "vit_base_patch16_clip_224.laion2b", 85.8, "LAION", f"LAION-2B {CAPTIONS}", APACHE, "clip",
        **_tuned("vit_base_patch16_clip_224.laion2b_ft_in1k", 85.47),
    ),
    _timm(
        "vit_large_patch14_clip_224.laion2b", 303.2, "LAION", f"LAION-2B {CAPTIONS}", APACHE,
        "half", **_tuned("vit_large_patch14_clip_224.laion2b_ft_in1k", 87.28),
    ),
    _timm(
        "vit_base_patch16_clip_224.datacompxl", 85.8, "DataComp", f"DataComp-XL {CAPTIONS}",
        APACHE, "clip",
    ),
    _timm(
        "vit_large_patch14_clip_224.datacompxl", 303.2, "DataComp", f"DataComp-XL {CAPTIONS}",
        APACHE, "clip",
    ),
    _timm(
        "vit_base_patch16_siglip_224.webli", 92.9, GOOGLE, "WebLI image-text pairs (SigLIP)",
        APACHE, "half",
    ),
    _timm(
        "vit_base_patch16_siglip_224.v2_webli", 92.9, GOOGLE, "WebLI image-text pairs (SigLIP 2)",
        APACHE, "half",
    ),
    _timm(
        "vit_so400m_patch14_siglip_224.webli", 427.7, GOOGLE, "WebLI image-text pairs (SigLIP)",
        APACHE, "half",
    ),
    _timm(
        "eva02_base_patch14_224.mim_in22k", 85.8, "BAAI", "ImageNet-22k, without labels (EVA-02)",
        MIT, "clip", **_tuned("eva02_base_patch14_448.mim_in22k_ft_in1k", 88.25, 448),
    ),
    _timm(
        "eva02_large_patch14_224.mim_m38m", 303.3, "BAAI", "Merged-38M, without labels (EVA-02)",
        MIT, "clip", **_tuned("eva02_large_patch14_448.mim_m38m_ft_in1k", 89.57, 448),
    ),
    _timm(
        "eva02_base_patch16_clip_224.merged2b", 85.9, "BAAI", f"Merged-2B {CAPTIONS}", MIT, "clip"
    ),
    _timm(
        "eva02_large_patch14_clip_224.merged2b", 303.3, "BAAI", f"Merged-2B {CAPTIONS}", MIT,
        "clip",
    ),
    _timm(
        "eva_giant_patch14_224.clip_ft_in1k", 1011.1, "BAAI",
        "image-text pairs (EVA-CLIP), fine-tuned on ImageNet-1k", MIT, "clip",
        **_tuned("it", 88.88),
    ),
    _timm("deit_base_patch16_224.fb_in1k", 85.8, META, "ImageNet-1k, with labels (DeiT)", APACHE,
          "imagenet"),
    _timm(
        "deit3_base_patch16_224.fb_in22k_ft_in1k", 85.8, META,
        "ImageNet-22k, then ImageNet-1k, with labels (DeiT III)", APACHE, "imagenet",
        **_tuned("it", 85.7),
    ),
    _timm(
        "deit3_large_patch16_224.fb_in22k_ft_in1k", 303.3, META,
        "ImageNet-22k, then ImageNet-1k, with labels (DeiT III)", APACHE, "imagenet",
        **_tuned("it", 86.98),
    ),
    _timm(
        "swin_tiny_patch4_window7_224.ms_in22k", 27.5, "Microsoft Research",
        "ImageNet-22k, with labels", MIT, "imagenet", from_image="frames",
    ),
    _timm(
        "swin_base_patch4_window7_224.ms_in22k", 86.7, "Microsoft Research",
        "ImageNet-22k, with labels", MIT, "imagenet", from_image="frames",
        **_tuned("swin_base_patch4_window7_224.ms_in22k_ft_in1k", 85.27),
    ),
    _timm(
        "swin_large_patch4_window7_224.ms_in22k", 195.0, "Microsoft Research",
        "ImageNet-22k, with labels", MIT, "imagenet", from_image="frames",
        **_tuned("swin_large_patch4_window7_224.ms_in22k_ft_in1k", 86.31),
    ),
    _timm("mixer_b16_224.goog_in21k", 59.1, GOOGLE, I21K, APACHE, "half", from_image="frames"),
)  # fmt: skip


def _file(
    maker: str,
    data: str,
    licence: str,
    backbone: str,
    address: str,
    *unverified: str,
    **known: object,
) -> Published:
    """Return a file at an address of its makers, of an image model at 224 pixels."""
    sizes = {"base": 85.8, "large": 303.2, "huge": 630.8}
    size = next(number for name, number in sizes.items() if f"vit_{name}" in backbone)
    return Published(
        maker=maker,
        data=data,
        licence=licence,
        backbone=f"timm/{backbone}",
        millions=size,
        address=address,
        unverified=("size of the file", *unverified),
        **known,  # type: ignore[arg-type]
    )


IMAGE: dict[str, Published] = {
    **{model.backbone.partition("/")[2]: model for model in _MODELS},
    **{
        f"mae_pretrain_{size}": _file(
            META,
            "ImageNet-1k, without labels (MAE)",
            NC,
            f"{size}_patch{patch}_224",
            f"https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_{size}.pth",
            figure=f"{top1} top-1 on ImageNet-1k after full fine-tuning",
            sources=(MAE,),
        )
        for size, patch, top1 in (
            ("vit_base", 16, 83.6),
            ("vit_large", 16, 85.9),
            ("vit_huge", 14, 86.9),
        )
    },
    "jx_vit_base_patch16_224_in21k": _file(
        GOOGLE,
        I21K,
        APACHE,
        "vit_base_patch16_224",
        "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-vitjx/"
        "jx_vit_base_patch16_224_in21k-e5005f0a.pth",
        "published accuracy",
        sha256="e5005f0a",
        options={"data.normalization": "half"},
        sources=("package timm, models/vision_transformer.py",),
    ),
    "clip_vit_b_16": _file(
        OPENAI_LAB,
        f"OpenAI's {CAPTIONS}",
        MIT,
        "vit_base_patch16_clip_quickgelu_224",
        f"{OPENAI}/5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt",
        "whether the licence of its repository holds for the weights",
        "published accuracy",
        sha256="5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        options={"data.normalization": "clip"},
        sources=(CLIP,),
    ),
    "clip_vit_l_14": _file(
        OPENAI_LAB,
        f"OpenAI's {CAPTIONS}",
        MIT,
        "vit_large_patch14_clip_quickgelu_224",
        f"{OPENAI}/b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
        "whether the licence of its repository holds for the weights",
        "published accuracy",
        sha256="b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
        options={"data.normalization": "clip"},
        sources=(CLIP,),
    ),
}
