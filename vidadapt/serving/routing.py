"""Several models that differ in a few places run as one on a batch that mixes them.

The models are copies of one frozen backbone, each edited by a method; what is frozen is the same
tensor in all of them. `Pass` walks their module trees in parallel: where the trees are the same,
one of them is taken and computes all rows of the batch at once; where they differ, a `Routed`
module sends each model's rows through that model's own part. So the frozen part of a block runs
once however many tasks are in the batch, if their methods leave it in the same place.

Rows are clip-major: a batch of B clips is B * k rows (k frames or windows a clip), those of one
model in one piece. A place where that does not hold, or whose outputs do not fit each other (other
numbers of tokens), is found when it runs, and is routed one level higher. Models that turn out to
differ at their roots run one after another.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidadapt.models import READ_OUT

NEVER_CALLED = (nn.ModuleList, nn.ModuleDict)
_TORCHS_OWN = frozenset(vars(nn.Module()))


class CannotRoute(RuntimeError):
    """Rows cannot be shared out at this place of the tree."""

    def __init__(self, place: str, why: str) -> None:
        super().__init__(f"{place}: {why}")
        self.place = place


class Routed(nn.Module):
    """One module of each model; each gets its own rows of every argument, in order.

    Args:
        place: name in the tree, for `CannotRoute`.
        parts: one module a model.
        counts: clips of each model in the batch that is running; the owner of this list fills it.
    """

    def __init__(self, place: str, parts: Sequence[nn.Module], counts: list[int]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.place = place
        self.counts = counts

    def forward(self, x: Tensor, *others: Any) -> Tensor:
        rows, clips = x.shape[0], sum(self.counts)
        if rows % clips:
            raise CannotRoute(self.place, f"{rows} rows are no multiple of {clips} clips")
        sizes = [count * (rows // clips) for count in self.counts]
        arguments = [self._shared_out(argument, x, sizes) for argument in (x, *others)]
        found = [
            part(*(pieces[number] for pieces in arguments))
            for number, part in enumerate(self.parts)
        ]
        for output, size in zip(found, sizes, strict=True):
            if not isinstance(output, Tensor) or output.shape[0] != size:
                raise CannotRoute(self.place, "its output is no tensor with the rows of its input")
            if output.shape[1:] != found[0].shape[1:] or output.dtype != found[0].dtype:
                raise CannotRoute(self.place, "outputs of different shapes")
        return torch.cat(found)

    def _shared_out(self, argument: Any, x: Tensor, sizes: list[int]) -> Sequence[Any]:
        """One piece a model: rows of a tensor with as many rows as x, else the argument itself."""
        if isinstance(argument, Tensor) and argument.ndim == x.ndim and len(argument) == len(x):
            return argument.split(sizes)
        return [argument] * len(sizes)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("__"):
                raise
        # The parent module reads an attribute (`proj.weight`) instead of calling this one.
        raise CannotRoute(self.place, f"its attribute {name!r} is read")


class Pass:
    """Models that run together.

    Args:
        models: name -> model with `forward_features`: (B, 3, T, S, S) to tokens (B * k, ...).

    Raises:
        CannotRoute: the models differ at their roots.
    """

    def __init__(self, models: Mapping[str, nn.Module]) -> None:
        self.models = dict(models)
        self.counts: list[int] = []
        self.barred: set[str] = set()
        self.trunk = self._joined()

    def features(self, clips: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tokens of each model for its own clips, computed in one forward pass.

        Args:
            clips: name -> (B_name, 3, T, S, S), for exactly the models of this pass.

        Raises:
            CannotRoute: the models turn out to differ at their roots; run them apart.
        """
        while True:
            self.counts[:] = [len(clips[name]) for name in self.models]
            try:
                tokens = self.trunk.forward_features(torch.cat([clips[n] for n in self.models]))
                break
            except CannotRoute as fault:
                self.barred.add(fault.place)
                self.trunk = self._joined()
        k = len(tokens) // sum(self.counts)
        pieces = tokens.split([count * k for count in self.counts])
        return dict(zip(self.models, pieces, strict=True))

    def _joined(self) -> Any:
        roots = [
            with_children(model, {**model._modules, **dict.fromkeys(READ_OUT)})
            for model in self.models.values()
        ]
        trunk = self._join("", roots)
        if trunk is None:
            raise CannotRoute("", "the models differ at their roots")
        return trunk

    def _join(self, place: str, parts: Sequence[nn.Module]) -> nn.Module | None:
        """One module for all parts; None if the module that holds them has to be routed."""
        first = parts[0]
        called = place != "" and not isinstance(first, NEVER_CALLED)
        if _alike(parts):
            own = {name: child for name, child in first._modules.items() if child is not None}
            joined = {
                name: self._join(f"{place}.{name}".lstrip("."), [p._modules[name] for p in parts])  # type: ignore[misc]
                for name in own
            }
            if joined == own:
                return first
            if None not in joined.values() and (not called or _frozen_in_common(parts)):
                return with_children(first, {**first._modules, **joined})
        if called and place not in self.barred:
            return Routed(place, parts, self.counts)
        return None


def passes(models: Mapping[str, nn.Module]) -> list[Pass]:
    """Sort the models into passes, each into the first one that its structure fits."""
    groups: list[Pass] = []
    for name, model in models.items():
        for place, group in enumerate(groups):
            try:
                groups[place] = Pass({**group.models, name: model})
                break
            except CannotRoute:
                continue
        else:
            groups.append(Pass({name: model}))
    return groups


def apart(group: Pass) -> list[Pass]:
    """Split a pass that failed at its root by structure (names, shapes), or else by model."""
    by_structure: dict[Any, dict[str, nn.Module]] = {}
    for name, model in group.models.items():
        names = [
            (key, tuple(tensor.shape))
            for key, tensor in model.state_dict().items()
            if not key.startswith(READ_OUT)
        ]
        by_structure.setdefault(tuple(names), {})[name] = model
    if len(by_structure) == 1:
        return [Pass({name: model}) for name, model in group.models.items()]
    return [Pass(models) for models in by_structure.values()]


def _alike(parts: Sequence[nn.Module]) -> bool:
    """Check for one class, equal attributes, the very same tensors and names of children.

    Values that cannot be compared count as different.
    """
    first, *others = (_content(part) for part in parts)
    return all(
        other.keys() == first.keys() and all(_equal(other[key], first[key]) for key in first)
        for other in others
    )


def _content(module: nn.Module) -> dict[str, Any]:
    attributes = {key: value for key, value in vars(module).items() if key not in _TORCHS_OWN}
    children = [(name, child is None) for name, child in module._modules.items()]
    tensors = {**module._parameters, **module._buffers}
    return {**attributes, **tensors, "": (type(module), children)}


def _equal(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and not isinstance(a, Tensor) and (a == b) is True)


def _frozen_in_common(parts: Sequence[nn.Module]) -> bool:
    """Check that the trees hold a tensor in common, so that routing inside them saves work."""
    held = [{id(tensor) for tensor in part.parameters()} for part in parts]
    return bool(set.intersection(*held))


def with_children(module: nn.Module, children: Mapping[str, nn.Module | None]) -> nn.Module:
    """Return a module like this one, with the very same tensors, but other children."""
    other = copy.copy(module)
    other.__dict__["_modules"] = dict(children)
    return other
