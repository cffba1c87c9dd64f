"""SSF: a trainable scale and shift of every channel after each operation of a frozen backbone.

Paper: Lian et al., "Scaling & Shifting Your Features: A New Baseline for Efficient Model Tuning",
NeurIPS 2022, arXiv 2210.08823, Eq. 3: y = gamma * x + beta. Reference implementation:
dongzelian/SSF.

Differs from it in: it starts as the identity (there: gamma from N(1, 0.02), beta from N(0, 0.02);
`init="released"` does that); `fc_norm` is trained itself, as with every method here, so it gets no
scale and shift; a part that the backbone could not hold after merging is left out: a linear layer
without a bias gets no shift (nor does qkv with biases for queries and values only, unless the
softmax cancels the keys' shift), a norm without weights gets nothing.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vidadapt.methods import folding
from vidadapt.methods.placing import Place, places
from vidadapt.models import PatchEmbed, QkvLinear, VideoModel


class ScaleShift(nn.Module):
    """gamma * x + beta over the channels of (..., C), or of (B, C, ...) after a convolution.

    Parameters: 2 C, or C without a shift.
    """

    def __init__(
        self,
        channels: int,
        *,
        has_shift: bool,
        channels_first: bool,
        init: Literal["identity", "released"],
    ) -> None:
        super().__init__()
        self.channels_first = channels_first
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels)) if has_shift else None
        if init == "released":
            nn.init.normal_(self.scale, mean=1.0, std=0.02)
            if self.shift is not None:
                nn.init.normal_(self.shift, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        shape = [1, -1] + [1] * (x.ndim - 2) if self.channels_first else [-1]
        # Under autocast x may be in half precision, in which a scale near 1 has no small steps.
        y = x * self.scale.view(shape)
        y = y if self.shift is None else y + self.shift.view(shape)
        return y.to(x.dtype)

    def fold(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The affine map (weight (C, ...), bias (C,)), float64, followed by this one."""
        scale = self.scale.detach().double()
        weight, bias = scale.view(-1, *[1] * (weight.ndim - 1)) * weight, scale * bias
        return weight, bias if self.shift is None else bias + self.shift.detach().double()


class SSF(nn.Module):
    """delta(frozen(x)); a bias that the caller passes goes to the frozen layer."""

    def __init__(self, frozen: nn.Module, delta: ScaleShift) -> None:
        super().__init__()
        self.frozen = frozen
        self.delta = delta

    def forward(self, x: Tensor, *bias: Tensor) -> Tensor:
        return self.delta(self.frozen(x, *bias))


def inject(model: VideoModel, *, init: Literal["identity", "released"] = "identity") -> None:
    """Scale and shift the output of every operation of a frozen backbone.

    The operations are: the patch embedding, every norm outside `fc_norm` and the head, and every
    linear layer of the blocks (qkv, proj, fc1, fc2) and of what runs before them. On a
    tubelet ViT with MLP ratio 4 that is 2 D for the patch embedding and 22 D for each of L blocks,
    D (22 L + 2) parameters together: 204,288 on ViT-B. A scale keeps its input for the backward
    pass, so SSF needs more memory for activations than training all parameters: 5 D more per token
    and block.

    Args:
        model: any backbone; edited in place.
        init: `identity`: gamma 1, beta 0, so that the function is unchanged at the start;
            `released`: the normals of the release.
    """
    for place, channels, has_shift in _operations(model):
        frozen = place.module
        delta = ScaleShift(
            channels,
            has_shift=has_shift,
            channels_first=isinstance(frozen, nn.Conv2d | nn.Conv3d),
            init=init,
        )
        place.put(SSF(frozen, delta))


def _operations(model: VideoModel) -> list[tuple[Place, int, bool]]:
    """The operations to scale: place, channels, and whether it can hold a shift."""
    found: list[tuple[Place, int, bool]] = []
    for slot in model.slots():
        linears = places(slot.block, nn.Linear)
        if slot.before is not None:
            linears += places(slot.before, nn.Linear)
        for place in linears:
            linear = place.module
            assert isinstance(linear, nn.Linear)
            if isinstance(linear, QkvLinear):
                has_shift = folding.holds_qkv_bias(place.parent)
            else:
                has_shift = linear.bias is not None
            found.append((place, linear.out_features, has_shift))
    readout = {*model.fc_norm.modules(), *model.head.modules()}
    for place in places(model, (nn.LayerNorm, nn.RMSNorm)):
        norm = place.module
        assert isinstance(norm, nn.LayerNorm | nn.RMSNorm)
        if norm not in readout and norm.weight is not None:
            has_shift = isinstance(norm, nn.LayerNorm) and norm.bias is not None
            found.append((place, norm.weight.numel(), has_shift))
    for place in _patch_projections(model):
        conv = _convolution(place.module)
        found.append((place, conv.out_channels, conv.bias is not None))
    return found


def _patch_projections(model: VideoModel) -> list[Place]:
    """Our patch embedding, which does not call its convolution; else the convolution."""
    in_blocks = {module for slot in model.slots() for module in slot.block.modules()}
    found = places(model, PatchEmbed) or places(model, (nn.Conv2d, nn.Conv3d))
    return [place for place in found if place.module not in in_blocks]


def _convolution(module: nn.Module) -> nn.Conv2d | nn.Conv3d:
    conv = module.proj if isinstance(module, PatchEmbed) else module
    assert isinstance(conv, nn.Conv2d | nn.Conv3d)
    return conv


def merge(model: VideoModel) -> None:
    """Fold every scale and shift into the operation before it, and remove the wrappers.

    Exact up to one rounding: gamma * (W x + b) + beta has the weight diag(gamma) W and the bias
    gamma * b + beta, for linear layers, for the affine part of a LayerNorm and for the patch
    embedding alike. The tubelet ViT has no place for the shift of the keys, and needs none: it adds
    q_i . beta to all scores of query i, and the softmax cancels what is equal for all keys. Every
    other shift has a place, as `inject` adds none without.
    """
    for place in places(model, SSF):
        wrapper = place.module
        assert isinstance(wrapper, SSF)
        frozen, delta = wrapper.frozen, wrapper.delta
        place.put(frozen)
        if isinstance(frozen, QkvLinear):
            folding.write_qkv(place.parent, *delta.fold(*folding.read_qkv(place.parent)))
        elif isinstance(frozen, nn.Linear):
            folding.write_linear(frozen, *delta.fold(*folding.read_linear(frozen)))
        else:
            norms = nn.LayerNorm | nn.RMSNorm
            _write(frozen if isinstance(frozen, norms) else _convolution(frozen), delta)


@torch.no_grad()
def _write(layer: nn.LayerNorm | nn.RMSNorm | nn.Conv2d | nn.Conv3d, delta: ScaleShift) -> None:
    own = None if isinstance(layer, nn.RMSNorm) else layer.bias
    bias = layer.weight.new_zeros(len(layer.weight)) if own is None else own
    weight, bias = delta.fold(layer.weight.double(), bias.double())
    layer.weight.copy_(weight)
    if own is not None:
        own.copy_(bias)
