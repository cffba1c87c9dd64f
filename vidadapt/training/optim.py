"""Parameter groups, optimisers, the learning-rate schedule and the average of weights."""

from __future__ import annotations

import math

import torch
from torch import nn

from vidadapt.config import ConfigError, TrainConfig


def effective_lr(base_lr: float, global_batch: int) -> float:
    """Scale the learning rate linearly: `base_lr` is for a global batch of 256 clips.

    >>> effective_lr(0.1, 1024)
    0.4
    """
    return base_lr * global_batch / 256


def lr_at(
    step: int, *, total_steps: int, warmup_steps: int, peak: float, minimum: float = 0.0
) -> float:
    """Return the rate at an optimiser step: linear warm-up from 0, half cosine down to `minimum`.

    AdaptFormer's schedule (per iteration with fractional epochs).

    >>> at = [lr_at(step, total_steps=12, warmup_steps=2, peak=1.0) for step in (0, 1, 2, 7, 12)]
    >>> [round(lr, 3) for lr in at]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return minimum + (peak - minimum) * 0.5 * (1.0 + math.cos(math.pi * progress))


def warmup_key(recipe: TrainConfig) -> str:
    """Return the key that says how long the warm-up is."""
    return "warmup_share" if recipe.warmup_epochs is None else "warmup_epochs"


def warmup_steps(recipe: TrainConfig, steps: int) -> int:
    """Return the length of the warm-up in optimiser steps.

    Args:
        steps: of an epoch.
    """
    if recipe.warmup_epochs is not None:
        return round(recipe.warmup_epochs * steps)
    return round((recipe.warmup_share or 0.0) * recipe.epochs * steps)


def scheduled_lr(recipe: TrainConfig, step: int, steps: int, global_batch: int) -> float:
    """Return the learning rate of a recipe at an optimiser step of the run, from 0.

    Args:
        steps: of an epoch.
        global_batch: clips of a step.
    """
    return lr_at(
        step,
        total_steps=recipe.epochs * steps,
        warmup_steps=warmup_steps(recipe, steps),
        peak=effective_lr(recipe.base_lr, global_batch),
        minimum=recipe.min_lr,
    )


def highest_rate(recipe: TrainConfig, steps: int) -> float:
    """Return the highest learning rate of a run as a share of its peak.

    It is below 1 where the warm-up is longer than the run.

    Args:
        steps: optimiser steps of an epoch.

    Raises:
        ConfigError: the rate would be 0 throughout.
    """
    total, warmup = recipe.epochs * steps, warmup_steps(recipe, steps)
    if warmup < total:
        return 1.0
    if total == 1:
        key = warmup_key(recipe)
        raise ConfigError(
            f"train.{key}: {getattr(recipe, key):g} makes the rate of the only step 0, so that "
            "nothing would be trained; set it to 0, or train.epochs to more"
        )
    return (total - 1) / warmup


def layers_of(model: nn.Module, depth: int) -> dict[str, int]:
    """Number the layer of every parameter for layer-wise decay (VideoMAE, BEiT), by name.

    The blocks have the numbers 1 to depth, in the order of `model.slots()`, each with its
    `Slot.before`. What the model holds before its first block (patch embedding, positions, class
    token) is layer 0, what it holds between two blocks belongs to the second of them, and
    everything after the last one is layer depth + 1. A parameter that several blocks share has the
    first one's number.
    """
    slots = model.slots()  # type: ignore[operator]
    number_of: dict[int, int] = {}
    for number, slot in enumerate(slots, start=1):
        before = [] if slot.before is None else [*slot.before.parameters()]
        for parameter in (*before, *slot.block.parameters()):
            number_of.setdefault(id(parameter), number)
    layers = {}
    reached = 0  # the last block passed so far
    for name, parameter in model.named_parameters():
        reached = max(reached, number_of.get(id(parameter), 0))
        outside = 0 if reached == 0 else depth + 1 if reached == len(slots) else reached + 1
        layers[name] = number_of.get(id(parameter), outside)
    return layers


def parameter_groups(
    model: nn.Module, *, depth: int, weight_decay: float, layer_decay: float
) -> list[dict]:
    """Group the trainable parameters by (decay or not, layer).

    Weight decay acts on tensors of two and more dimensions only, and not on those that
    `model.no_weight_decay()` names, as in timm. Each group carries `lr_scale`,
    layer_decay ** (depth + 1 - layer).
    """
    groups: dict[tuple[bool, int], dict] = {}
    undecayed = model.no_weight_decay()  # type: ignore[operator]
    layers = {} if layer_decay == 1.0 else layers_of(model, depth)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and weight_decay > 0 and name not in undecayed
        layer = layers.get(name, depth + 1)
        group = groups.setdefault(
            (decays, layer),
            {
                "params": [],
                "weight_decay": weight_decay if decays else 0.0,
                "lr_scale": layer_decay ** (depth + 1 - layer),
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def build_optimizer(name: str, groups: list[dict]) -> torch.optim.Optimizer:
    """Build `sgd` (momentum 0.9, no Nesterov) or `adamw` (betas 0.9, 0.999, eps 1e-8)."""
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=0.9)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=0.0)
    raise ValueError(f"train.optimizer: {name!r} is unknown; use sgd or adamw")


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set every group's rate to `lr` times its `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


class WeightAverage:
    """Exponential moving average of the trainable tensors (the frozen ones need none).

    The decay at step t, from 0, is min(decay, (1 + t) / (10 + t)), as of TensorFlow's and timm's
    averages: that of a short run would else consist of its initial weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {
            name: parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """value <- d * value + (1 - d) * parameter, with the decay d at this step of the run."""
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = dict(model.named_parameters())
        for name, value in self.values.items():
            value.lerp_(parameters[name].detach(), 1.0 - decay)

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchange the model's tensors with the averages; a second call undoes the first."""
        parameters = dict(model.named_parameters())
        for name, value in self.values.items():
            current = parameters[name].detach().clone()
            parameters[name].copy_(value)
            value.copy_(current)
