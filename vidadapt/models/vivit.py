"""ViViT, model 1: tubelets, joint space-time attention, a class token, learned positions.

Arnab et al., "ViViT: A Video Vision Transformer", ICCV 2021, arXiv 2103.15691. Arithmetic and
weights are those of Hugging Face transformers' ViViT.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from timm.layers import Attention
from torch import Tensor, nn

from vidadapt.models.clip_shape import require_divides
from vidadapt.models.encoder import ClipEncoder, drop_path_rates, encoder_block, init_weights
from vidadapt.models.timm_attention import TokenAttention

VIVIT_SIZES: dict[str, Mapping[str, Any]] = {
    "vivit_tiny": {"width": 192, "depth": 6, "num_heads": 3},  # not published; for trials
    "vivit_base": {"width": 768, "depth": 12, "num_heads": 12},
}


class ViViT(ClipEncoder):
    """ViViT over the tubelets of a clip, with a read-out. Its GELU is the one with tanh.

    Args:
        num_frames, crop_size, tubelet_size, patch_size, width, num_classes: see `ClipEncoder`.
        depth: number of blocks.
        num_heads: attention heads; must divide `width`.
        mlp_ratio: hidden width of the MLP over `width`.
        drop_path: stochastic depth rate of the last block, rising linearly from 0.

    Attributes: those of `ClipEncoder`, and
        cls_token: (1, 1, D), before the tokens of the grid.
        pos_embed: (1, 1 + t * h * w, D).
    """

    num_prefix_tokens = 1
    positions = ("cls_token", "pos_embed")

    def __init__(
        self,
        *,
        depth: int,
        num_heads: int,
        width: int,
        tubelet_size: int = 2,
        patch_size: int = 16,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        **sizes: Any,
    ) -> None:
        super().__init__(tubelet_size=tubelet_size, patch_size=patch_size, width=width, **sizes)
        require_divides("width", width, "num_heads", num_heads)
        self.name, self.depth = "ViViT", depth
        t, h, w = self.grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + t * h * w, width))
        self.blocks.extend(
            encoder_block(
                TokenAttention(Attention(width, num_heads, qkv_bias=True), None),
                *(width, mlp_ratio, rate, partial(nn.GELU, approximate="tanh")),
            )
            for rate in drop_path_rates(drop_path, depth)
        )
        init_weights(self)
        for table in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(table, std=0.02)

    def embedded(self, clip: Tensor) -> Tensor:
        first = self.cls_token.expand(clip.shape[0], -1, -1)
        return torch.cat([first, self.patch_embed(clip)], dim=1) + self.pos_embed
