"""Softmax attention by the kernel that is fastest on its device; the projection in front of it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Scores that a core computes at a time: 4 MB in half precision. From 2 to 5 MB was measured best on
# a core with a cache of 2 MB.
SCORES_PER_THREAD = 2**21


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention over (B, heads, N, D / heads) tensors; same shape and dtype returned.

    torch's fused kernel, with one exception: the backward pass in half precision on a CPU is our
    own, see `PlainBackward`. Forward and backward with it, with the fused kernel's own, and with
    plain products of all heads: 784 tokens 46, 69, 58 ms; 1,568 tokens 170, 280, 331 ms; 197 tokens
    42, 85, 40 ms; 64 tokens 1.1, 3.5, 1.1 ms (bf16, one core with AMX, torch 2.15). In float32 the
    fused kernel wins: 784 tokens 119 ms against 140 and 203.
    """
    half_on_cpu = q.device.type == "cpu" and q.dtype in (torch.bfloat16, torch.float16)
    wanted = any(x.requires_grad for x in (q, k, v))
    has_backward = torch.is_grad_enabled() and wanted
    # torch.compile would break its graph at every block on the loop over heads.
    if half_on_cpu and has_backward and not torch.compiler.is_compiling():
        return PlainBackward.apply(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


class PlainBackward(torch.autograd.Function):
    """The fused kernel forward; backward in plain products, a few heads at a time.

    Scores are computed again and stay in the cache; only q, k and v, views of one tensor, are kept
    for the backward pass. Scores and their gradients are rounded to the tensors' type, which the
    fused kernel's own backward does not do: in bf16 gradients are off by 1 % of their norm, there
    by 0.4 %.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v)
        return F.scaled_dot_product_attention(q, k, v)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shape = grads[0].shape
        q, k, v, grad = (x.contiguous().flatten(0, 1) for x in (*ctx.saved_tensors, grads[0]))
        scale = q.shape[-1] ** -0.5
        q = q * scale
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        heads = max(1, torch.get_num_threads() * SCORES_PER_THREAD // q.shape[1] ** 2)
        all_tensors = (q, k, v, grad, grad_q, grad_k, grad_v)
        for q_, k_, v_, g_, gq_, gk_, gv_ in zip(
            *(x.split(heads) for x in all_tensors), strict=True
        ):
            shares = torch.bmm(q_, k_.mT).softmax(-1)
            torch.bmm(shares.mT, g_, out=gv_)
            toward = torch.bmm(g_, v_.mT)
            scores = torch._softmax_backward_data(toward, shares, -1, shares.dtype)
            torch.bmm(scores, k_, out=gq_)
            torch.bmm(scores.mT, q_, out=gk_)
        grad_q *= scale
        return grad_q.view(shape), grad_k.view(shape), grad_v.view(shape)


class QkvLinear(nn.Linear):
    """The projection to queries, keys and values, whose bias the caller passes.

    A module of its own, so that a method may replace it.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, 3 * width, bias=False)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:  # type: ignore[override]
        return F.linear(x, self.weight, bias)
