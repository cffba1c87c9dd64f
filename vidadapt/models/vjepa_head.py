"""The attentive probe of V-JEPA 2 (Assran et al., 2025, https://arxiv.org/abs/2506.09985)."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import Attention, Mlp
from torch import Tensor, nn

from vidadapt.models.blocks import NORM_EPS, Block
from vidadapt.models.latent_pool import attended
from vidadapt.models.timm_attention import TokenAttention

DEPTH = 4
NUM_HEADS = 16  # of every published probe: on widths of 1,024 and more


def usual_heads(width: int) -> int:
    """Attention heads of a probe on features of this width.

    >>> usual_heads(1408), usual_heads(768)
    (16, 12)
    """
    return max(min(NUM_HEADS, width // 64), 1)


class CrossAttentionBlock(nn.Module):
    """A query (1, 1, D) attends to the norm of tokens (B, N, D): (B, D), with residual and MLP.

    The query is not normed, and what it attends to is not projected.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        x = query[0] + attended(self.norm1(tokens), self.q(query[0]), self.kv, self.num_heads)
        return x + self.mlp(self.norm2(x))


class VJepaHead(nn.Module):
    """Tokens (B, N, D) to logits (B, K): blocks of self-attention, one of cross-attention, linear.

    Parameters: 12 D^2 + 13 D for each of the `depth` - 1 blocks, 11 D^2 + 13 D for the last with
    its query, and (D + 1) K. Names are those of Meta's release, but for
    `q`, `kv` (there under `xattn.`) and `classifier` (there `linear`).

    Args:
        width: D.
        num_classes: K.
        depth: blocks, with that of cross-attention; 4 in V-JEPA 2, 1 in V-JEPA.
        num_heads: must divide D; default: 16, or D / 64 where that is less.

    Raises:
        ValueError: a depth below 1, or a width that is no multiple of the heads.
    """

    def __init__(
        self, width: int, num_classes: int, depth: int = DEPTH, num_heads: int | None = None
    ) -> None:
        super().__init__()
        num_heads = usual_heads(width) if num_heads is None else num_heads
        if depth < 1:
            raise ValueError(f"model.head_depth: expected 1 or more, got {depth}")
        if width % num_heads:
            raise ValueError(
                f"model.head: vjepa_attentive has {num_heads} heads, and the backbone's width "
                f"{width} is no multiple of them; choose attentive"
            )
        self.query_tokens = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(_block(width, num_heads) for _ in range(depth - 1))
        self.cross_attention_block = CrossAttentionBlock(width, num_heads)
        self.classifier = nn.Linear(width, num_classes)
        self._init_weights()

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        return self.classifier(self.cross_attention_block(self.query_tokens, tokens))

    def _init_weights(self) -> None:
        """Draw weights as V-JEPA 2's evaluation does."""
        nn.init.trunc_normal_(self.query_tokens, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        fc2: Any = self.cross_attention_block.mlp.fc2
        fc2.weight.data.div_((2 * max(len(self.blocks), 1)) ** 0.5)
        for number, block in enumerate(self.blocks, start=1):
            parts: Any = block
            for layer in (parts.attn.proj, parts.mlp.fc2):
                layer.weight.data.div_((2 * number) ** 0.5)


def _block(width: int, num_heads: int) -> Block:
    return Block(
        norm1=nn.LayerNorm(width, eps=NORM_EPS),
        attn=TokenAttention(Attention(width, num_heads, qkv_bias=True), None),
        norm2=nn.LayerNorm(width, eps=NORM_EPS),
        mlp=Mlp(width, 4 * width),
    )
