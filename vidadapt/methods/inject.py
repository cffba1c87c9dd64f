"""Choose what is trained: freeze, inject, unfreeze the head.

A method is a function `inject(model, *, option=default, ...)`: its keyword-only arguments are its
options. What it adds is trainable because new parameters are; nothing is matched by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import nn

from vidadapt.console import did_you_mean, require_known
from vidadapt.methods import adaptformer, arc, baselines, lora, losa, ssf, st_adapter, vpt
from vidadapt.models import VideoModel

METHODS: dict[str, Callable[..., None]] = {
    "adaptformer": adaptformer.inject,
    "arc": arc.inject,
    "vpt": vpt.inject,
    "lora": lora.inject,
    "losa": losa.inject,
    "ssf": ssf.inject,
    "st_adapter": st_adapter.inject,
    "bitfit": baselines.inject_bitfit,
    "linear": baselines.inject_linear,
    "full": baselines.inject_full,
}


def default_options(name: str) -> dict[str, Any]:
    """Return the options of a method with their defaults.

    Raises:
        ValueError: unknown method, with similar names.
    """
    chosen = METHODS[require_known("method.name", name, METHODS)]
    parameters = inspect.signature(chosen).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def apply(model: VideoModel, method: dict[str, Any]) -> None:
    """Freeze the backbone, inject the method, make fc_norm and the head trainable.

    The temporal positions of an inflated image model, which no image file holds, are trained if the
    method trains something in the first block, as the backward pass reaches it anyway; they add at
    most the backward pass through that block's attention. Else (linear, side networks, layers 7-12)
    they stay at zero, and no graph reaches them.

    Args:
        model: backbone with loaded weights, `fc_norm` and `head`; edited in place.
        method: {"name": key of METHODS, **options}.

    Raises:
        ValueError: unknown method or option, or an invalid value.
    """
    options = {key: value for key, value in method.items() if key != "name"}
    known = default_options(method["name"])
    for key in options:
        if key not in known:
            hint = did_you_mean(key, known) or f"it has {', '.join(sorted(known)) or 'none'}"
            raise ValueError(f"method.{key}: {method['name']} has no such option; {hint}")
    _check_choices(METHODS[method["name"]], options)
    model.requires_grad_(False)
    METHODS[method["name"]](model, **options)
    model.fc_norm.requires_grad_(True)
    model.head.requires_grad_(True)
    if model.time_embed is not None and _first_block_trains(model):
        model.time_embed.requires_grad_(True)


def _check_choices(inject: Callable[..., None], options: dict[str, Any]) -> None:
    types = get_type_hints(inject)
    for key, value in options.items():
        choices = get_args(types[key]) if get_origin(types[key]) is Literal else (value,)
        if value not in choices:
            raise ValueError(f"method.{key}: expected {' or '.join(choices)}, got {value!r}")


def _first_block_trains(model: VideoModel) -> bool:
    first: nn.Module = model.slots()[0].block
    # A side network replaces all blocks and runs them without a graph.
    if isinstance(first, losa.SideNetwork):
        return False
    return any(parameter.requires_grad for parameter in first.parameters())


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return (trainable, total) numbers of parameters."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes)


def train_mode(model: nn.Module) -> None:
    """Put trained modules into train mode and keep frozen ones in eval mode.

    A module trains if all parameters in it do; one without parameters (dropout, the head's
    BatchNorm) follows the module that holds it. So dropout and drop path of a block stay off where
    a method trains only a part of it.
    """

    def visit(module: nn.Module, parent_trains: bool) -> None:
        parameters = list(module.parameters())
        trains = all(p.requires_grad for p in parameters) if parameters else parent_trains
        module.training = trains
        for child in module.children():
            visit(child, trains)

    visit(model, True)
