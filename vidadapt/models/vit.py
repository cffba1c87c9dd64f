"""Tubelet ViT, as VideoMAE fine-tunes it (https://arxiv.org/abs/2203.12602).

Parameter names are those of VideoMAE's fine-tuned checkpoints. There is no class token; queries
and values have a bias, keys have none (a key bias would cancel in the softmax).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from vidadapt.models.attention import QkvLinear, attention, split_heads
from vidadapt.models.backbone import VideoModel
from vidadapt.models.blocks import NORM_EPS, Block, Slot
from vidadapt.models.clip_shape import require_clip, require_divides
from vidadapt.models.heads import linear, read_out
from vidadapt.models.positions import sincos_table

SIZES: dict[str, dict[str, Any]] = {
    "vit_tiny": {"width": 192, "depth": 6, "num_heads": 3},
    "vit_small": {"width": 384, "depth": 12, "num_heads": 6},
    "vit_base": {"width": 768, "depth": 12, "num_heads": 12},
    "vit_large": {"width": 1024, "depth": 24, "num_heads": 16},
    "vit_huge": {"width": 1280, "depth": 32, "num_heads": 16},
    "vit_giant": {
        "width": 1408,
        "depth": 40,
        "num_heads": 16,
        "mlp_ratio": 48 / 11,
        "patch_size": 14,
    },
}


class PatchEmbed(nn.Module):
    """Clip (B, 3, T, H, W) to tokens (B, t * h * w, D), time-major; one token per tubelet.

    `proj` holds the weights in the checkpoints' layout and is not called: its kernel equals its
    stride, so one matrix product does the same, 1.1 to 1.7 times as fast in float32 and 6 to 11
    times in bf16 (forward and backward, one core, ViT-B at 224 px and ViT-tiny at 64 px).
    """

    def __init__(
        self, tubelet_size: int, patch_size: int, width: int, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.tubelet = (tubelet_size, patch_size, patch_size)
        self.proj = nn.Conv3d(3, width, kernel_size=self.tubelet, stride=self.tubelet, bias=bias)

    def forward(self, clip: Tensor) -> Tensor:
        pt, ph, pw = self.tubelet
        layout = "b c (t pt) (h ph) (w pw) -> b (t h w) (c pt ph pw)"
        pixels = rearrange(clip, layout, pt=pt, ph=ph, pw=pw)
        return F.linear(pixels, self.proj.weight.flatten(1), self.proj.bias)


class Attention(nn.Module):
    """Multi-head self-attention over tokens (B, N, D) with query and value biases only."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = QkvLinear(width)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = self.qkv(x, bias)
        q, k, v = split_heads(qkv, self.num_heads)
        return self.proj(rearrange(attention(q, k, v), "b h n d -> b n (h d)"))


def vit_block(width: int, num_heads: int, mlp_ratio: float, drop_path: float) -> Block:
    """A block of the ViT: attention, then timm's MLP (exact GELU, no dropout)."""
    return Block(
        norm1=nn.LayerNorm(width, eps=NORM_EPS),
        attn=Attention(width, num_heads),
        drop_path1=DropPath(drop_path) if drop_path > 0 else None,
        norm2=nn.LayerNorm(width, eps=NORM_EPS),
        mlp=Mlp(width, round(width * mlp_ratio)),
        drop_path2=DropPath(drop_path) if drop_path > 0 else None,
    )


class VideoViT(VideoModel):
    """A ViT over the tubelets of a clip.

    Args:
        num_frames: T.
        crop_size: S, pixels.
        tubelet_size: frames of one token.
        patch_size: side of one token in pixels.
        width: D.
        depth: number of blocks.
        num_heads: attention heads; must divide `width`.
        mlp_ratio: hidden width of the MLP over `width`.
        drop_path: stochastic depth rate of the last block, rising linearly from 0.
        num_classes: K. The head is `heads.linear`; `build` sets another one.

    Attributes: those of `VideoModel`, and
        pos_embed: (t * h * w, D) buffer, fixed, absent from the state dict.
        norm: None; the last norm of a classifier that reads its first token instead of the mean,
            see `read_first_token`.

    Raises:
        ValueError: sizes that do not divide, or fewer than one class.
    """

    pos_embed: Tensor
    time_embed = None

    def __init__(
        self,
        *,
        num_frames: int,
        crop_size: int,
        tubelet_size: int = 2,
        patch_size: int = 16,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        num_classes: int,
    ) -> None:
        super().__init__()
        require_divides("num_frames", num_frames, "tubelet_size", tubelet_size)
        require_divides("crop_size", crop_size, "patch_size", patch_size)
        require_divides("width", width, "num_heads", num_heads)
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}; a model needs at least 1 class")
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path is {drop_path}; it is a probability below 1")
        side = crop_size // patch_size
        self.grid = (num_frames // tubelet_size, side, side)
        self.clip_shape = (3, num_frames, crop_size, crop_size)
        self.width, self.depth = width, depth
        self.patch_embed = PatchEmbed(tubelet_size, patch_size, width)
        table = sincos_table(self.grid[0] * self.grid[1] * self.grid[2], width)
        self.register_buffer("pos_embed", table, persistent=False)
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(vit_block(width, num_heads, mlp_ratio, rate) for rate in rates)
        self.fc_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.norm: nn.Module | None = None
        self.apply(_init_linear)
        self.head = linear(width, num_classes)
        self.name = "tubelet ViT"

    def slots(self) -> list[Slot]:
        return [Slot(self.blocks, index, self.width) for index in range(len(self.blocks))]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that do not decay: none, as positions are fixed."""
        return set()

    def embed(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, S, S) to the tokens (B, N, D) that enter the first block."""
        require_clip(clip, self.clip_shape)
        return self.patch_embed(clip) + self.pos_embed

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, S, S) to the tokens (B, N, D) that leave the last block."""
        return self.forward_from(self.embed(clip), 0)

    def forward_from(self, x: Tensor, first: int) -> Tensor:
        for slot in self.slots()[first:]:
            x = slot.block(x)
        return x

    def forward_head(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, D) to logits (B, K), see `heads.read_out`."""
        if self.norm is not None:
            tokens = self.norm(tokens[:, :1])
        return read_out(tokens, self.fc_norm, self.head)

    def read_first_token(self) -> None:
        """Read out as VideoMAE's classifiers do without mean pooling: norm, first token, head."""
        self.norm, self.fc_norm = self.fc_norm, nn.Identity()


def _init_linear(module: nn.Module) -> None:
    """Xavier, as in VideoMAE's pre-training, for a model trained from scratch.

    Its fine-tuning code draws with a fixed deviation of 0.02, meant for wide models whose weights
    are loaded.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
