"""The layers that merging rewrites, read and written whole.

Read an affine map as (weight, bias), change both, write it back: what a layer cannot hold is an
error, never dropped. Compute in float64; writing rounds once, to the layer's own type.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vidadapt.models import TokenAttention, vit


def read_linear(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight (out, in) and bias (out,) of a linear layer, float64 copies; zeros for no bias."""
    weight = linear.weight.detach().double()
    bias = weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.detach().double()
    return weight, bias


@torch.no_grad()
def write_linear(linear: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    """Overwrite a linear layer; shapes as in `read_linear`.

    Raises:
        ValueError: a bias for a layer that has none.
    """
    if linear.bias is not None:
        linear.bias.copy_(bias)
    elif bias.any():
        raise ValueError("cannot be merged: the bias would go into a linear layer without one")
    linear.weight.copy_(weight)


def holds_qkv_bias(attn: Any) -> bool:
    """Check that `write_qkv` can write any bias here without changing what the attention computes.

    True with a bias for queries, keys and values, and for the tubelet ViT's attention, which has
    none for keys: a key bias b adds q_i . b to all scores of query i, which the softmax cancels.
    This does not hold where keys are rotated or normalised before the scores, so it is assumed
    only for attentions known not to do so.

    Raises:
        ValueError: not an attention, or one with other layers that read its input.
    """
    projections = _projections(attn)
    if isinstance(attn, vit.Attention):
        return True
    if isinstance(attn, TokenAttention) and attn.q_bias is not None:
        return attn.rotary is None and isinstance(attn.k_norm, nn.Identity)
    return all(linear.bias is not None for linear in projections)


def read_qkv(attn: Any) -> tuple[Tensor, Tensor]:
    """Weight (3 D, D) and bias (3 D,) of the projection to queries, keys, values, in this order.

    Float64 copies. Reads a fused `qkv` or separate `q_proj`, `k_proj`, `v_proj`, and biases kept
    beside it as `q_bias` and `v_bias`; zeros where there is no bias.
    """
    parts = [read_linear(linear) for linear in _projections(attn)]
    weight = torch.cat([weight for weight, _ in parts])
    bias = torch.cat([bias for _, bias in parts])
    if _has_biases_beside(attn):
        q, v = attn.q_bias.detach().double(), attn.v_bias.detach().double()
        bias = bias + torch.cat([q, torch.zeros_like(q), v])
    return weight, bias


@torch.no_grad()
def write_qkv(attn: Any, weight: Tensor, bias: Tensor) -> None:
    """Overwrite the projection to queries, keys, values; shapes as in `read_qkv`.

    Raises:
        ValueError: a bias that the attention has no place for, see `holds_qkv_bias`; nothing was
            written.
    """
    projections = _projections(attn)
    sizes = [len(linear.weight) for linear in projections]
    if _has_biases_beside(attn):
        q, k, v = bias.chunk(3)
        bias = torch.cat([torch.zeros_like(q), k, torch.zeros_like(v)])
        if holds_qkv_bias(attn):
            bias.zero_()
    shifts = bias.split(sizes)
    for linear, shift in zip(projections, shifts, strict=True):
        if linear.bias is None and shift.any():
            raise ValueError(
                f"cannot be merged: a bias would go where {type(attn).__name__} has none, and it "
                "is not known that its softmax would cancel it"
            )
    if _has_biases_beside(attn):
        attn.q_bias.copy_(q)
        attn.v_bias.copy_(v)
    for linear, rows, shift in zip(projections, weight.split(sizes), shifts, strict=True):
        write_linear(linear, rows, shift)


def first_linears(mlp: Any) -> list[nn.Linear]:
    """The linear layers of an MLP that read its input: fc1, or the two of a gated one.

    Raises:
        ValueError: an MLP of another form.
    """
    for names in (("fc1",), ("fc1_g", "fc1_x")):
        found = [getattr(mlp, name, None) for name in names]
        linears = [linear for linear in found if isinstance(linear, nn.Linear)]
        if len(linears) == len(names):
            return linears
    raise ValueError(f"cannot be merged: {type(mlp).__name__} has no linear layer fc1")


def _has_biases_beside(attn: Any) -> bool:
    return isinstance(getattr(attn, "q_bias", None), Tensor)


def _projections(attn: Any) -> list[nn.Linear]:
    """The linear layers whose outputs are queries, keys and values, in this order."""
    if getattr(attn, "gate", None) is not None:
        raise ValueError(
            f"cannot be merged: {type(attn).__name__} has a gate, a fourth layer that reads its "
            "input"
        )
    if isinstance(getattr(attn, "qkv", None), nn.Linear):
        return [attn.qkv]
    separate = [getattr(attn, name, None) for name in ("q_proj", "k_proj", "v_proj")]
    found = [linear for linear in separate if isinstance(linear, nn.Linear)]
    if len(found) != 3:
        raise ValueError(
            f"cannot be merged: {type(attn).__name__} has neither a linear layer qkv nor q_proj, "
            "k_proj and v_proj"
        )
    return found
