"""Which blocks of a backbone a method edits, and which backbones it is defined on."""

from __future__ import annotations

from vidadapt.models import VideoModel
from vidadapt.models.blocks import Slot


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
