"""TimeSformer with divided attention: over time at every place, then over space in every frame.

Bertasius et al., "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021,
arXiv 2102.05095. Arithmetic and weights are those of Hugging Face transformers' TimeSformer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange, repeat
from timm.layers import Attention, DropPath
from torch import Tensor, nn

from vidadapt.models.axis_attention import APART, TOGETHER, AxisAttention
from vidadapt.models.blocks import NORM_EPS
from vidadapt.models.clip_shape import require_divides
from vidadapt.models.encoder import ClipEncoder, drop_path_rates, encoder_block, init_weights
from vidadapt.models.positions import Grid
from vidadapt.models.timm_attention import TokenAttention

TIMESFORMER_SIZES: dict[str, Mapping[str, Any]] = {
    "timesformer_tiny": {"width": 192, "depth": 6, "num_heads": 3},  # not published; for trials
    "timesformer_base": {"width": 768, "depth": 12, "num_heads": 12},
}


class TimeAttention(nn.Module):
    """x + dense(attention over the times of a place (norm(x))), on the tokens of the grid.

    Those before them (class token, prompts) pass.
    """

    def __init__(self, width: int, num_heads: int, grid: Grid, drop_path: float) -> None:
        super().__init__()
        self.grid = grid
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = TokenAttention(Attention(width, num_heads, qkv_bias=True), None)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.dense = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        t, h, w = self.grid
        prefix, tokens = x[:, : -t * h * w], x[:, -t * h * w :]
        places = rearrange(self.norm(tokens), APART["time"], t=t)
        change = self.dense(self.drop_path(self.attn(places)))
        tokens = tokens + rearrange(change, TOGETHER["time"], b=x.shape[0])
        return torch.cat([prefix, tokens], dim=1)


class TimeSformer(ClipEncoder):
    """TimeSformer over the patches of a clip's frames, with a read-out.

    One token is one patch of one frame. A block's `attn` is the attention over space, within a
    frame. The attention over time, with its norm and its dense layer, runs before the block
    (`befores`): methods that edit blocks leave it as it is. What acts on the whole backbone
    (ssf, bitfit, full) acts on it, too.

    Args:
        num_frames, crop_size, patch_size, width, num_classes: see `ClipEncoder`.
        depth: number of blocks.
        num_heads: attention heads; must divide `width`.
        mlp_ratio: hidden width of the MLP over `width`.
        drop_path: stochastic depth rate of the last block, rising linearly from 0.

    Attributes: those of `ClipEncoder`, and
        cls_token: (1, 1, D), before the tokens of the grid.
        pos_embed: (1, 1 + h * w, D), for the class token and the places of a frame.
        time_pos_embed: (1, t, D).
        befores: one `TimeAttention` for each block.
    """

    num_prefix_tokens = 1
    positions = ("cls_token", "pos_embed", "time_pos_embed")

    def __init__(
        self,
        *,
        depth: int,
        num_heads: int,
        width: int,
        patch_size: int = 16,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        **sizes: Any,
    ) -> None:
        super().__init__(tubelet_size=1, patch_size=patch_size, width=width, **sizes)
        require_divides("width", width, "num_heads", num_heads)
        self.name, self.depth = "TimeSformer", depth
        t, h, w = self.grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + h * w, width))
        self.time_pos_embed = nn.Parameter(torch.zeros(1, t, width))
        rates = drop_path_rates(drop_path, depth)
        self.befores.extend(TimeAttention(width, num_heads, self.grid, rate) for rate in rates)
        self.blocks.extend(
            encoder_block(
                AxisAttention(Attention(width, num_heads, qkv_bias=True), self.grid, "space"),
                *(width, mlp_ratio, rate),
            )
            for rate in rates
        )
        init_weights(self)
        for table in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(table, std=0.02)

    def embedded(self, clip: Tensor) -> Tensor:
        t, h, w = self.grid
        places = repeat(self.pos_embed[:, 1:], "1 n d -> 1 (t n) d", t=t)
        times = repeat(self.time_pos_embed, "1 t d -> 1 (t n) d", n=h * w)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(clip.shape[0], -1, -1)
        return torch.cat([first, self.patch_embed(clip) + places + times], dim=1)
