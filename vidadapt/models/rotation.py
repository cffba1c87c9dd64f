"""Rotary embedding of queries and keys: timm's arithmetic, with fewer passes over memory."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import apply_rot_embed_cat
from torch import Tensor
from torch.autograd.function import once_differentiable


def rotated(x: Tensor, rotary: Tensor, half: bool) -> Tensor:
    """Rotate the pairs of channels of queries or keys (..., N, D) by the angles of their token.

    Equal to timm's `apply_rot_embed_cat` bit by bit. Its gradient is that of the formula with one
    rounding to the type of x, where autograd rounds three times in half precision; in float32 it
    is the same. Forward and backward of (2, 16, 784, 64) on one core: 6.5 ms in bf16 and 5.2 in
    float32, timm's 10.8 and 8.4.

    Args:
        rotary: (N, 2 * D), sines and cosines.
        half: channels i and i + D / 2 are a pair; else 2 i and 2 i + 1.
    """
    # The compiler fuses plain operators; traced programs hold no function of Python.
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return apply_rot_embed_cat(x, rotary, half=half)
    return Rotation.apply(x, rotary, half)


class Rotation(torch.autograd.Function):
    """x * cosines + partners of x * sines, those of the first of a pair being negative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rotary: Tensor, half: bool) -> Tensor:
        sines, cosines = rotary.chunk(2, dim=-1)
        sines = sines.clone()
        _pairs(sines, half)[0].neg_()
        ctx.half, ctx.sines, ctx.cosines = half, sines, cosines
        return _turned(x, cosines, sines, half)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        back = _partners(ctx.sines, ctx.half)
        return _turned(grads[0], ctx.cosines, back, ctx.half), None, None


def _turned(x: Tensor, cosines: Tensor, sines: Tensor, half: bool) -> Tensor:
    partners = _partners(x, half)
    out = x * cosines
    # In place where the types are those of the product.
    product = partners.mul_(sines) if partners.dtype == out.dtype else partners * sines
    return out.add_(product).to(x.dtype)


def _partners(x: Tensor, half: bool) -> Tensor:
    """Return a copy of x (..., D) in which the channels of each pair have changed places."""
    partners = torch.empty_like(x)
    for place, channels in zip(_pairs(partners, half), reversed(_pairs(x, half)), strict=True):
        place.copy_(channels)
    return partners


def _pairs(x: Tensor, half: bool) -> tuple[Tensor, Tensor]:
    if half:
        first, second = x.chunk(2, dim=-1)
        return first, second
    return x[..., ::2], x[..., 1::2]
