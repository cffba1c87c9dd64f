"""AdaptFormer: each chosen block's MLP becomes an AdaptMLP.

Paper: Chen et al., "AdaptFormer: Adapting Vision Transformers for Scalable Visual Recognition",
NeurIPS 2022, arXiv 2205.13535, Eq. 3-4. Reference implementation: ShoufaChen/AdaptFormer.

Differs from the released code in: the up-projection really starts at zero (the released video
model re-initialises it by accident; `init="released"` reproduces that), any backbone width (the
release hard-codes 768), any layers, sequential form and learnable scale are options.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from vidadapt.methods.placing import chosen_slots, require_counts, require_rate
from vidadapt.models import Block, VideoModel


class Adapter(nn.Module):
    """s * up(dropout(relu(down(x)))): (..., D) -> (..., D) through `bottleneck` channels.

    s multiplies the up-projection's bias too, as in the released code. Parameters:
    2 * D * bottleneck + bottleneck + D, and one more for a learnable scale.
    """

    def __init__(
        self,
        width: int,
        bottleneck: int,
        *,
        scale: float,
        learnable_scale: bool,
        dropout: float,
        init: Literal["zero_up", "released"],
    ) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        self.dropout = dropout
        self.scale = nn.Parameter(torch.tensor(float(scale))) if learnable_scale else scale
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.bias)
        if init == "zero_up":
            nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
            nn.init.zeros_(self.up.weight)
        else:
            nn.init.trunc_normal_(self.down.weight, std=0.02)
            nn.init.trunc_normal_(self.up.weight, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = functional.relu(self.down(x))
        hidden = functional.dropout(hidden, self.dropout, self.training)
        # Multiply by s before the product, where there are fewer channels.
        return functional.linear(self.scale * hidden, self.up.weight, self.scale * self.up.bias)


class AdaptMLPBlock(nn.Module):
    """A frozen block whose MLP has a trainable adapter beside it or behind it.

    With x' the stream after attention:
    parallel:   out = x' + MLP(LN2(x')) + Adapter(x')    (or Adapter(LN2(x')), Eq. 3 as printed)
    sequential: out = x' + F + Adapter(F),  F = MLP(LN2(x'))
    """

    def __init__(
        self,
        block: Block,
        adapter: Adapter,
        *,
        form: Literal["parallel", "sequential"],
        input: Literal["stream", "normalized"],
    ) -> None:
        super().__init__()
        self.block = block
        self.adapter = adapter
        self.form = form
        self.input = input

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        block = self.block
        x = x + block.drop_path1(block.ls1(block.attn(block.norm1(x))))
        normalized = block.norm2(x)
        mlp_out = block.drop_path2(block.ls2(block.mlp(normalized)))
        if self.form == "sequential":
            return x + mlp_out + self.adapter(mlp_out)
        return x + mlp_out + self.adapter(x if self.input == "stream" else normalized)


def inject(
    model: VideoModel,
    *,
    bottleneck: int = 64,
    scale: float = 0.1,
    learnable_scale: bool = False,
    layers: str | list[int] = "all",
    form: Literal["parallel", "sequential"] = "parallel",
    input: Literal["stream", "normalized"] = "stream",
    dropout: float = 0.0,
    init: Literal["zero_up", "released"] = "zero_up",
) -> None:
    """Put an adapter into the chosen blocks of a frozen backbone.

    Args:
        model: any backbone; edited in place.
        bottleneck: width of the adapter.
        scale: factor s of the adapter's output.
        learnable_scale: train s, one per layer, starting from `scale`.
        layers: see `placing.chosen_layers`.
        form: adapter beside the MLP or behind it.
        input: what a parallel adapter reads: `stream`, x' as the released code does (the authors:
            "the code is correct"; it made the published numbers), or `normalized`, LN2(x') as
            Eq. 3 is printed.
        dropout: inside the bottleneck.
        init: zero up-projection and Kaiming down-projection (the paper: identity at the start),
            or the truncated normals that the released video code ends up with.

    Raises:
        ValueError: an invalid option, by name.
    """
    require_counts(bottleneck=bottleneck)
    require_rate(dropout)
    if form == "sequential" and input == "normalized":
        raise ValueError(
            "method.input: a sequential adapter reads the MLP's output; 'normalized' is for "
            "method.form: parallel"
        )
    for slot in chosen_slots(model, layers):
        adapter = Adapter(
            slot.width,
            bottleneck,
            scale=scale,
            learnable_scale=learnable_scale,
            dropout=dropout,
            init=init,
        )
        slot.put(AdaptMLPBlock(slot.block, adapter, form=form, input=input))
