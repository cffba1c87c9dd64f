"""ARC: a low-rank adapter in front of attention and MLP, its matrices shared by the layers.

Paper: Dong et al., "Efficient Adaptation of Large Vision Transformer via Adapter Re-Composing",
NeurIPS 2023, arXiv 2310.06234. Reference implementation: DavidYanAnDe/ARC.

Differs from the released code in: every adapter starts as the identity (the release draws the
re-scaling of its MLP adapters at random; `init="released"` reproduces that), any layers are an
option, and so are separate projections per layer, which show what sharing costs; dropout on Swin
follows the option (in the release it is always 0.5 there), and the head is the model's.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from vidadapt.methods.folding import (
    first_linears,
    holds_qkv_bias,
    read_linear,
    read_qkv,
    write_linear,
    write_qkv,
)
from vidadapt.methods.placing import chosen_slots, require_counts, require_rate
from vidadapt.models import Block, ShiftedWindowAttention, VideoModel


class ARC(nn.Module):
    """ARC(x) = x + dropout(x (P diag(c))) P^T + b: (..., D) -> (..., D), linear without dropout.

    `projection` P (D, r) may be shared with other layers; `scale` c (r,) and `bias` b (D,) are the
    layer's own.
    """

    def __init__(self, projection: nn.Parameter, *, dropout: float) -> None:
        super().__init__()
        width, rank = projection.shape
        self.projection = projection
        self.scale = nn.Parameter(torch.zeros(rank))
        self.bias = nn.Parameter(torch.zeros(width))
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        hidden = x @ (self.projection * self.scale)
        hidden = functional.dropout(hidden, self.dropout, self.training)
        return x + functional.linear(hidden, self.projection, self.bias)

    def matrix(self) -> Tensor:
        """M = I + P diag(c) P^T (D, D), symmetric, float64: ARC(x) = x M + b without dropout."""
        projection = self.projection.detach().double()
        identity = torch.eye(len(projection), dtype=torch.float64, device=projection.device)
        return identity + (projection * self.scale.detach().double()) @ projection.T


class NormARC(nn.Module):
    """ARC(LN(x)) in place of a block's frozen norm; the residual stream is unchanged."""

    def __init__(self, norm: nn.Module, arc: ARC) -> None:
        super().__init__()
        self.norm = norm
        self.arc = arc

    def forward(self, x: Tensor) -> Tensor:
        return self.arc(self.norm(x))


class StreamARCBlock(nn.Module):
    """A frozen block with ARC on the residual stream between its halves, as in the Swin release.

    x' = ARC(x + Attn(LN1(x)));  out = x' + MLP(LN2(x'))
    """

    def __init__(self, block: Block, arc: ARC) -> None:
        super().__init__()
        self.block = block
        self.arc = arc

    def forward(self, x: Tensor) -> Tensor:
        block = self.block
        x = self.arc(x + block.drop_path1(block.ls1(block.attn(block.norm1(x)))))
        return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))


def inject(
    model: VideoModel,
    *,
    rank: int = 50,
    positions: Literal["both", "attention"] = "both",
    projections: Literal["shared", "per_layer"] = "shared",
    layers: str | list[int] = "all",
    dropout: float = 0.0,
    init: Literal["identity", "released"] = "identity",
) -> None:
    """Put ARC adapters into the chosen blocks of a frozen backbone.

    Trainable parameters with L layers of width D: 2 D r + 2 L (r + D) for both positions; with
    projections per layer, 2 L D r + 2 L (r + D); half of that for attention. On a backbone with
    stages, whose widths differ, layers share within a stage.

    Args:
        model: any backbone; edited in place. Where attention is windowed, the adapter of the MLP
            rewrites the residual stream in front of its norm, as the release for Swin does.
        rank: r.
        positions: `both`, behind LN1 and behind LN2 (ARC), each with its own matrices; or
            `attention`, behind LN1 only (ARC_att).
        projections: `shared`, one P per position for all layers (ARC); or `per_layer`, one P per
            adapter, which is then an ordinary symmetric low-rank adapter.
        layers: see `placing.chosen_layers`.
        dropout: between the two projections.
        init: `identity`, all scales zero; or `released`, which draws those of the MLP position
            uniformly within sqrt(6 / (r + 1)). P is Xavier uniform and b is zero.

    Raises:
        ValueError: an invalid option, by name.
    """
    require_counts(rank=rank)
    require_rate(dropout)
    if init == "released" and positions == "attention":
        raise ValueError(
            "method.init: 'released' is about the MLP position; with method.positions: attention "
            "leave it at 'identity', which is the release's own start there"
        )
    shared: dict[tuple[str, int], nn.Parameter] = {}

    def adapter(position: str, stage: int, width: int) -> ARC:
        if projections == "per_layer":
            return ARC(_projection(width, rank), dropout=dropout)
        if (position, stage) not in shared:
            shared[position, stage] = _projection(width, rank)
        return ARC(shared[position, stage], dropout=dropout)

    for slot in chosen_slots(model, layers):
        block = slot.block
        block.norm1 = NormARC(block.norm1, adapter("attention", slot.stage, slot.width))
        if positions == "attention":
            continue
        arc = adapter("mlp", slot.stage, slot.width)
        if init == "released":
            nn.init.xavier_uniform_(arc.scale[None])
        if model.attention == "window":
            slot.put(StreamARCBlock(block, arc))
        else:
            block.norm2 = NormARC(block.norm2, arc)


