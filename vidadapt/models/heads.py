"""Heads: pooled features (B, D) become logits (B, K). All parameters of a head are trainable."""

from __future__ import annotations

from collections.abc import Callable

from timm.layers import trunc_normal_
from torch import nn


def linear(width: int, num_classes: int) -> nn.Module:
    """One linear layer, VideoMAE's initialisation: truncated normal 0.02, all times 0.001."""
    layer = nn.Linear(width, num_classes)
    trunc_normal_(layer.weight, std=0.02)
    layer.weight.data.mul_(0.001)
    nn.init.zeros_(layer.bias)
    return layer


def batchnorm_linear(width: int, num_classes: int) -> nn.Module:
    """Parameter-free BatchNorm, then linear, as AdaptFormer's release has for every method.

    Keys: `0.running_mean`, `0.running_var`, `0.num_batches_tracked`, `1.weight`, `1.bias`. In
    training the statistics are those of the local batch, which must hold at least two clips.
    """
    layer = nn.Linear(width, num_classes)
    trunc_normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.BatchNorm1d(width, affine=False, eps=1e-6), layer)


HEADS: dict[str, Callable[[int, int], nn.Module]] = {
    "linear": linear,
    "batchnorm_linear": batchnorm_linear,
}
