"""Cut a model in two: a frozen prefix, whose features can be kept, and the rest, which trains.

The prefix is all that runs before the first module with a trainable parameter, at the granularity
of a backbone's slots: everything up to the pool for a linear probe, up to the attentive head for
that probe, all blocks for a side network (LoSA), and the lower layers where a method changes the
upper ones. Nothing random happens in it, see `methods.train_mode`, so its features of a clip are
always the same.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vidadapt.methods import (
    METHODS,
    SideNetwork,
    default_options,
    in_autocast_type,
    trainable_state,
)
from vidadapt.models import READ_OUT, VideoModel, pools


class NothingFrozen(ValueError):
    """A model trains something before, or in, its first block."""


class _ReachedError(Exception):
    """Ends a forward pass; carries the tensor that was waited for."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x


@dataclass(frozen=True, eq=False)
class Halves:
    """A model, with its method applied, cut before the first part that trains.

    Attributes:
        model: holds both parts.
        first: first slot that trains, from 0; the number of slots: none does.
        title: description of the features, the same for all models with the same prefix.
        names: of the feature tensors.
    """

    model: VideoModel
    first: int
    title: str
    names: tuple[str, ...]

    @torch.no_grad()
    def features(self, clip: Tensor) -> tuple[Tensor, ...]:
        """Return features of normalised clips (B, 3, T, S, S), B rows in each tensor.

        The model must be in eval mode. Call it under the autocast that training runs under.
        """
        slots = self.model.slots()
        behind = slots[self.first].block if self.first < len(slots) else self.model.fc_norm
        x = input_of(behind, self.model, clip)
        if behind is self.model.fc_norm:
            return (x,)
        found: tuple[Tensor, ...] = (x,)
        if isinstance(behind, SideNetwork):
            found = behind.frozen_features(x)[: len(self.names)]
        return tuple(tensor.unflatten(0, (len(clip), -1)) for tensor in found)

    def logits(self, features: tuple[Tensor, ...]) -> Tensor:
        """Return logits (B, K) from what `features` returned."""
        model, slots = self.model, self.model.slots()
        if self.first == len(slots):
            return model.head(model.fc_norm(features[0]))
        rows = [tensor.flatten(0, 1) for tensor in features]
        first: nn.Module = slots[self.first].block
        if isinstance(first, SideNetwork):
            if _taps_last(first):
                rows.append(in_autocast_type(rows[0]))
            return model.forward_head(model.forward_from(first.side(*rows), self.first + 1))
        return model.forward_head(model.forward_from(rows[0], self.first))


class Joined(nn.Module):
    """Models with the same frozen prefix, as one that returns the logits of all, (B, M * K).

    Args:
        parts: M models, cut alike.
    """

    def __init__(self, parts: Sequence[Halves]) -> None:
        super().__init__()
        self.parts = tuple(parts)
        self.model = nn.ModuleList(part.model for part in parts)

    def features(self, clip: Tensor) -> tuple[Tensor, ...]:
        """Features of clips, see `Halves.features`; computed once."""
        return self.parts[0].features(clip)

    def logits(self, features: tuple[Tensor, ...]) -> Tensor:
        """Logits of all models from what `features` returned."""
        return torch.cat([part.logits(features).float() for part in self.parts], dim=1)

    def forward(self, clip: Tensor) -> Tensor:
        return self.logits(self.features(clip))


def copy_sharing_frozen(model: VideoModel) -> VideoModel:
    """Copy a model; what is neither trained nor kept in its adapter is shared with the copy."""
    own = trainable_state(model).keys()
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for name, tensor in tensors if name not in own})


def cut_in_two(model: VideoModel, method: str, asked_by: str = "cache.dir") -> Halves:
    """Cut a model before the first part that trains.

    Args:
        method: its name, for the message.
        asked_by: the key that needs frozen features, for the message.

    Raises:
        NothingFrozen: something before or in the first block trains.
    """
    slots = model.slots()
    blocks: list[nn.Module] = [slot.block for slot in slots]
    trains = [any(p.requires_grad for p in block.parameters()) for block in blocks]
    first = trains.index(True) if True in trains else len(slots)
    inside = {id(p) for block in blocks for p in block.parameters()}
    outside = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
        and id(parameter) not in inside
        and name.partition(".")[0] not in READ_OUT
    ]
    side = blocks[0] if isinstance(blocks[0], SideNetwork) else None
    if outside or (first == 0 and side is None):
        what = outside[0] if outside else "something in the first block"
        others = [name for name in METHODS if "layers" in default_options(name) and name != "losa"]
        raise NothingFrozen(
            f"{asked_by}: method.name {method} trains {what}, so no features stay the same; leave "
            f"{asked_by} out, take a method that leaves the lower layers as they are (linear with "
            "any head, losa), or train upper layers alone (method.layers of "
            f"{', '.join(others)})"
        )
    if side is not None:
        layers = ", ".join(map(str, side.layers))
        # The last layer's tap is its output, which is the first tensor already.
        kept = side.layers[:-1] if _taps_last(side) else side.layers
        names = ("last", *(f"layer_{number}" for number in kept))
        return Halves(model, 0, f"outputs of the last layer and of layers {layers}", names)
    if first < len(slots):
        return Halves(model, first, f"tokens that enter layer {first + 1}", ("tokens",))
    if pools(model.head):
        return Halves(model, first, "all tokens that are read out", ("tokens",))
    return Halves(model, first, "mean of the tokens", ("pooled",))


def run_from_features(parts: Halves) -> None:
    """Make the model take features instead of clips from now on; its tensors stay."""
    model: Any = parts.model
    model.forward = parts.logits


def _taps_last(side: SideNetwork) -> bool:
    return side.layers[-1] == len(side.blocks)


def input_of(module: nn.Module, model: VideoModel, clip: Tensor) -> Tensor:
    """Return the input of a module when the model runs on a clip; the module does not run."""

    def stop(module: nn.Module, given: tuple[Any, ...]) -> None:
        raise _ReachedError(given[0])

    return _reached(module.register_forward_pre_hook(stop), module, model, clip)


def output_of(module: nn.Module, model: VideoModel, clip: Tensor) -> Tensor:
    """Return the output of a module when the model runs on a clip; nothing behind it runs."""

    def stop(module: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
        raise _ReachedError(output)

    return _reached(module.register_forward_hook(stop), module, model, clip)


def _reached(hook: RemovableHandle, module: nn.Module, model: VideoModel, clip: Tensor) -> Tensor:
    """Run the model on a clip until its hook stops it."""
    try:
        model.forward_head(model.forward_features(clip))
    except _ReachedError as reached:
        return reached.x
    finally:
        hook.remove()
    raise RuntimeError(f"{type(module).__name__} is not called by {model.name}")
