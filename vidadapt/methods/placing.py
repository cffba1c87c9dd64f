"""Blocks and layers of a backbone that a method edits, and checks of options that methods share."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vidadapt.models import Slot, VideoModel


def chosen_slots(model: VideoModel, layers: str | list[int]) -> list[Slot]:
    """The places of the chosen blocks, see `chosen_layers`."""
    slots = model.slots()
    return [slots[number - 1] for number in chosen_layers(layers, len(slots))]


def chosen_layers(layers: str | list[int], depth: int) -> list[int]:
    """Layer numbers from 1, sorted, from a name, an inclusive range `a-b`, or a list.

    Names mean the same on backbones of any depth: `all`; `lower` and `upper`, the halves (the
    middle of an odd number is upper); `even`, every second one.

    Raises:
        ValueError: malformed, empty, repeated or outside 1..depth.

    >>> chosen_layers("7-12", 12), chosen_layers([1, 3], 12)
    ([7, 8, 9, 10, 11, 12], [1, 3])
    >>> chosen_layers("lower", 5), chosen_layers("upper", 5), chosen_layers("even", 5)
    ([1, 2], [3, 4, 5], [2, 4])
    """
    expected = (
        f"'all', 'lower', 'upper', 'even', a range such as '1-{depth}', or a list of numbers in "
        f"1..{depth}"
    )
    every = range(1, depth + 1)
    named = {
        "all": every,
        "lower": every[: depth // 2],
        "upper": every[depth // 2 :],
        "even": every[1::2],
    }
    if isinstance(layers, str) and layers in named:
        numbers = list(named[layers])
    elif isinstance(layers, str):
        first, _, last = layers.partition("-")
        if not (first.strip().isdigit() and last.strip().isdigit()):
            raise ValueError(f"method.layers: expected {expected}, got {layers!r}")
        numbers = list(range(int(first), int(last) + 1))
    else:
        numbers = sorted(layers)
    if not numbers or len(set(numbers)) != len(numbers) or numbers[0] < 1 or numbers[-1] > depth:
        raise ValueError(
            f"method.layers: expected {expected} for this backbone of {depth} blocks, "
            f"got {layers!r}"
        )
    return numbers


def require_global_attention(model: VideoModel, method: str, what: str) -> None:
    """Refuse a backbone whose blocks do not attend to all tokens of a row.

    Args:
        what: what is undefined there, for the message.

    Raises:
        ValueError: naming the method and the backbone.
    """
    if model.attention != "global":
        reason = {"window": "attends within windows", "none": "has no attention"}[model.attention]
        raise ValueError(
            f"method.name: {method} is not defined on {model.name}, which {reason}: {what}; choose "
            "another method, or a ViT as model.backbone"
        )


@dataclass(frozen=True)
class Place:
    """A submodule of `parent`, by its name there."""

    parent: nn.Module
    name: str

    @property
    def module(self) -> nn.Module:
        return self.parent.get_submodule(self.name)

    def put(self, module: nn.Module) -> None:
        """Replace the submodule, as a rule by a wrapper that holds it."""
        self.parent.set_submodule(self.name, module)


def places(root: nn.Module, kinds: type[nn.Module] | tuple[type[nn.Module], ...]) -> list[Place]:
    """Places of modules of these types below `root`, in the order of `root.modules()`.

    The list is complete before anything is replaced, so the caller may put wrappers while it
    iterates.
    """
    return [
        Place(parent, name)
        for parent in root.modules()
        for name, child in parent.named_children()
        if isinstance(child, kinds)
    ]


def require_counts(**options: int) -> None:
    """Refuse counts (ranks, widths, numbers of tokens) below 1.

    Raises:
        ValueError: naming the option.
    """
    for name, count in options.items():
        if count < 1:
            raise ValueError(f"method.{name}: expected 1 or more, got {count}")


def require_rate(dropout: float) -> None:
    """Refuse a dropout rate outside [0, 1).

    Raises:
        ValueError: naming the option.
    """
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"method.dropout: expected a rate in [0, 1), got {dropout}")
