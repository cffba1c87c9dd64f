"""Attention among the tokens of one frame, or among those of one place, of a clip in one row."""

from __future__ import annotations

from typing import Any, Literal

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor

from vidadapt.models.positions import Grid
from vidadapt.models.timm_attention import TokenAttention

Axis = Literal["space", "time"]

# Rows of clips to rows of frames or of places, and back.
APART = {"space": "b (t n) d -> (b t) n d", "time": "b (t n) d -> (b n) t d"}
TOGETHER = {"space": "(b t) n d -> b (t n) d", "time": "(b n) t d -> b (t n) d"}


class AxisAttention(TokenAttention):
    """Attention over tokens (B, P + t * h * w, D), time-major, along one axis.

    The P tokens before those of the grid (class token, prompts) take part in every frame or place,
    and what they get there is averaged, as TimeSformer does with its class token.

    Args:
        attn: see `TokenAttention`.
        grid: tokens along time, height, width (t, h, w).
        along: `space`: the tokens of a frame attend to each other; `time`: those of a place.
    """

    def __init__(self, attn: Any, grid: Grid, along: Axis) -> None:
        super().__init__(attn, None)
        self.grid, self.along = grid, along

    def forward(self, x: Tensor) -> Tensor:
        t, h, w = self.grid
        prefix, tokens = x[:, : -t * h * w], x[:, -t * h * w :]
        rows = t if self.along == "space" else h * w
        prefix = repeat(prefix, "b p d -> (b rows) p d", rows=rows)
        tokens = rearrange(tokens, APART[self.along], t=t)
        out = super().forward(torch.cat([prefix, tokens], dim=1))
        count = prefix.shape[1]
        prefix = reduce(out[:, :count], "(b rows) p d -> b p d", "mean", rows=rows)
        tokens = rearrange(out[:, count:], TOGETHER[self.along], t=t, b=x.shape[0])
        return torch.cat([prefix, tokens], dim=1)
