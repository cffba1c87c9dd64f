"""timm's image models: create those that can become video models."""

from __future__ import annotations

from typing import Any

import timm
from timm.models.eva import Eva
from timm.models.mlp_mixer import MlpMixer
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vidadapt.console import did_you_mean
from vidadapt.models.blocks import AttentionKind
from vidadapt.models.clip_shape import require_divides
from vidadapt.models.timm_blocks import CONVERTERS, as_block, class_name

PREFIX = "timm/"

# Classes of image models (and their subclasses) whose blocks can be edited.
ATTENTION: dict[type[nn.Module], AttentionKind] = {
    VisionTransformer: "global",
    Eva: "global",
    SwinTransformer: "window",
    MlpMixer: "none",
}


def create_image_model(
    name: str, *, crop_size: int, drop_path: float = 0.0, average_pool: bool = False
) -> nn.Module:
    """An untrained timm image model without a classifier, for crops of `crop_size` pixels.

    Args:
        name: `timm/` and any name that `timm.create_model` knows, with or without a tag.
        drop_path: stochastic depth rate of the last block.
        average_pool: average the tokens, then apply fc_norm; default: the model's own pool.

    Raises:
        ValueError: a name that timm does not know, a class without blocks that can be edited, or a
            crop that is not a whole number of patches.
    """
    bare = name.removeprefix(PREFIX)
    if not timm.is_model(bare):
        known = [PREFIX + model for model in timm.list_models()]
        hint = did_you_mean(name.split(".")[0], known)
        raise ValueError(f"model.backbone: timm has no model {bare!r}; {hint}".rstrip("; "))
    options: dict[str, Any] = {"global_pool": "avg"} if average_pool else {}
    try:
        image = timm.create_model(
            bare,
            pretrained=False,
            num_classes=0,
            img_size=crop_size,
            drop_path_rate=drop_path,
            **options,
        )
    except TypeError as error:  # the constructor gets all options, also unknown ones
        raise ValueError(f"model.backbone: {name} is {_no_family()} ({error})") from error
    attention_kind(image, name)
    embed: Any = image.stem if isinstance(image, MlpMixer) else image.patch_embed
    require_divides("crop_size", crop_size, "patch size", embed.feat_ratio())
    return image


def attention_kind(image: nn.Module, name: str) -> AttentionKind:
    """The way in which the tokens of the model's blocks see each other.

    Raises:
        ValueError: blocks that cannot be edited.
    """
    for cls, kind in ATTENTION.items():
        if isinstance(image, cls):
            return kind
    classes = {type(module) for module in image.modules()}
    blocks = sorted(class_name(cls) for cls in classes if "Block" in cls.__name__)
    raise ValueError(
        f"model.backbone: {name} ({type(image).__name__}, blocks: {', '.join(blocks) or 'none'}) "
        f"is {_no_family()}"
    )


def _no_family() -> str:
    classes = ", ".join(cls.__name__ for cls in ATTENTION)
    blocks = ", ".join(map(class_name, CONVERTERS))
    return f"of no class that can become a video model: {classes}, with blocks {blocks}"


def edit_blocks(
    container: nn.Sequential | nn.ModuleList, rotary: Tensor | None = None
) -> nn.Sequential | nn.ModuleList:
    """Replace every block of a container by its `Block` form, and return the container."""
    for index, block in enumerate(container):
        container[index] = as_block(block, rotary)
    return container


def rotary_embedding(image: Any, name: str) -> Tensor | None:
    """The fixed rotation (h * w, 2 * D / heads) of an EVA or DINOv3 model's tokens, else None.

    Raises:
        ValueError: a rotation whose frequencies every block learns.
    """
    if getattr(image, "rope", None) is None:
        return None
    if image.rope_mixed:
        raise ValueError(
            f"model.backbone: {name} learns rotary frequencies of every block (mixed RoPE), which "
            "is not supported; choose a model whose rotation is fixed"
        )
    training = image.rope.training
    table = image.rope.eval().get_embed(shape=image.patch_embed.grid_size)
    image.rope.train(training)
    return table.detach().clone()
