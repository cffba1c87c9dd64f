"""Choose what is trained: freeze, inject, unfreeze the head; load strictly.

A method is a function `inject(model, *, option=default, ...)`: its keyword-only arguments are its
options. What it adds is trainable because new parameters are; nothing is matched by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import nn

from vidadapt.console.naming import did_you_mean, require_known
from vidadapt.methods import adaptformer, arc, baselines, lora, losa, ssf, st_adapter, vpt
from vidadapt.models import VideoModel
from vidadapt.models.coverage import require_finite, same_kind

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
    """The options of a method with their defaults.

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


# Method -> fold what it trained into the backbone, in place; exact up to rounding, in eval mode.
MERGES: dict[str, Callable[[VideoModel], None]] = {
    "arc": arc.merge,
    "lora": lora.merge,
    "ssf": ssf.merge,
}

# Method -> why it cannot be folded.
UNMERGEABLE = {
    "adaptformer": "its bottleneck has a ReLU",
    "losa": "it reads features of all blocks and changes none",
    "vpt": "prompts are tokens, which every token attends to, and not a change of weights",
    "st_adapter": "its convolution mixes neighbouring tokens, which no layer of the backbone does",
    "bitfit": "it trains biases that the backbone has already",
    "linear": "it leaves the backbone as it is",
    "full": "it is the backbone already",
}


def merge(model: VideoModel, name: str) -> None:
    """Fold a method into the backbone, which becomes a plain model with the same logits.

    Compute in float32 or float64: folding in half precision rounds.

    Args:
        model: with the method applied and trained; edited in place.
        name: key of `METHODS`.

    Raises:
        ValueError: why this method cannot be folded; or it was not applied to the model.
    """
    if name not in MERGES:
        raise ValueError(f"method {name} cannot be merged into the backbone: {UNMERGEABLE[name]}")
    adapted = model.state_dict().keys()
    MERGES[name](model)
    if model.state_dict().keys() == adapted:
        raise ValueError(f"nothing of method {name} is in this model; it is as it was")


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, total) numbers of parameters."""
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


def trainable_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of the method's own file: trainable parameters and all saved buffers."""
    # A parameter that several modules share is named once here, several times in the state dict.
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    buffers = {name: t for name, t in model.state_dict().items() if name not in parameters}
    return {name: tensor.detach() for name, tensor in (trained | buffers).items()}


def load_trainable_state(model: nn.Module, state: dict[str, torch.Tensor], source: str) -> None:
    """Copy a method's file into a model to which the same method was applied.

    Args:
        source: file name for messages.

    Raises:
        ValueError: keys, shapes or types are not the model's; or values that are NaN or infinite,
            with the tensor's name.
    """
    own = trainable_state(model)
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    reshaped = [
        f"{name}: {tuple(state[name].shape)} in the file, {tuple(own[name].shape)} here"
        for name in sorted(own.keys() & state.keys())
        if own[name].shape != state[name].shape
    ]
    mistyped = [
        f"{name}: {state[name].dtype} in the file, {own[name].dtype} here"
        for name in sorted(own.keys() & state.keys())
        if not same_kind(state[name].dtype, own[name].dtype)
    ]
    problems = [
        f"{title} ({len(names)}): {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
        for title, names in [
            ("missing in the file", missing),
            ("not in this model", unexpected),
            ("of another shape", reshaped),
            ("of another type", mistyped),
        ]
        if names
    ]
    if problems:
        raise ValueError(
            f"{source}: does not fit this method, backbone and number of classes; "
            + "; ".join(problems)
            + ". Use the configuration that the file was trained with (adapter.json beside it)"
        )
    require_finite(source, state)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])