def _projection(width: int, rank: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(width, rank)))


def merge(model: VideoModel) -> None:
    """Fold ARC into the layers behind it: W' = W M, beta' = beta + W b, for q, k, v and fc1.

    VideoMAE's attention has no key bias, and W_k b may be dropped exactly: it adds q_i . W_k b to
    all scores of query i, which the softmax cancels. Where a layer has no bias and that does not
    hold (keys that are rotated or normalised), and in front of windows, which are padded with
    zeros, b goes into the norm instead, as b M^-1.

    Raises:
        ValueError: nothing was merged: on windowed attention the adapters of the MLP rewrite the
            residual stream; or a layer has no place for the bias.
    """
    blocks: list[Any] = [slot.block for slot in model.slots()]
    if any(isinstance(block, StreamARCBlock) for block in blocks):
        raise ValueError(
            f"method arc cannot be merged into {model.name}: there the adapters of the MLP rewrite "
            "the residual stream in front of a norm, which no linear layer can take over; train "
            "with method.positions: attention for a model that merges"
        )
    places = [
        (block, name)
        for block in blocks
        for name in ("norm1", "norm2")
        if isinstance(getattr(block, name, None), NormARC)
    ]
    for block, name in places:
        _check_place(block, name)
    for block, name in places:
        _fold(block, name)


# A matrix M of a larger condition number is not inverted: float32 would lose too many digits.
LARGEST_CONDITION = 1e4


def _takes_bias(block: Block, norm: str) -> bool:
    """Check that the layers behind a norm can hold W b."""
    if norm == "norm1":
        # Windows are padded with zeros behind the norm, which b would change.
        return not isinstance(block.attn, ShiftedWindowAttention) and holds_qkv_bias(block.attn)
    return all(linear.bias is not None for linear in first_linears(block.mlp))


def _check_place(block: Any, name: str) -> None:
    if _takes_bias(block, name):
        return
    norm, arc = getattr(block, name).norm, getattr(block, name).arc
    if getattr(norm, "bias", None) is None or torch.linalg.cond(arc.matrix()) > LARGEST_CONDITION:
        raise ValueError(
            "method arc cannot be merged into this backbone: neither the layers behind "
            f"{name} nor the norm itself can take the adapter's bias"
        )


@torch.no_grad()
def _fold(block: Any, name: str) -> None:
    norm, arc = getattr(block, name).norm, getattr(block, name).arc
    matrix, bias = arc.matrix(), arc.bias.double()
    if not _takes_bias(block, name):
        norm.bias.copy_(norm.bias.double() + torch.linalg.solve(matrix, bias))
        bias = torch.zeros_like(bias)
    if name == "norm1":
        weight, shift = read_qkv(block.attn)
        write_qkv(block.attn, weight @ matrix, shift + weight @ bias)
    else:
        for linear in first_linears(block.mlp):
            weight, shift = read_linear(linear)
            write_linear(linear, weight @ matrix, shift + weight @ bias)
    setattr(block, name, norm)
