"""Token mixing of timm's image models as modules that are called with tokens alone.

timm's EVA blocks pass a rotary embedding to their attention, its Swin blocks shift and cut the
windows around it, and its Mixer blocks transpose. Here each is one module, called as attn(x), with
`qkv` and `proj` where methods look for them. The arithmetic is timm's; global attention uses our
`attention`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidadapt.models.attention import QkvLinear, attention, split_heads
from vidadapt.models.rotation import rotated


class TokenAttention(nn.Module):
    """Attention of a ViT, EVA or DINOv3 block over tokens (rows, N, D), rotation included.

    Queries and keys of the last len(rotary) tokens are rotated; those before them (class token,
    registers, prompts) are not. Separate projections to queries, keys and values are joined into
    one `qkv`. Where timm has `q_bias` and `v_bias` and no key bias, this module has, too, and
    `qkv` is a `QkvLinear`; else `qkv` is a linear layer with its own bias or none.

    Args:
        attn: timm's `Attention`, `EvaAttention` or `AttentionRope`; its parts are taken over, not
            copied.
        rotary: (tokens, 2 * D / heads) sines and cosines; None: no rotation.

    Raises:
        ValueError: fewer heads of keys than of queries.
    """

    rotary: Tensor | None

    def __init__(self, attn: Any, rotary: Tensor | None) -> None:
        super().__init__()
        if getattr(attn, "num_kv_groups", 1) != 1:
            raise ValueError(
                "model.backbone: grouped-query attention (fewer key heads than query heads) has "
                "no joint qkv projection, which methods edit; choose another backbone"
            )
        self.num_heads = attn.num_heads
        self.rotate_half = bool(getattr(attn, "rotate_half", False))
        self.q_bias, self.v_bias = None, None
        joined = _joined_qkv(attn) if attn.qkv is None else attn.qkv
        if getattr(attn, "q_bias", None) is not None:
            self.q_bias, self.v_bias = attn.q_bias, attn.v_bias
        elif attn.qkv is None and attn.q_proj.bias is not None and attn.k_proj.bias is None:
            self.q_bias, self.v_bias = attn.q_proj.bias, attn.v_proj.bias
        self.qkv = joined if self.q_bias is None else _without_bias(joined)
        self.q_norm, self.k_norm = attn.q_norm, attn.k_norm
        self.norm, self.gate = attn.norm, attn.gate
        self.proj = attn.proj
        self.register_buffer("rotary", rotary, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.q_bias is None or self.v_bias is None:
            qkv = self.qkv(x)
        else:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
            qkv = self.qkv(x, bias)
        q, k, v = split_heads(qkv, self.num_heads)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rotary is not None:
            q, k = self._rotated(q, self.rotary), self._rotated(k, self.rotary)
        out = self.norm(rearrange(self._attended(q, k, v), "b h n d -> b n (h d)"))
        if self.gate is not None:
            out = out * self.gate(x).sigmoid()
        return self.proj(out)

    def _attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Weighted means of v (rows, heads, N, D / heads)."""
        return attention(q, k, v)

    def _rotated(self, x: Tensor, rotary: Tensor) -> Tensor:
        """Queries or keys (rows, heads, N, D / heads), the last len(rotary) rotated."""
        first = x.shape[2] - len(rotary)
        if first == 0:
            return rotated(x, rotary, self.rotate_half)
        turned = rotated(x[:, :, first:], rotary, self.rotate_half)
        return torch.cat([x[:, :, :first], turned], dim=2)


def _joined_qkv(attn: Any) -> nn.Linear:
    parts = (attn.q_proj, attn.k_proj, attn.v_proj)
    bias = parts[1].bias is not None
    weight = torch.cat([part.weight.detach() for part in parts])
    joined = _linear(weight, bias)
    if bias:
        joined.bias = nn.Parameter(torch.cat([part.bias.detach() for part in parts]))
    return joined


def _linear(weight: Tensor, bias: bool) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias, device="meta")
    layer.weight = nn.Parameter(weight)
    return layer


def _without_bias(linear: nn.Linear) -> QkvLinear:
    with torch.device("meta"):
        layer = QkvLinear(linear.in_features)
    layer.out_features = linear.out_features
    layer.weight = linear.weight
    return layer


class ShiftedWindowAttention(nn.Module):
    """Swin's attention on a map (rows, H, W, D): shift, cut into windows, attend, put together.

    The map is padded with zeros to whole windows, as in timm, and then cropped.

    Args:
        block: timm's `SwinTransformerBlock`; the parts of its attention are taken over.
    """

    relative_position_index: Tensor
    mask: Tensor | None

    def __init__(self, block: Any) -> None:
        super().__init__()
        attn = block.attn
        self.window, self.shift = tuple(block.window_size), tuple(block.shift_size)
        self.num_heads, self.scale = attn.num_heads, attn.scale
        self.relative_position_bias_table = attn.relative_position_bias_table
        index, table = attn.relative_position_index, attn.relative_position_bias_table
        mask = block.get_attn_mask(device=table.device, dtype=table.dtype)
        self.register_buffer("relative_position_index", index, persistent=False)
        self.register_buffer("mask", mask, persistent=False)
        self.qkv, self.proj = attn.qkv, attn.proj

    def forward(self, x: Tensor) -> Tensor:
        (height, width), (wh, ww) = x.shape[1:3], self.window
        shifts = self.shift
        x = torch.roll(x, shifts=(-shifts[0], -shifts[1]), dims=(1, 2))
        x = F.pad(x, (0, 0, 0, -width % ww, 0, -height % wh))
        rows, h = x.shape[0], x.shape[1] // wh
        windows = rearrange(x, "b (h wh) (w ww) d -> (b h w) (wh ww) d", wh=wh, ww=ww)
        layout = "(b h w) (wh ww) d -> b (h wh) (w ww) d"
        x = rearrange(self._attend(windows), layout, b=rows, h=h, wh=wh)
        return torch.roll(x[:, :height, :width], shifts=shifts, dims=(1, 2))

    def _attend(self, x: Tensor) -> Tensor:
        """Attend in windows (rows * windows, wh * ww, D)."""
        q, k, v = split_heads(self.qkv(x), self.num_heads)
        scores = (q * self.scale) @ k.transpose(-2, -1)
        scores = scores + self.relative_position_bias_table[self.relative_position_index].permute(
            2, 0, 1
        )
        if self.mask is not None:
            # Windows of one map follow each other; each has its own mask.
            per_map = scores.unflatten(0, (-1, len(self.mask))) + self.mask[:, None]
            scores = per_map.flatten(0, 1)
        return self.proj(rearrange(scores.softmax(dim=-1) @ v, "b h n d -> b n (h d)"))


class TokenMixing(nn.Module):
    """Mixing of tokens (rows, N, D) in a Mixer block: one map over N for all channels."""

    def __init__(self, over_tokens: nn.Module) -> None:
        super().__init__()
        self.over_tokens = over_tokens

    def forward(self, x: Tensor) -> Tensor:
        return self.over_tokens(x.transpose(1, 2)).transpose(1, 2)
