"""LoRA: a trainable product of two thin matrices beside chosen linear layers of each block.

Paper: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, arXiv
2106.09685, Eq. 3: h = W x + (alpha / r) B A x. Reference implementation: microsoft/LoRA.

Differs from it in: every chosen part of a joint qkv layer has its own A and B by name (there: one
grouped convolution); nothing is merged automatically when the model is put into eval mode.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vidadapt.methods.folding import read_linear, write_linear
from vidadapt.methods.placing import Place, chosen_slots, places, require_counts, require_rate
from vidadapt.models import VideoModel

QKV = ("q", "k", "v")

# Target -> part of the block, and the names that backbones give to the layer (gated MLPs have two
# first layers). q, k and v are parts of one layer.
TARGETS: dict[str, tuple[str, tuple[str, ...]]] = {
    **dict.fromkeys(QKV, ("attn", ("qkv",))),
    "proj": ("attn", ("proj",)),
    "fc1": ("mlp", ("fc1", "fc1_g", "fc1_x")),
    "fc2": ("mlp", ("fc2",)),
}

# A list: YAML and JSON would return a tuple as a list, which is not equal to the tuple.
QUERIES_AND_VALUES = ["q", "v"]


class LowRank(nn.Module):
    """(alpha / rank) * B A dropout(x): (..., in) -> (..., out). Parameters: rank * (in + out).

    A = `down.weight` (rank, in) starts as Kaiming uniform, B = `up.weight` (out, rank) at zero.
    """

    def __init__(
        self, in_features: int, out_features: int, *, rank: int, alpha: float, dropout: float
    ) -> None:
        super().__init__()
        self.down = nn.Linear(in_features, rank, bias=False)
        self.up = nn.Linear(rank, out_features, bias=False)
        self.scale = alpha / rank
        self.dropout = dropout
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.down(functional.dropout(x, self.dropout, self.training))
        return self.up(self.scale * hidden)

    def weight(self) -> Tensor:
        """The matrix (out, in), float64, that this adds to the frozen weight."""
        return self.scale * self.up.weight.detach().double() @ self.down.weight.detach().double()


class QkvLowRank(nn.Module):
    """Low-rank branches of some of q, k, v, zeros for the others: (..., D) -> (..., 3 D)."""

    def __init__(self, parts: dict[str, LowRank]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)

    def forward(self, x: Tensor) -> Tensor:
        found = {name: part(x) for name, part in self.parts.items()}
        zeros = torch.zeros_like(next(iter(found.values())))
        return torch.cat([found.get(name, zeros) for name in QKV], dim=-1)

    def weight(self) -> Tensor:
        """The matrix (3 D, D), float64, that this adds to the frozen weight."""
        found = {name: part.weight() for name, part in self.parts.items()}  # type: ignore[operator]
        zeros = torch.zeros_like(next(iter(found.values())))
        return torch.cat([found.get(name, zeros) for name in QKV])


class LoRALinear(nn.Module):
    """frozen(x) + delta(x); a bias that the caller passes goes to the frozen layer."""

    def __init__(self, frozen: nn.Linear, delta: LowRank | QkvLowRank) -> None:
        super().__init__()
        self.frozen = frozen
        self.delta = delta

    def forward(self, x: Tensor, *bias: Tensor) -> Tensor:
        return self.frozen(x, *bias) + self.delta(x)


def inject(
    model: VideoModel,
    *,
    rank: int = 8,
    alpha: float = 8.0,
    dropout: float = 0.0,
    targets: list[str] = QUERIES_AND_VALUES,
    layers: str | list[int] = "all",
) -> None:
    """Put low-rank branches beside the chosen linear layers of the chosen blocks.

    The function is unchanged at the start, as B is zero.

    Args:
        model: any backbone with the chosen layers; edited in place.
        rank: r of A (r, in) and B (out, r).
        alpha: the branch is multiplied by alpha / rank.
        dropout: on the branch's input.
        targets: any of q, k, v (queries, keys, values), proj (attention output), fc1, fc2 (MLP).
            Default as in the paper's experiments: queries and values.
        layers: see `placing.chosen_layers`.

    Raises:
        ValueError: an invalid option, by name; targets that this backbone does not have.
    """
    require_counts(rank=rank)
    require_rate(dropout)
    _check_targets(model, targets)

    def branch(in_features: int, out_features: int) -> LowRank:
        return LowRank(in_features, out_features, rank=rank, alpha=alpha, dropout=dropout)

    chosen_parts = [part for part in QKV if part in targets]
    wrappers: list[tuple[Place, LoRALinear]] = []
    for slot in chosen_slots(model, layers):
        for part, names in dict.fromkeys(TARGETS[target] for target in targets):
            found = [p for p in places(getattr(slot.block, part), nn.Linear) if p.name in names]
            if not found:
                raise ValueError(
                    f"method.targets: lora found no linear layer {names[0]} in the blocks of "
                    f"{model.name}; choose other targets"
                )
            for place in found:
                frozen = place.module
                assert isinstance(frozen, nn.Linear)
                inputs, outputs = frozen.in_features, frozen.out_features
                if names == ("qkv",):
                    parts = {name: branch(inputs, outputs // 3) for name in chosen_parts}
                    wrappers.append((place, LoRALinear(frozen, QkvLowRank(parts))))
                else:
                    wrappers.append((place, LoRALinear(frozen, branch(inputs, outputs))))
    for place, wrapper in wrappers:
        place.put(wrapper)


def _check_targets(model: VideoModel, targets: list[str]) -> None:
    if isinstance(targets, str) or not targets or not set(targets) <= set(TARGETS):
        raise ValueError(
            f"method.targets: expected a list of {', '.join(TARGETS)}, got {targets!r}"
        )
    if len(set(targets)) != len(targets):
        raise ValueError(f"method.targets: expected each name once, got {targets!r}")
    of_attention = [target for target in targets if TARGETS[target][0] == "attn"]
    if model.attention == "none" and of_attention:
        raise ValueError(
            f"method.targets: lora is not defined on {model.name}, which has no attention, for "
            f"{', '.join(of_attention)}; choose from fc1, fc2, or a ViT as model.backbone"
        )


def merge(model: VideoModel) -> None:
    """Fold the branches into their layers, W <- W + (alpha / r) B A, and remove the wrappers.

    Exact up to one rounding of the weights; biases are not touched.
    """
    for place in places(model, LoRALinear):
        wrapper = place.module
        assert isinstance(wrapper, LoRALinear)
        weight, bias = read_linear(wrapper.frozen)
        write_linear(wrapper.frozen, weight + wrapper.delta.weight(), bias)
        place.put(wrapper.frozen)
