"""VideoPrism: attention over space in every frame, then over time at every place.

Zhao et al., "VideoPrism: A Foundational Visual Encoder for Video Understanding", ICML 2024,
arXiv 2402.13217. Arithmetic and weights are those of Hugging Face transformers' VideoPrism.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import repeat
from timm.layers import Attention
from torch import Tensor, nn

from vidadapt.models.axis_attention import AxisAttention
from vidadapt.models.blocks import NORM_EPS
from vidadapt.models.clip_shape import require_divides
from vidadapt.models.encoder import ClipEncoder, drop_path_rates, encoder_block, init_weights
from vidadapt.models.positions import Grid

PATCHES = {"patch_size": 18}
VIDEOPRISM_SIZES: dict[str, Mapping[str, Any]] = {
    # Not published; for trials.
    "videoprism_tiny": {**PATCHES, "width": 192, "depth": 6, "temporal_depth": 2, "num_heads": 3},
    "videoprism_base": {**PATCHES, "width": 768, "depth": 16, "temporal_depth": 4, "num_heads": 12},
}

SOFT_CAP = 50.0


class CappedAttention(AxisAttention):
    """Attention whose scores s are 50 tanh(s / 50) before the softmax."""

    def _attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q * q.shape[-1] ** -0.5) @ k.mT
        # In half precision a score near 50 would be rounded to steps of 0.03 or more.
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        scores = SOFT_CAP * torch.tanh(scores / SOFT_CAP)
        return scores.softmax(-1).to(v.dtype) @ v


class EnterTime(nn.Module):
    """The norm after the blocks over space, and positions in time for the tokens of the grid."""

    def __init__(self, width: int, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid[0], width))

    def forward(self, x: Tensor) -> Tensor:
        t, h, w = self.grid
        x = self.norm(x)
        prefix, tokens = x[:, : -t * h * w], x[:, -t * h * w :]
        times = repeat(self.pos_embed, "1 t d -> 1 (t n) d", n=h * w)
        return torch.cat([prefix, tokens + times], dim=1)


class VideoPrism(ClipEncoder):
    """VideoPrism's encoder over the patches of a clip's frames, with a read-out.

    One token is one patch of one frame. The first blocks attend over space, within a frame; the
    last ones over time, at a place. There is no class token. A norm's scale, which the files hold
    less 1, is whole here.

    Args:
        num_frames, crop_size, patch_size, width, num_classes: see `ClipEncoder`.
        depth: number of blocks, of both kinds.
        temporal_depth: how many of them attend over time.
        num_heads: attention heads; must divide `width`.
        mlp_ratio: hidden width of the MLP over `width`.
        drop_path: stochastic depth rate of the last block, rising linearly from 0.

    Attributes: those of `ClipEncoder`, and
        pos_embed: (1, h * w, D).
        befores: identities, but `EnterTime` before the first block over time.
    """

    def __init__(
        self,
        *,
        depth: int,
        temporal_depth: int,
        num_heads: int,
        width: int,
        patch_size: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        **sizes: Any,
    ) -> None:
        super().__init__(tubelet_size=1, patch_size=patch_size, width=width, **sizes)
        require_divides("width", width, "num_heads", num_heads)
        self.name, self.depth = "VideoPrism", depth
        _, h, w = self.grid
        self.pos_embed = nn.Parameter(torch.zeros(1, h * w, width))
        first = depth - temporal_depth
        self.positions = ("pos_embed", f"befores.{first}.pos_embed")
        enter_time = EnterTime(width, self.grid)
        for index, rate in enumerate(drop_path_rates(drop_path, depth)):
            attn = CappedAttention(
                Attention(width, num_heads, qkv_bias=True),
                self.grid,
                "space" if index < first else "time",
            )
            self.befores.append(enter_time if index == first else nn.Identity())
            self.blocks.append(encoder_block(attn, width, mlp_ratio, rate))
        init_weights(self)
        for table in (self.pos_embed, enter_time.pos_embed):
            nn.init.trunc_normal_(table, std=0.02)

    def embedded(self, clip: Tensor) -> Tensor:
        return self.patch_embed(clip) + repeat(self.pos_embed, "1 n d -> 1 (t n) d", t=self.grid[0])

    def read_class_token(self) -> None:
        """Refuse the published classifiers.

        Raises:
            ValueError: they read a pool of their own.
        """
        raise ValueError(
            f"keep_head: the classifiers of {self.name} read an attention pool of their own, which "
            "is not supported; leave keep_head out and train a new head"
        )
