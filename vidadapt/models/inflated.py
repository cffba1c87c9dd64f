"""An image ViT inflated to video: tubelets, joint space-time attention, temporal positions.

Inflation as in Arnab et al., "ViViT: A Video Vision Transformer", ICCV 2021, arXiv 2103.15691,
section 3.4. Differs from it in: spatial positions are not copied to every time but added there (the
same sum), and temporal positions are a parameter of their own that starts at zero.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import repeat
from timm.layers import PatchEmbed as ImagePatchEmbed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vidadapt.models.backbone import VideoModel
from vidadapt.models.blocks import NORM_EPS, Slot
from vidadapt.models.clip_shape import require_clip, require_divides
from vidadapt.models.heads import linear, read_out
from vidadapt.models.image import attention_kind, edit_blocks, rotary_embedding
from vidadapt.models.vit import PatchEmbed


def inflate(weight: Tensor, frames: int, how: str) -> Tensor:
    """Kernel (D, C, p, p) of one image to that of `frames` frames: (D, C, frames, p, p).

    On a tubelet of equal frames the result equals the image's: with `average` every slice is
    weight / frames; with `centre` slice frames // 2 is the weight and the others are zero.

    >>> inflate(torch.full((1, 1, 1, 1), 6.0), 3, "average").flatten().tolist()
    [2.0, 2.0, 2.0]
    >>> inflate(torch.full((1, 1, 1, 1), 6.0), 3, "centre").flatten().tolist()
    [0.0, 6.0, 0.0]
    """
    if how == "average":
        return repeat(weight / frames, "d c h w -> d c t h w", t=frames).contiguous()
    inflated = weight.new_zeros(*weight.shape[:2], frames, *weight.shape[2:])
    inflated[:, :, frames // 2] = weight
    return inflated


class TimeEmbedding(nn.Module):
    """Adds weight[i], one learned row per time, to all tokens (rows, t * h * w, D) of time i."""

    def __init__(self, times: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(times, width))

    def forward(self, x: Tensor) -> Tensor:
        return (x.unflatten(1, (len(self.weight), -1)) + self.weight[:, None]).flatten(1, 2)


class InflatedViT(VideoModel):
    """An image ViT over the tubelets of a clip.

    Use of the image model's parts: its patch embedding is inflated to tubelets; its spatial
    positions are added at every time and its rotary embedding is repeated over time; `time_embed`
    starts at zero; its class token and registers are put once before all tokens of the clip, take
    part in every block, and are not pooled: the mean is over the tubelets. Its final norm is
    applied before the pool; a norm that it applies after the pool becomes `fc_norm`, else that is
    new. Its attention pool and classifier are left out. With `time_embed` zero, one frame repeated
    over one tubelet gives the image model's features.

    Args:
        image: timm's `VisionTransformer` or `Eva`, as a rule with loaded weights; its parts are
            taken over, not copied.
        num_frames: T.
        crop_size: S, pixels; the image model's.
        tubelet_size: frames of one token.
        inflation: see `inflate`.
        num_classes: K. The head is `heads.linear`; `build` sets another one.

    Attributes: those of `VideoModel`, and
        time_embed: `TimeEmbedding` (t, D). It is trained where the backward pass reaches the first
            block anyway, see `methods.apply`.

    Raises:
        ValueError: a model with windows, without attention or with another patch embedding; T not
            a multiple of the tubelet.
    """

    time_embed: nn.Module

    def __init__(
        self,
        image: Any,
        *,
        num_frames: int,
        crop_size: int,
        tubelet_size: int = 2,
        inflation: str = "average",
        num_classes: int,
        name: str = "inflated ViT",
    ) -> None:
        super().__init__()
        _require_inflatable(image, name)
        require_divides("num_frames", num_frames, "tubelet_size", tubelet_size)
        self.name = name
        height, width = image.patch_embed.grid_size
        self.grid = (num_frames // tubelet_size, height, width)
        self.clip_shape = (3, num_frames, crop_size, crop_size)
        self.width, self.depth = image.embed_dim, len(image.blocks)
        prefix = ("cls_token", "dist_token", "reg_token")
        self.prefix = tuple(n for n in prefix if getattr(image, n, None) is not None)
        for token in self.prefix:  # each (1, count, D)
            self.register_parameter(token, getattr(image, token))
        self.num_prefix_tokens = image.num_prefix_tokens
        # (1, h * w, D), or with rows for the prefix tokens in front.
        self.pos_embed = image.pos_embed
        self.prefix_has_positions = not image.no_embed_class
        self.patch_embed = _inflated(image.patch_embed, tubelet_size, inflation)
        self.time_embed = TimeEmbedding(self.grid[0], self.width)
        self.norm_pre = image.norm_pre
        rotary = rotary_embedding(image, name)
        if rotary is not None:
            rotary = repeat(rotary, "n d -> (t n) d", t=self.grid[0])
        self.blocks = nn.ModuleList(edit_blocks(image.blocks, rotary))
        self.norm = image.norm
        own_norm = isinstance(image.fc_norm, nn.Identity)
        self.fc_norm = nn.LayerNorm(self.width, eps=NORM_EPS) if own_norm else image.fc_norm
        self.head = linear(self.width, num_classes)

    def slots(self) -> list[Slot]:
        return [Slot(self.blocks, index, self.width) for index in range(len(self.blocks))]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that do not decay: prefix tokens and positions, as in timm."""
        return {*self.prefix, "pos_embed", "time_embed.weight"}

    def embed(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, S, S) to the tokens (B, P + N, D) that enter the first block."""
        require_clip(clip, self.clip_shape)
        prefix = [getattr(self, name) for name in self.prefix]
        patches = self.patch_embed(clip)
        if self.pos_embed is not None:
            count = self.num_prefix_tokens if self.prefix_has_positions else 0
            places = self.pos_embed[:, count:]
            if prefix and count:
                prefix = [torch.cat(prefix, dim=1) + self.pos_embed[:, :count]]
            patches = patches + repeat(places, "1 n d -> 1 (t n) d", t=self.grid[0])
        patches = self.time_embed(patches)
        rows = [token.expand(patches.shape[0], -1, -1) for token in prefix]
        return self.norm_pre(torch.cat([*rows, patches], dim=1))

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, S, S) to all tokens (B, P + N, D) after the last block and norm."""
        return self.forward_from(self.embed(clip), 0)

    def forward_from(self, x: Tensor, first: int) -> Tensor:
        for slot in self.slots()[first:]:
            x = slot.block(x)
        return self.norm(x)

    def forward_head(self, tokens: Tensor) -> Tensor:
        """Tokens (B, P + N, D) to logits (B, K): those of the tubelets, see `heads.read_out`."""
        return read_out(tokens[:, self.num_prefix_tokens :], self.fc_norm, self.head)


def _require_inflatable(image: Any, name: str) -> None:
    if not isinstance(image, VisionTransformer | Eva):
        why = {"window": "attends within windows", "none": "has no attention"}
        raise ValueError(
            f"model.from_image: inflate is not defined on {name}, which "
            f"{why[attention_kind(image, name)]}; use model.from_image: frames"
        )
    if type(image.patch_embed) is not ImagePatchEmbed or not isinstance(
        image.patch_embed.norm, nn.Identity
    ):
        raise ValueError(
            f"model.from_image: inflate needs a patch embedding that is one convolution, and "
            f"{name} has {type(image.patch_embed).__name__}; use model.from_image: frames"
        )


def _inflated(image: Any, tubelet_size: int, how: str) -> PatchEmbed:
    """timm's `PatchEmbed` of an image, inflated to tubelets."""
    conv = image.proj
    embed = PatchEmbed(
        tubelet_size, conv.kernel_size[0], conv.out_channels, bias=conv.bias is not None
    )
    embed.proj.weight = nn.Parameter(inflate(conv.weight.detach(), tubelet_size, how))
    embed.proj.bias = conv.bias
    return embed
