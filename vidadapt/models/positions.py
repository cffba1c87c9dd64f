"""Fixed sin-cos position tables, as in VideoMAE (https://arxiv.org/abs/2203.12602).

The table is one-dimensional over the flattened token index, time-major (t, then h, then w), not a
separable table over time and space. So a model for fewer frames uses the first rows of the table
that it was pre-trained with, and every frame keeps its absolute time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

Grid = tuple[int, int, int]


def sincos_table(num_tokens: int, width: int) -> Tensor:
    """Position table (num_tokens, width), float32.

    Entry (p, j) is the sine (even j) or cosine (odd j) of p / 10000^(2 floor(j/2) / width).
    Computed in float64, as the reference does, so that no row depends on the number of rows.

    >>> sincos_table(2, 4)[0]
    tensor([0., 1., 0., 1.])
    >>> bool((sincos_table(3, 8)[:2] == sincos_table(2, 8)).all())
    True
    """
    channel = torch.arange(width, dtype=torch.float64)
    frequency = 10000.0 ** (-2 * torch.floor(channel / 2) / width)
    angle = torch.arange(num_tokens, dtype=torch.float64)[:, None] * frequency
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()


def interpolated_table(pretrained_grid: Grid, grid: Grid, width: int) -> Tensor:
    """Table of `pretrained_grid` (t, h, w) resampled trilinearly to `grid`: (t * h * w, width).

    Only on request (`build(interpolate_from=...)`): VideoMAE itself recomputes the table for the
    new number of tokens, which changes the code of a place when the spatial grid changes.

    >>> bool((interpolated_table((2, 3, 3), (2, 3, 3), 8) == sincos_table(18, 8)).all())
    True
    """
    t, h, w = pretrained_grid
    table = sincos_table(t * h * w, width)
    if pretrained_grid == grid:
        return table
    volume = rearrange(table, "(t h w) d -> 1 d t h w", t=t, h=h, w=w)
    volume = F.interpolate(volume, size=grid, mode="trilinear", align_corners=False)
    return rearrange(volume, "1 d t h w -> (t h w) d")
