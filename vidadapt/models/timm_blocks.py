"""Turn timm's transformer blocks into `Block`, the one form that methods edit.

A `Block` uses the parts of timm's block (same tensors, same arithmetic) and is called with tokens
alone. Layouts other than a pre-norm residual pair of token mixing and MLP are refused: a method's
equation would not mean the same there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.layers import Attention, LayerScale
from timm.models.eva import EvaBlock
from timm.models.mlp_mixer import MixerBlock, ResBlock
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.vision_transformer import Block as VitBlock
from torch import Tensor, nn

from vidadapt.models.blocks import Block
from vidadapt.models.timm_attention import ShiftedWindowAttention, TokenAttention, TokenMixing


def _block(block: Any, attn: nn.Module, mlp: nn.Module, ls1: Any = None, ls2: Any = None) -> Block:
    """The parts of timm's block, which has one `drop_path` or two."""
    drop_path = getattr(block, "drop_path", None)
    return Block(
        norm1=block.norm1,
        attn=attn,
        ls1=_layer_scale(ls1),
        drop_path1=drop_path or block.drop_path1,
        norm2=block.norm2,
        mlp=mlp,
        ls2=_layer_scale(ls2),
        drop_path2=drop_path or block.drop_path2,
    )


def _vit(block: Any, rotary: Tensor | None) -> Block:
    attn = TokenAttention(block.attn, None) if type(block.attn) is Attention else block.attn
    return _block(block, attn, block.mlp, block.ls1, block.ls2)


def _eva(block: Any, rotary: Tensor | None) -> Block:
    attn = TokenAttention(block.attn, rotary)
    return _block(block, attn, block.mlp, block.gamma_1, block.gamma_2)


def _swin(block: Any, rotary: Tensor | None) -> Block:
    return _block(block, ShiftedWindowAttention(block), block.mlp)


def _mixer(block: Any, rotary: Tensor | None) -> Block:
    return _block(block, TokenMixing(block.mlp_tokens), block.mlp_channels)


def _res_mlp(block: Any, rotary: Tensor | None) -> Block:
    attn = TokenMixing(block.linear_tokens)
    return _block(block, attn, block.mlp_channels, block.ls1, block.ls2)


CONVERTERS: dict[type[nn.Module], Callable[[Any, Tensor | None], Block]] = {
    VitBlock: _vit,
    EvaBlock: _eva,
    SwinTransformerBlock: _swin,
    MixerBlock: _mixer,
    ResBlock: _res_mlp,
}


def as_block(block: nn.Module, rotary: Tensor | None = None) -> Block:
    """Return a timm block in the form that methods edit; it uses the parts without copying them.

    Args:
        block: instance of a key of `CONVERTERS`.
        rotary: (tokens, 2 * D / heads) rotary embedding for an EVA block's attention.

    Raises:
        ValueError: another class of block; names it and the known ones.
    """
    convert = CONVERTERS.get(type(block))
    if convert is None:
        raise ValueError(
            f"model.backbone: blocks of class {class_name(type(block))} have not the form "
            "x + mix(norm(x)), then x + mlp(norm(x)), that methods edit; known classes: "
            + ", ".join(map(class_name, CONVERTERS))
        )
    return convert(block, rotary)


def class_name(cls: type) -> str:
    """Class with its module, since several of timm's are called Block.

    >>> class_name(VitBlock)
    'vision_transformer.Block'
    """
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"


def _layer_scale(gamma: nn.Module | nn.Parameter | None) -> nn.Module | None:
    """timm's LayerScale around an existing parameter (D,); others as they are."""
    if not isinstance(gamma, nn.Parameter):
        return gamma
    scale = LayerScale(len(gamma), device="meta")
    scale.gamma = gamma
    return scale
