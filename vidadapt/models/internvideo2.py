"""InternVideo2's video encoder: one token a patch of a frame, joint attention, a class token.

Wang et al., "InternVideo2: Scaling Foundation Models for Multimodal Video Understanding", 2024,
arXiv 2403.15377. Names and arithmetic are those of OpenGVLab/InternVideo (single_modality). Its
norms are RMSNorm, queries and keys are normed over all heads together, branches have LayerScale,
and nothing norms the last block's tokens. GELU is the one with tanh, as in the fused MLP with which
the published models were trained; the release without flash-attn computes the exact one (features
differ by some 1e-3).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import Attention, DropPath, LayerScale, Mlp
from torch import Tensor, nn

from vidadapt.models.blocks import NORM_EPS, Block
from vidadapt.models.clip_shape import require_divides
from vidadapt.models.encoder import ClipEncoder, drop_path_rates, init_weights
from vidadapt.models.timm_attention import TokenAttention

INTERNVIDEO2_SIZES: dict[str, Mapping[str, Any]] = {
    "internvideo2_tiny": {"width": 192, "depth": 6, "num_heads": 3},  # not published; for trials
    "internvideo2_small": {"width": 384, "depth": 12, "num_heads": 6},
    "internvideo2_base": {"width": 768, "depth": 12, "num_heads": 12},
    "internvideo2_large": {"width": 1024, "depth": 24, "num_heads": 16},
    "internvideo2_1b": {"width": 1408, "depth": 40, "num_heads": 16, "mlp_ratio": 48 / 11},
    "internvideo2_6b": {"width": 3200, "depth": 48, "num_heads": 25},
}


class HeadsNorm(nn.Module):
    """RMSNorm of queries or keys (rows, heads, N, D / heads) over all heads together."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        joined = rearrange(x, "b h n d -> b n (h d)")
        normed = F.rms_norm(joined, self.weight.shape, self.weight, NORM_EPS)
        return rearrange(normed, "b n (h d) -> b h n d", h=x.shape[1])


class InternVideo2(ClipEncoder):
    """InternVideo2 over the patches of a clip's frames, with a read-out of its own.

    The release's attention pool in front of its classifier is left out.

    Args:
        num_frames, crop_size, patch_size, width, num_classes: see `ClipEncoder`.
        depth: number of blocks.
        num_heads: attention heads; must divide `width`.
        mlp_ratio: hidden width of the MLP over `width`.
        drop_path: stochastic depth rate of the last block, rising linearly from 0.

    Attributes: those of `ClipEncoder`, of which `norm` is the identity, and
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
        patch_size: int = 14,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        **sizes: Any,
    ) -> None:
        super().__init__(tubelet_size=1, patch_size=patch_size, width=width, **sizes)
        require_divides("width", width, "num_heads", num_heads)
        self.name, self.depth = "InternVideo2", depth
        t, h, w = self.grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + t * h * w, width))
        self.blocks.extend(
            _block(width, num_heads, mlp_ratio, rate) for rate in drop_path_rates(drop_path, depth)
        )
        self.norm = nn.Identity()
        init_weights(self)
        for table in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(table, std=0.02)

    def embedded(self, clip: Tensor) -> Tensor:
        first = self.cls_token.expand(clip.shape[0], -1, -1)
        return torch.cat([first, self.patch_embed(clip)], dim=1) + self.pos_embed


def _block(width: int, num_heads: int, mlp_ratio: float, drop_path: float) -> Block:
    attn: Any = Attention(width, num_heads)
    attn.q_norm, attn.k_norm = HeadsNorm(width), HeadsNorm(width)
    gelu: Any = partial(nn.GELU, approximate="tanh")
    return Block(
        norm1=nn.RMSNorm(width, eps=NORM_EPS),
        attn=TokenAttention(attn, None),
        ls1=LayerScale(width, init_values=1e-5),
        drop_path1=DropPath(drop_path) if drop_path > 0 else None,
        norm2=nn.RMSNorm(width, eps=NORM_EPS),
        mlp=Mlp(width, round(width * mlp_ratio), act_layer=gelu),
        ls2=LayerScale(width, init_values=1e-5),
        drop_path2=DropPath(drop_path) if drop_path > 0 else None,
    )
