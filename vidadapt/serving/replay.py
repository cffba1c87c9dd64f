"""One pass of the plain backbone for all tasks that leave its features as they are.

A linear probe reads the output of the last block, a side network (LoSA) those of all blocks. So
the backbone runs once and the outputs of its blocks are recorded; each task then runs its own code
on a module tree in which these outputs replace the blocks.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from vidadapt.features.routing import same, with_children, without_read_out
from vidadapt.methods.losa import SideNetwork
from vidadapt.models import VideoModel


class Recorded(nn.Module):
    """Replaces a block whose output is known."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        return self.output


def leaves_features(model: VideoModel, plain: VideoModel) -> bool:
    """Whether a model is the plain backbone but for its read-out and side networks.

    Both must share their tensors, as the tasks of a bank do.
    """

    def without_side(module: nn.Module) -> nn.Module | None:
        inside = list(module.children())
        if len(inside) == 1 and isinstance(inside[0], SideNetwork):
            return with_children(module, dict(inside[0].blocks.named_children()))
        return None

    return same(without_read_out(_rebuilt(model, without_side)), without_read_out(plain))


def record(plain: VideoModel, clip: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The backbone's features (see its `forward_features`) and the output of every block."""
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


def has_side(model: nn.Module) -> bool:
    """Whether a task reads more than the backbone's features."""
    return any(isinstance(module, SideNetwork) for module in model.modules())


def replayed_features(model: VideoModel, clip: Tensor, outputs: list[Tensor]) -> Tensor:
    """The features of a model with a side network, from its blocks' outputs."""

    def over_records(module: nn.Module) -> nn.Module | None:
        if isinstance(module, SideNetwork):
            blocks = nn.ModuleList(Recorded(output) for output in outputs)
            return with_children(module, {"blocks": blocks, "side": module.side})
        return None

    return _rebuilt(model, over_records).forward_features(clip)  # type: ignore[operator]


def _rebuilt(module: nn.Module, change: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """The tree with the same tensors, and another module where `change` gives one."""
    changed = change(module)
    if changed is not None:
        return changed
    children = {
        name: None if child is None else _rebuilt(child, change)
        for name, child in module._modules.items()
    }
    return with_children(module, children)
