"""Share weights out over the processes, where training does not fit otherwise (FSDP2).

Of every sharded tensor each process keeps a part, and so of its gradient and of what the optimiser
keeps; a block's tensors are whole while it computes, and all of them in evaluation, so that the
weights alone have to fit. Full fine-tuning shards everything; other methods the frozen backbone
alone, since what they train is small, and `distributed` exchanges it as without sharding. What is
written to files is whole and the same in both cases.

Full fine-tuning in half precision: autocast's copies of the weights are kept for the backward pass,
whole, unless `recompute` is `block`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from vidadapt.distributed import World
from vidadapt.methods import PromptedBlock, SideNetwork
from vidadapt.models import VideoModel


def shard(model: VideoModel, world: World) -> None:
    """Keep this process's part of the model's parameters; a single process keeps all.

    Gradients of sharded parameters are summed over the processes as soon as a block's backward pass
    is done. From here on all processes have to compute, and to read whole tensors, together.

    Args:
        model: finished, on `world.device`, the same on all processes; edited in place. Its
            parameters are others afterwards (`DTensor`s), under the same names.
    """
    if world.size == 1:
        return
    group = dist.group.WORLD if world.group is None else world.group
    mesh = DeviceMesh.from_group(group, world.device.type)  # type: ignore[arg-type]
    parameters = list(model.parameters())
    trained = {p for p in parameters if p.requires_grad}
    replicated = set() if len(trained) == len(parameters) else trained
    for module in [*_blocks(model), model]:
        fully_shard(module, mesh=mesh, ignored_params=replicated)
    for part in _sharded(model):
        part.set_force_sum_reduction_for_comms(True)  # the only kind that gloo knows
        part.set_gradient_divide_factor(1.0)  # see `divide_gradients`


def is_sharded(model: nn.Module) -> bool:
    """Return whether `shard` has shared the model out."""
    return isinstance(model, FSDPModule)


def is_part(tensor: Tensor) -> bool:
    """Return whether this process holds only a part of the tensor."""
    return isinstance(tensor, DTensor)


def divide_gradients(parameters: Sequence[nn.Parameter], shares: Tensor) -> None:
    """Divide the gradients of sharded parameters, which are sums, so that they are means.

    Args:
        shares: the sum of the processes' `share`s, as `GradientMeans.average` gives it.
    """
    gradients = [p.grad.to_local() for p in parameters if isinstance(p.grad, DTensor)]
    if gradients:
        torch._foreach_div_(gradients, shares)


def empty_pass(model: VideoModel, device: torch.device) -> Tensor:
    """Return a loss of 0, with which a process that has no clip takes part in a step.

    Raises:
        ValueError: the head has a BatchNorm, whose statistics it would change.
    """
    if any("BatchNorm" in type(module).__name__ for module in model.head.modules()):
        raise ValueError(
            "every clip of a process was skipped (skipped.jsonl has them), and with train.shard "
            "and the BatchNorm of model.head batchnorm_linear each needs one; use model.head "
            "linear, or put the videos into data.quarantine, and go on with --resume"
        )
    return model(torch.zeros(1, *model.clip_shape, device=device)).float().sum() * 0


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Give every process all weights within, so that it computes without the others.

    For evaluation, in which processes have different numbers of views. Whatever reads its
    `state_dict` within shares the weights out again.
    """
    parts = _sharded(model)
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part is not model, recurse=False)
            part.reshard()


def placed(tensor: Tensor, like: Tensor) -> Tensor:
    """Return the part of a whole tensor that this process holds of `like`, if that is sharded."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(
        tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


def placed_optimizer(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Shard an optimiser's `state_dict` of whole tensors as its parameters are sharded."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        **state,
        "state": {
            number: {
                key: placed(value, parameters[number])
                if isinstance(value, Tensor) and value.shape == parameters[number].shape
                else value
                for key, value in of_one.items()
            }
            for number, of_one in state["state"].items()
        },
    }


def gathered(tensor: Tensor) -> Tensor:
    """Return a tensor whole; all processes have to ask for a sharded one together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _blocks(model: VideoModel) -> list[nn.Module]:
    blocks: list[nn.Module] = [slot.block for slot in model.slots()]
    if isinstance(blocks[0], SideNetwork):
        return list(blocks[0].blocks)
    befores = [slot.before for slot in model.slots() if slot.before is not None]
    # A prompted block returns a view, behind which FSDP2's hooks could be lost.
    blocks = [block.block if isinstance(block, PromptedBlock) else block for block in blocks]
    return [*blocks, *(before for before in befores if any(True for _ in before.parameters()))]


def _sharded(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]
