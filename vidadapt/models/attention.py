"""Softmax attention by the kernel that is fastest on its device; the projection in front of it."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Scores that a core computes at a time: 2 MB in half precision. From 2 to 5 MB was measured best on
# a core with a cache of 2 MB, 1 to 2 MB on one with 1 MB.
SCORES_PER_THREAD = 2**20


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention over (B, heads, N, D / heads) tensors; same shape and dtype returned.

    torch's fused kernel, but on a CPU the backward pass in half precision is our own, see
    `PlainBackward`, and so is the forward pass in bf16 without AMX, see `plain`. On one core with
    AMX (bf16, torch 2.15) forward and backward with our own backward, with the fused kernel's, and
    with plain products of all heads: 784 tokens 46, 69, 58 ms; 1,568 tokens 170, 280, 331 ms; 197
    tokens 42, 85, 40 ms; 64 tokens 1.1, 3.5, 1.1 ms. In float32 the fused kernel wins: 784 tokens
    119 ms against 140 and 203, and 163 against 173 without AMX.
    """
    half_on_cpu = q.device.type == "cpu" and q.dtype in (torch.bfloat16, torch.float16)
    # torch.compile would break its graph at every block on the loop over heads.
    if not half_on_cpu or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(q, k, v)
    wanted = any(x.requires_grad for x in (q, k, v))
    if torch.is_grad_enabled() and wanted:
        return PlainBackward.apply(q, k, v)
    return _forward(q, k, v)


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return attention in plain products, a few heads at a time, whose scores stay in the cache.

    In bf16 on a core with AVX512 and without AMX it takes 32 ms for 784 tokens in 24 heads (fused
    kernel 52), 57 for 1,568 in 12 (104), 11 for 197 in 96 (18), torch 2.14. Scores are rounded to
    the tensors' type, which the fused kernel does not do: features of the demo backbone, trained
    and given real videos, are off by 0.31 % of their norm in bf16, with the fused kernel by 0.26 %.
    """
    shape = v.shape
    q, k, v = (x.contiguous().flatten(0, 1) for x in (q, k, v))
    q = q * q.shape[-1] ** -0.5
    out = torch.empty_like(v)
    heads, rows = _heads_and_rows(q)
    scores, shares = (q.new_empty(heads, rows, q.shape[1]) for _ in range(2))
    for q_, k_, v_, out_ in zip(*(x.split(heads) for x in (q, k, v, out)), strict=True):
        for part, of_part in zip(q_.split(rows, 1), out_.split(rows, 1), strict=True):
            s, p = (x[: len(part), : part.shape[1]] for x in (scores, shares))
            torch.bmm(part, k_.mT, out=s)
            torch.softmax(s, -1, out=p)
            torch.bmm(p, v_, out=of_part)
    return out.view(shape)


class PlainBackward(torch.autograd.Function):
    """Backward in plain products, a few heads at a time.

    Scores are computed again and stay in the cache; only q, k and v, views of one tensor, are kept
    for the backward pass. Scores and their gradients are rounded to the tensors' type, which the
    fused kernel's own backward does not do: in bf16 gradients are off by 1 % of their norm, there
    by 0.4 %.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v)
        return _forward(q, k, v)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shape = grads[0].shape
        q, k, v, grad = (x.contiguous().flatten(0, 1) for x in (*ctx.saved_tensors, grads[0]))
        scale = q.shape[-1] ** -0.5
        q = q * scale
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        heads, _ = _heads_and_rows(q)
        all_tensors = (q, k, v, grad, grad_q, grad_k, grad_v)
        scores, shares = (q.new_empty(heads, q.shape[1], q.shape[1]) for _ in range(2))
        for q_, k_, v_, g_, gq_, gk_, gv_ in zip(
            *(x.split(heads) for x in all_tensors), strict=True
        ):
            s, p = scores[: len(q_)], shares[: len(q_)]
            torch.bmm(q_, k_.mT, out=s)
            torch.softmax(s, -1, out=p)
            torch.bmm(p.mT, g_, out=gv_)
            torch.bmm(g_, v_.mT, out=s)
            torch._softmax_backward_data(s, p, -1, s.dtype, grad_input=s)
            torch.bmm(s, k_, out=gq_)
            torch.bmm(s.mT, q_, out=gk_)
        grad_q *= scale
        return grad_q.view(shape), grad_k.view(shape), grad_v.view(shape)


def _forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if q.dtype == torch.bfloat16 and _bf16_without_amx():
        return plain(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


@cache
def _bf16_without_amx() -> bool:
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") and not found.get("amx_bf16"))


def _heads_and_rows(q: Tensor) -> tuple[int, int]:
    """Return how many heads, and rows of each, are computed at a time, of (heads, N, width)."""
    tokens = max(1, q.shape[1])
    scores = torch.get_num_threads() * SCORES_PER_THREAD
    return max(1, scores // tokens**2), max(1, min(tokens, scores // tokens))


def split_heads(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values (rows, heads, N, D / heads), views of (rows, N, 3 D).

    The heads are moved after the split, so that the backward pass joins the three gradients in one
    copy, not in two.
    """
    q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).unbind(2)
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


class QkvLinear(nn.Linear):
    """The projection to queries, keys and values, whose bias the caller passes.

    A module of its own, so that a method may replace it.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, 3 * width, bias=False)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:  # type: ignore[override]
        return F.linear(x, self.weight, bias)
