"""Fit a file's learned positions to a model of other frames or another crop, before loading."""

from __future__ import annotations

import math
import re
from typing import TypeGuard

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vidadapt.models.coverage import State
from vidadapt.models.positions import Grid

# Of ViViT's published files: 32 frames of 224 pixels.
PUBLISHED_VIVIT_GRID = (16, 14, 14)


def fit_timesformer(state: State, grid: Grid) -> tuple[str, ...]:
    """Resize TimeSformer's tables by nearest neighbour to a grid, as its authors do; returns notes.

    A table that is missing or of no square is left for the check of shapes.
    """
    notes = []
    t, h, w = grid
    places, times = state.get("pos_embed"), state.get("time_pos_embed")
    if _is_table(places) and places.shape[1] != 1 + h * w:
        side = math.isqrt(places.shape[1] - 1)
        if side * side == places.shape[1] - 1 > 0:
            state["pos_embed"] = _resized(places, (1, side, side), (h, w), "nearest")
            notes.append(f"positions of {side} x {side} places resized to {h} x {w} (nearest)")
    if _is_table(times) and times.shape[1] != t:
        state["time_pos_embed"] = _interpolated(times.mT, (t,), "nearest").mT
        notes.append(f"positions of {times.shape[1]} frames resized to {t} (nearest)")
    return tuple(notes)


def fit_videoprism(state: State, grid: Grid) -> tuple[str, ...]:
    """Resize VideoPrism's tables to a grid, bilinear with antialiasing; returns notes.

    A table that is missing or of no square is left for the check of shapes.
    """
    notes = []
    t, h, w = grid
    places = state.get("pos_embed")
    if _is_table(places) and places.shape[1] != h * w:
        side = math.isqrt(places.shape[1])
        if side * side == places.shape[1]:
            maps = rearrange(places, "1 (h w) d -> 1 d h w", h=side)
            maps = _interpolated(maps, (h, w), "bilinear", antialias=True)
            state["pos_embed"] = rearrange(maps, "1 d h w -> 1 (h w) d")
            notes.append(f"positions of {side} x {side} places resized to {h} x {w} (bilinear)")
    for name in [name for name in state if re.fullmatch(r"befores\.\d+\.pos_embed", name)]:
        times = state[name]
        if _is_table(times) and times.shape[1] != t:
            rows = _interpolated(times[None], (t, times.shape[2]), "bilinear", antialias=True)
            state[name] = rows[0]
            notes.append(f"positions of {times.shape[1]} frames resized to {t} (linear)")
    return tuple(notes)


def fit_vivit(state: State, grid: Grid, table_grid: Grid | None) -> tuple[str, ...]:
    """Take of ViViT's table the rows of the first times, and resize places, bicubic, to the crop.

    Args:
        grid: of the model.
        table_grid: of the file's table; None: the published one if the number of rows is its, else
            the model's.

    Raises:
        ValueError: another number of rows than `table_grid` has, or fewer times than `grid` has.
    """
    table = state.get("pos_embed")
    if not _is_table(table):
        return ()
    rows = table.shape[1] - 1
    if table_grid is None:
        table_grid = PUBLISHED_VIVIT_GRID if rows == math.prod(PUBLISHED_VIVIT_GRID) else grid
    said = " x ".join(map(str, table_grid))
    if rows != math.prod(table_grid):
        raise ValueError(
            f"model.position_grid: the file has positions of {rows} tokens, and {said} are "
            f"{math.prod(table_grid)}; give the grid of tokens [t, h, w] that it was trained with"
        )
    if table_grid == grid:
        return ()
    if table_grid[0] < grid[0]:
        raise ValueError(
            f"data.num_frames: the file has positions for {table_grid[0]} times (model."
            f"position_grid {said}), and this model has {grid[0]}; choose fewer frames, or a "
            "larger model.tubelet_size"
        )
    state["pos_embed"] = _resized(table, table_grid, grid[1:], "bicubic", times=grid[0])
    return (
        f"positions of {said} tokens (model.position_grid) to {' x '.join(map(str, grid))}: those "
        "of the first times, places resized (bicubic)",
    )


def _is_table(tensor: Tensor | None) -> TypeGuard[Tensor]:
    """Check that there is a table (1, rows, D); what is not is left to the check of shapes."""
    return tensor is not None and tensor.ndim == 3 and len(tensor) == 1 and tensor.numel() > 0


def fit_internvideo2(state: State, grid: Grid) -> tuple[str, ...]:
    """Resize InternVideo2's table as its fine-tuning does: times linearly, places bicubic.

    Its pre-training has 8 frames; a table that is no 8 squares may be 4 or 16 of them.
    """
    table = state.get("pos_embed")
    if table is None or table.ndim != 3 or table.shape[1] == 1 + math.prod(grid):
        return ()
    rows = table.shape[1] - 1
    found = [t for t in (8, 4, 16) if rows % t == 0 and math.isqrt(rows // t) ** 2 == rows // t]
    if not found or rows < 1:
        return ()
    t, side = found[0], math.isqrt(rows // found[0])
    if t != grid[0]:
        places = rearrange(table[:, 1:], "1 (t n) d -> n d t", t=t)
        places = _interpolated(places, (grid[0],), "linear")
        table = torch.cat([table[:, :1], rearrange(places, "n d t -> 1 (t n) d")], dim=1)
    state["pos_embed"] = _resized(table, (grid[0], side, side), grid[1:], "bicubic", times=grid[0])
    said = " x ".join(map(str, grid))
    return (f"positions of {t} x {side} x {side} tokens resized to {said} (linear, bicubic)",)


def _resized(table: Tensor, grid: Grid, size: tuple[int, int], mode: str, times: int = 1) -> Tensor:
    """Table (1, 1 + t * h * w, D) with the first `times` of t, and places resized to `size`."""
    t, h, w = grid
    maps = rearrange(table[0, 1:], "(t h w) d -> t d h w", t=t, h=h, w=w)[:times]
    if (h, w) != size:
        maps = _interpolated(maps, size, mode)
    rows = rearrange(maps, "t d h w -> 1 (t h w) d")
    return torch.cat([table[:, :1].to(rows.dtype), rows], dim=1)


def _interpolated(
    x: Tensor, size: tuple[int, ...], mode: str, *, antialias: bool = False
) -> Tensor:
    """Resize floats, in float64, which loading rounds once; others are left to its check."""
    if not x.is_floating_point():
        return x
    return F.interpolate(x.double(), size=size, mode=mode, antialias=antialias)
