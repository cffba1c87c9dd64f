"""The tubelet ViT written out for one clip, token by token and in float64: slow, and independent.

Every function takes the frozen layers for their numbers only and calls none of them. Tokens are
lists of vectors (D,).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vidadapt.models.vit import VideoViT

Tokens = list[Tensor]


def tiny_vit() -> VideoViT:
    """3 blocks of width 12, 2 heads, 8 tokens; large random weights, float64."""
    torch.manual_seed(0)
    sizes = {"num_frames": 4, "crop_size": 32, "width": 12, "depth": 3, "num_heads": 2}
    model = VideoViT(**sizes, num_classes=5).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def one_clip() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 4, 32, 32, generator=generator, dtype=torch.float64)


def embed(model: VideoViT, clip: Tensor) -> Tokens:
    weight, bias = model.patch_embed.proj.weight, model.patch_embed.proj.bias
    width = len(bias)
    tokens: Tokens = []
    for t in range(0, 4, 2):
        for y in range(0, 32, 16):
            for x in range(0, 32, 16):
                tubelet = clip[:, t : t + 2, y : y + 16, x : x + 16]
                values = [(weight[j] * tubelet).sum() + bias[j] for j in range(width)]
                angles = [len(tokens) / 10000 ** (2 * (j // 2) / width) for j in range(width)]
                places = [math.cos(a) if j % 2 else math.sin(a) for j, a in enumerate(angles)]
                # The model keeps its table in float32.
                tokens.append(torch.stack(values) + torch.tensor(places).float().double())
    return tokens


def norm(layer, token: Tensor) -> Tensor:
    mean = sum(token) / len(token)
    variance = sum((value - mean) ** 2 for value in token) / len(token)
    return (token - mean) / torch.sqrt(variance + 1e-6) * layer.weight + layer.bias


def attention(attn, tokens: Tokens) -> Tokens:
    width = len(tokens[0])
    size = width // attn.num_heads
    w_q, w_k, w_v = (attn.qkv.weight[i * width : (i + 1) * width] for i in range(3))
    out = []
    for query_token in tokens:
        joined = []
        for head in range(attn.num_heads):
            rows = slice(head * size, (head + 1) * size)
            query = w_q[rows] @ query_token + attn.q_bias[rows]
            scores = [query @ (w_k[rows] @ token) / math.sqrt(size) for token in tokens]
            shares = [torch.exp(score) for score in scores]
            values = [w_v[rows] @ token + attn.v_bias[rows] for token in tokens]
            joined.append(sum(s * v for s, v in zip(shares, values, strict=True)) / sum(shares))
        out.append(attn.proj.weight @ torch.cat(joined) + attn.proj.bias)
    return out


def mlp(layer, token: Tensor) -> Tensor:
    hidden = layer.fc1.weight @ token + layer.fc1.bias
    gelu = torch.stack([h * (1 + math.erf(h / math.sqrt(2))) / 2 for h in hidden])
    return layer.fc2.weight @ gelu + layer.fc2.bias


def block(
    layer,
    tokens: Tokens,
    *,
    before_attention: Callable[[Tensor], Tensor] = lambda token: token,
    before_mlp: Callable[[Tensor], Tensor] = lambda token: token,
) -> Tokens:
    """A block; the functions change each token behind the norms."""
    normed = [before_attention(norm(layer.norm1, token)) for token in tokens]
    mixed = attention(layer.attn, normed)
    tokens = [token + change for token, change in zip(tokens, mixed, strict=True)]
    return [token + mlp(layer.mlp, before_mlp(norm(layer.norm2, token))) for token in tokens]


def read_out(model: VideoViT, tokens: Tokens) -> Tensor:
    pooled = norm(model.fc_norm, sum(tokens) / len(tokens))
    return model.head.weight @ pooled + model.head.bias
