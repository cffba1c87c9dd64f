"""The tensors of a method's own file: taken from a model, and loaded strictly."""

from __future__ import annotations

import torch
from torch import nn

from vidadapt.models import require_match


def trainable_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors of the method's own file: trainable parameters and all saved buffers."""
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
    advice = (
        "the file is of another method, backbone or number of classes; use the configuration that "
        "it was trained with (adapter.json beside it)"
    )
    require_match(source, state, own, list(own), advice)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])
