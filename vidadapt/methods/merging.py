"""Fold what a method trained into the backbone, where that is exact."""

from __future__ import annotations

from collections.abc import Callable

from vidadapt.methods import arc, lora, ssf
from vidadapt.models import VideoModel

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


def why_unmergeable(name: str) -> str:
    """Say why a method that is not in `MERGES` cannot be folded."""
    return UNMERGEABLE.get(name, "methods.MERGES has no function for it")


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
        raise ValueError(
            f"method {name} cannot be merged into the backbone: {why_unmergeable(name)}"
        )
    adapted = model.state_dict().keys()
    MERGES[name](model)
    if model.state_dict().keys() == adapted:
        raise ValueError(f"nothing of method {name} is in this model; it is as it was")
