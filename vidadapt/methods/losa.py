"""LoSA: a light network beside the frozen backbone refines its features; no graph enters it.

Paper: Mercea et al., "Time-, Memory- and Parameter-Efficient Visual Adaptation", CVPR 2024, arXiv
2402.02887. No code was released.

The paper: with b_1 ... b_L the outputs of the backbone's L blocks,

    y_0 = b_L,    y_i = g_i(b_i + y_{i-1}) + y_{i-1},    the features are y_L;

the backbone computes without gradients; g_i is a low-rank mixer, low-rank MLPs that alternate over
channels and tokens; for video the tokens are mixed over time and over space in turn.

Where our sources for the paper leave it open, ours, chosen on development videos of the demo's
target actions (docs/demo_study.md):

    g(u)  = up(GELU(space(time(down(LN(u))))))           down: D -> r_c, up: r_c -> D
    time  : h + W2 GELU(W1 h)  over the times of a place     W1: n_t -> r_t, W2: r_t -> n_t
    space : h + W2 GELU(W1 h)  over the places of a time     W1: n_s -> r_s, W2: r_s -> n_s

The tokens are mixed inside the channels' bottleneck, where that is cheap (mixed at full width, each
mixer as a separate branch, accuracy was 13 points lower at the same rate and parameters). LN has no
parameters, as `down` would absorb them. Only `up` starts at zero, so that g = 0 and the function is
the linear probe's. All layers are tapped, or the chosen ones. In a joint space-time model, prefix
tokens (class, registers) belong to no place or time and bypass the token mixers; where each frame
is a row, they are further places of their frame. Under autocast the b_i are kept in its type, and
the sums b_i + y are rounded to it; y is not.

Parameters: (2 D r_c + r_c + D) + (2 n_t r_t + r_t + n_t) + (2 n_s r_s + r_s + n_s) a tapped layer.
The mixers fix n_t and n_s: a file fits one clip length and crop size.

A rank of 0 leaves a mixer out, with its parameters. Without token mixers g is up(GELU(down(
LN(u)))), an adapter of each token alone. Without the channels' there is no bottleneck to mix in:

    g(u)  = space(time(LN(u))) - LN(u),    0 for tokens that bypass

at full width, with W2 zero at the start and without W2's bias: it would shift all channels of a
token alike, which the next layer's LN and fc_norm undo. The remaining parameters are
(2 n_t r_t + r_t) + (2 n_s r_s + r_s).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from vidadapt.methods.placing import chosen_layers, require_global_attention, require_rate
from vidadapt.models import FrameByFrame, VideoModel

NORM_EPS = 1e-6


class TokenMixer(nn.Module):
    """h + W2 gelu(W1 h + b1) + b2 over the rows of h (n, columns), through `rank` rows.

    Args:
        alone: there is no channels' bottleneck: W2 starts at zero, and there is no b2.
    """

    def __init__(self, count: int, rank: int, *, alone: bool) -> None:
        super().__init__()
        self.down = _linear(count, rank)
        self.up = _linear(rank, count, bias=not alone)
        if alone:
            nn.init.zeros_(self.up.weight)

    def forward(self, h: Tensor) -> Tensor:
        # Tokens in rows, all else in columns: one plain product, no transposed copy.
        hidden = functional.gelu(torch.addmm(self.down.bias[:, None], self.down.weight, h))
        if self.up.bias is None:
            return h + self.up.weight @ hidden
        return h + torch.addmm(self.up.bias[:, None], self.up.weight, hidden)


class Mixer(nn.Module):
    """g of one layer: tokens (rows, N, D) to their change (rows, N, D); zero at the start.

    After `num_passing` tokens a row has n_t * n_s, time-major; or a clip is n_t rows of n_s.
    """

    def __init__(
        self,
        width: int,
        *,
        num_times: int,
        num_places: int,
        num_passing: int,
        channel_rank: int,
        temporal_rank: int,
        spatial_rank: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.num_times, self.num_places = num_times, num_places
        self.num_passing, self.dropout = num_passing, dropout
        alone = channel_rank == 0
        self.down = None if alone else _linear(width, channel_rank)
        self.time, self.space = (
            TokenMixer(count, rank, alone=alone) if rank > 0 else None
            for count, rank in ((num_times, temporal_rank), (num_places, spatial_rank))
        )
        self.up = None if alone else _linear(channel_rank, width)
        if self.up is not None:
            nn.init.zeros_(self.up.weight)

    def forward(self, u: Tensor) -> Tensor:
        normed = functional.layer_norm(u, u.shape[-1:], eps=NORM_EPS)
        if self.down is None or self.up is None:
            return self.over_tokens(normed) - normed
        h = functional.gelu(self.over_tokens(self.down(normed)))
        return self.up(functional.dropout(h, self.dropout, self.training))

    def over_tokens(self, h: Tensor) -> Tensor:
        """Tokens (rows, N, C) mixed over times and places, of the same shape."""
        if self.time is None and self.space is None:
            return h
        passing, grid = h[:, : self.num_passing], h[:, self.num_passing :]
        mixed = grid.reshape(-1, self.num_times, self.num_places, h.shape[-1])
        b, t, s, _ = mixed.shape
        if self.time is not None:
            mixed = self.time(rearrange(mixed, "b t s r -> t (b s r)"))
            mixed = rearrange(mixed, "t (b s r) -> b t s r", b=b, s=s)
        if self.space is not None:
            mixed = self.space(rearrange(mixed, "b t s r -> s (b t r)"))
            mixed = rearrange(mixed, "s (b t r) -> b t s r", b=b, t=t)
        return torch.cat([passing, mixed.reshape(grid.shape)], dim=1)


class Side(nn.Module):
    """The trainable half: y_0 = b_L, y_i = g_i(b_i + y_{i-1}) + y_{i-1}.

    Called with b_L and the tapped b_i, all (rows, N, D), as `SideNetwork.frozen_features` gives
    them; returns y of the last tapped layer, of b_L's shape.
    """

    def __init__(self, mixers: Iterable[Mixer]) -> None:
        super().__init__()
        self.mixers = nn.ModuleList(mixers)

    def forward(self, last: Tensor, *taps: Tensor) -> Tensor:
        y = last
        for mixer, tap in zip(self.mixers, taps, strict=True):
            y = y + mixer(tap + y.to(tap.dtype))
        return y


class SideNetwork(nn.Module):
    """All blocks of a backbone, frozen, and the side network that reads them; tokens (rows, N, D).

    Args:
        blocks: in the order in which they run.
        side: called with the outputs of the last block and of those in `layers`.
        layers: numbers of the tapped blocks, from 1.
    """

    def __init__(self, blocks: nn.ModuleList, side: Side, layers: Collection[int]) -> None:
        super().__init__()
        self.blocks = blocks
        self.side = side
        self.layers = tuple(layers)

    # Not inference_mode: autograd could not save its tensors for the backward pass.
    @torch.no_grad()
    def frozen_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Tokens that enter the first block to b_L and the tapped b_i, without a graph.

        They are the same for all side networks with these `layers` on this backbone; b_L is the
        plain backbone's output. Under autocast the b_i have its type, b_L the blocks' own.
        """
        taps = []
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            if number in self.layers:
                taps.append(in_autocast_type(x))
        return x, *taps

    def forward(self, x: Tensor) -> Tensor:
        return self.side(*self.frozen_features(x))


