"""AdaptFormer: each chosen block's MLP becomes an AdaptMLP.

Paper: Chen et al., "AdaptFormer: Adapting Vision Transformers for Scalable Visual Recognition",
NeurIPS 2022, arXiv 2205.13535, Eq. 3-4. Reference implementation: ShoufaChen/AdaptFormer.

Differs from the released code in: the up-projection really starts at zero (the released video
model re-initialises it by accident; `init="released"` reproduces that), any backbone width (the
release hard-codes 768), any layers, sequential form and learnable scale are options.
"""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from torch import nn
from torch.nn import functional

from vidadapt.models.vit import Block, VideoViT


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
        self.scale = nn.Parameter(torch.tensor(scale)) if learnable_scale else scale
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
        return self.scale * self.up(hidden)


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
        x = x + block.drop_path1(block.attn(block.norm1(x)))
        normalized = block.norm2(x)
        mlp_out = block.drop_path2(block.mlp(normalized))
        if self.form == "sequential":
            return x + mlp_out + self.adapter(mlp_out)
        return x + mlp_out + self.adapter(x if self.input == "stream" else normalized)


def inject(
    model: VideoViT,
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
    """Put an adapter into the chosen blocks of a frozen `VideoViT`.

    Args:
        model: backbone with `blocks` (each norm1, attn, drop_path1, norm2, mlp, drop_path2) and
            `width`; edited in place.
        bottleneck: width of the adapter.
        scale: factor s of the adapter's output.
        learnable_scale: train s, one per layer, starting from `scale`.
        layers: `all`, an inclusive range counted from 1 (`7-12`), or a list ([1, 6, 12]).
        form: adapter beside the MLP or behind it.
        input: what a parallel adapter reads: `stream`, x' as the released code does (the authors:
            "the code is correct"; it made the published numbers), or `normalized`, LN2(x') as
            Eq. 3 is printed.
        dropout: inside the bottleneck.
        init: zero up-projection and Kaiming down-projection (the paper: identity at the start),
            or the truncated normals that the released video code ends up with.

    Raises:
        ValueError: an option that cannot be met, named.
    """
    if bottleneck < 1:
        raise ValueError(f"method.bottleneck: expected 1 or more, got {bottleneck}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"method.dropout: expected a rate in [0, 1), got {dropout}")
    if form == "sequential" and input == "normalized":
        raise ValueError(
            "method.input: a sequential adapter reads the MLP's output; 'normalized' is for "
            "method.form: parallel"
        )
    for layer in chosen_layers(layers, len(model.blocks)):
        adapter = Adapter(
            model.width,
            bottleneck,
            scale=scale,
            learnable_scale=learnable_scale,
            dropout=dropout,
            init=init,
        )
        block = cast(Block, model.blocks[layer - 1])
        model.blocks[layer - 1] = AdaptMLPBlock(block, adapter, form=form, input=input)


def chosen_layers(layers: str | list[int], depth: int) -> list[int]:
    """Layer numbers from 1, sorted, from `all`, an inclusive range `a-b`, or a list.

    Raises:
        ValueError: malformed, empty, repeated or outside 1..depth.

    >>> chosen_layers("7-12", 12), chosen_layers([1, 3], 12)
    ([7, 8, 9, 10, 11, 12], [1, 3])
    """
    expected = f"'all', a range such as '1-{depth}', or a list of numbers in 1..{depth}"
    if layers == "all":
        return list(range(1, depth + 1))
    if isinstance(layers, str):
        first, _, last = layers.partition("-")
        if not (first.strip().isdigit() and last.strip().isdigit()):
            raise ValueError(f"method.layers: expected {expected}, got {layers!r}")
        numbers = list(range(int(first), int(last) + 1))
    else:
        numbers = sorted(layers)
    if not numbers or len(set(numbers)) != len(numbers) or numbers[0] < 1 or numbers[-1] > depth:
        raise ValueError(
            f"method.layers: expected {expected} for this backbone of {depth} blocks, "
            f"got {layers!r}"
        )
    return numbers
