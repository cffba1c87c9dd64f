"""One pass of the plain backbone for all tasks that leave its features as they are.

A linear probe reads the output of the last block, a side network (LoSA) those of all blocks. So
the backbone runs once, the outputs of its blocks are recorded, and each task reads them.
"""

from __future__ import annotations

from torch import Tensor, nn

from vidadapt.methods import SideNetwork, in_autocast_type
from vidadapt.models import READ_OUT, VideoModel


def leaves_features(model: VideoModel, plain: VideoModel) -> bool:
    """Check that a model has no tensors of its own but in its read-out and side networks.

    Both must share their tensors, as the tasks of a bank do.
    """
    shared = {id(tensor) for _, tensor in _tensors(plain)}
    sides = [module.side for module in model.modules() if isinstance(module, SideNetwork)]
    shared |= {id(tensor) for side in sides for _, tensor in _tensors(side)}
    return all(
        id(tensor) in shared or name.partition(".")[0] in READ_OUT
        for name, tensor in _tensors(model)
    )


def record(plain: VideoModel, clip: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Compute what the backbone's `forward_features` gives, and the output of every block."""
    outputs: list[Tensor] = []
    hooks = [
        slot.block.register_forward_hook(lambda block, given, output: outputs.append(output))
        for slot in plain.slots()
    ]
    try:
        return plain.forward_features(clip), outputs
    finally:
        for hook in hooks:
            hook.remove()


def features_from(model: VideoModel, tokens: Tensor, outputs: list[Tensor]) -> Tensor:
    """Compute the features of a model of which `leaves_features` holds, from what `record` gave."""
    network = model.slots()[0].block
    if not isinstance(network, SideNetwork):
        return tokens
    taps = [in_autocast_type(outputs[number - 1]) for number in network.layers]
    return model.forward_from(network.side(outputs[-1], *taps), 1)


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]