def inject(
    model: VideoModel,
    *,
    channel_rank: int = 32,
    temporal_rank: int = 8,
    spatial_rank: int = 16,
    layers: str | list[int] = "all",
    dropout: float = 0.0,
) -> None:
    """Replace a frozen backbone's blocks by a side network that holds them.

    The function is unchanged at the start. Afterwards `model.slots()` has one place, that of the
    side network.

    Args:
        model: a backbone with global attention; edited in place.
        channel_rank: r_c, channels in which the tokens are mixed; 0: no channel mixers.
        temporal_rank: r_t of the mixers over time; may be larger than n_t; 0: none.
        spatial_rank: r_s of the mixers over places; 0: none.
        layers: the tapped blocks, see `placing.chosen_layers`.
        dropout: inside the channels' bottleneck.

    Raises:
        ValueError: an invalid option, by name, or a backbone without global attention.
    """
    require_global_attention(
        model, "losa", "a side network needs the same tokens behind all blocks"
    )
    _check_ranks(channel_rank=channel_rank, temporal_rank=temporal_rank, spatial_rank=spatial_rank)
    require_rate(dropout)
    if channel_rank == 0 and dropout > 0:
        raise ValueError(
            "method.dropout: is inside the channels' bottleneck, which method.channel_rank 0 "
            "leaves out; set it to 0"
        )
    slots = model.slots()
    chosen = chosen_layers(layers, len(slots))
    num_times, height, width = model.grid
    a_row_a_frame = isinstance(model, FrameByFrame)
    prefix = model.num_prefix_tokens
    side = Side(
        Mixer(
            model.width,
            num_times=num_times,
            num_places=height * width + (prefix if a_row_a_frame else 0),
            num_passing=0 if a_row_a_frame else prefix,
            channel_rank=channel_rank,
            temporal_rank=temporal_rank,
            spatial_rank=spatial_rank,
            dropout=dropout,
        )
        for _ in chosen
    )
    blocks = nn.ModuleList(
        slot.block if slot.before is None else nn.Sequential(slot.before, slot.block)
        for slot in slots
    )
    container, befores = slots[0].container, slots[0].befores
    del container[:]
    if befores is not None:
        del befores[:]
    container.append(SideNetwork(blocks, side, chosen))


def _check_ranks(**ranks: int) -> None:
    for name, rank in ranks.items():
        if rank < 0:
            raise ValueError(
                f"method.{name}: expected 1 or more, or 0 for no such mixer, got {rank}"
            )
    if not any(ranks.values()):
        named = ", ".join(f"method.{name}" for name in ranks)
        raise ValueError(f"{named}: all are 0, which leaves no mixer; give one of them a rank")


def _linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def in_autocast_type(x: Tensor) -> Tensor:
    """Return a tensor in the type of the active autocast, if there is one."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
