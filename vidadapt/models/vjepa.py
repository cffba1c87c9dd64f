"""V-JEPA 2 and 2.1: tubelet ViTs that rotate queries and keys by their place in time and space.

V-JEPA 2: Assran et al., 2025, https://arxiv.org/abs/2506.09985. There is no class token and no
table of positions, so any number of frames and any crop of whole patches have their places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from einops import rearrange
from timm.layers import Attention
from torch import Tensor, nn

from vidadapt.models.backbone import VideoModel
from vidadapt.models.blocks import NORM_EPS, Slot
from vidadapt.models.clip_shape import require_clip, require_divides
from vidadapt.models.encoder import drop_path_rates, encoder_block
from vidadapt.models.heads import linear, read_out
from vidadapt.models.positions import Grid
from vidadapt.models.timm_attention import TokenAttention
from vidadapt.models.vit import PatchEmbed

Version = Literal["2", "2.1"]

LARGE = {"width": 1024, "depth": 24, "num_heads": 16}
GIANT = {"width": 1408, "depth": 40, "num_heads": 22, "mlp_ratio": 48 / 11}
VJEPA_SIZES: dict[str, Mapping[str, Any]] = {
    "vjepa2_tiny": {"width": 192, "depth": 6, "num_heads": 3},  # not published; for trials
    "vjepa2_large": LARGE,
    "vjepa2_huge": {"width": 1280, "depth": 32, "num_heads": 16},
    "vjepa2_giant": GIANT,
    "vjepa2_1_base": {"width": 768, "depth": 12, "num_heads": 12, "version": "2.1"},
    "vjepa2_1_large": {**LARGE, "version": "2.1"},
    "vjepa2_1_giant": {**GIANT, "version": "2.1"},
    "vjepa2_1_gigantic": {
        "width": 1664,
        "depth": 48,
        "num_heads": 26,
        "mlp_ratio": 64 / 13,
        "version": "2.1",
    },
}

# Of V-JEPA 2.1's pre-training: 256 pixels in patches of 16. Rows and columns of other grids are
# stretched to it.
ROWS_OF_2_1 = 16


def rotary_table(grid: Grid, head_width: int, version: Version) -> Tensor:
    """Sines, then cosines (t * h * w, 2 * head_width), float64, for `TokenAttention`.

    The channels of a head are three parts of d = 2 * (head_width // 3 // 2): for the token's time,
    row and column; what is left is not rotated. Frequency i of a part is 10000^(-2 i / d). V-JEPA 2
    gives channel c of a part frequency c mod d / 2 (so that the two channels of a pair turn by
    different angles), 2.1 gives both channels of pair i frequency i.

    >>> rotary_table((1, 2, 1), 6, "2")[1].tolist()[2:4] == [torch.tensor(1.0).double().sin()] * 2
    True
    """
    part = 2 * (head_width // 3 // 2)
    frequencies = 10000.0 ** (-torch.arange(part // 2, dtype=torch.float64) / (part / 2))
    t, h, w = (torch.arange(size, dtype=torch.float64) for size in grid)
    if version == "2.1":
        h, w = (places * (ROWS_OF_2_1 - 1) / (len(places) - 1) for places in (h, w))
        frequencies = frequencies.repeat_interleave(2)
    else:
        frequencies = frequencies.repeat(2)
    places = torch.cartesian_prod(t, h, w)
    angles = rearrange(places[..., None] * frequencies, "n places d -> n (places d)")
    angles = nn.functional.pad(angles, (0, head_width - angles.shape[1]))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class VJepaViT(VideoModel):
    """V-JEPA's encoder over the tubelets of a clip, with a read-out.

    The names of its parameters are Meta's, but for `video_embed` and `norm` of version 2.1
    (`video_mod_embed` and the last of `norms_block`).

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
        segments: runs of T / segments frames that are encoded each for itself; their tokens are
            read out together, one after the other.
        version: of V-JEPA.
        num_classes: K. The head is `heads.linear`; `build` sets another one.

    Attributes: those of `VideoModel`, of which `grid` is that of a segment, and
        segments: see above; they are rows of a block's batch.
        norm: after the last block.
        video_embed: (1, 1, D), added to all tokens of a video; None in version 2.

    Raises:
        ValueError: sizes that do not divide, fewer than one class, or a crop of one patch for
            version 2.1, which stretches the grid.
    """

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
        segments: int = 1,
        version: Version = "2",
        num_classes: int,
    ) -> None:
        super().__init__()
        require_divides(
            "num_frames", num_frames, "segments x tubelet_size", segments * tubelet_size
        )
        require_divides("crop_size", crop_size, "patch_size", patch_size)
        require_divides("width", width, "num_heads", num_heads)
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}; a model needs at least 1 class")
        side = crop_size // patch_size
        if version == "2.1" and side < 2:
            raise ValueError(
                f"crop_size: {crop_size} is one patch, and V-JEPA 2.1 places patches between the "
                f"first and the last; give {2 * patch_size} or more"
            )
        self.name = f"V-JEPA {version}"
        self.segments = segments
        self.grid = (num_frames // segments // tubelet_size, side, side)
        self.clip_shape = (3, num_frames, crop_size, crop_size)
        self.width, self.depth = width, depth
        self.patch_embed = PatchEmbed(tubelet_size, patch_size, width)
        embed = nn.Parameter(torch.zeros(1, 1, width)) if version == "2.1" else None
        self.register_parameter("video_embed", embed)
        rotary = rotary_table(self.grid, width // num_heads, version)
        rotary = rotary.to(torch.get_default_dtype())
        self.blocks = nn.ModuleList(
            encoder_block(
                TokenAttention(Attention(width, num_heads, qkv_bias=True), rotary),
                *(width, mlp_ratio, rate),
            )
            for rate in drop_path_rates(drop_path, depth)
        )
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.fc_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self._init_weights()
        self.head = linear(width, num_classes)

    def slots(self) -> list[Slot]:
        return [Slot(self.blocks, index, self.width) for index in range(len(self.blocks))]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that do not decay: `video_embed`, which is a kind of position."""
        return set() if self.video_embed is None else {"video_embed"}

    def embed(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, S, S) to the tokens (B * segments, N, D) that enter the first block."""
        require_clip(clip, self.clip_shape)
        layout = "b c (segments t) h w -> (b segments) c t h w"
        tokens = self.patch_embed(rearrange(clip, layout, segments=self.segments))
        return tokens if self.video_embed is None else tokens + self.video_embed

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, S, S) to the tokens (B, segments * N, D) after the last block and norm."""
        return self.forward_from(self.embed(clip), 0)

    def forward_from(self, x: Tensor, first: int) -> Tensor:
        for slot in self.slots()[first:]:
            x = slot.block(x)
        return rearrange(
            self.norm(x), "(b segments) n d -> b (segments n) d", segments=self.segments
        )

    def forward_head(self, tokens: Tensor) -> Tensor:
        """Tokens (B, segments * N, D) to logits (B, K), see `heads.read_out`."""
        return read_out(tokens, self.fc_norm, self.head)

    def _init_weights(self) -> None:
        """Draw weights as the pre-training began with them, for a model trained from scratch."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv3d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for number, slot in enumerate(self.slots(), start=1):
            block: Any = slot.block
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.data.div_((2 * number) ** 0.5)
