"""Weights shared out over the processes, where a training does not fit otherwise (FSDP2).

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
from vidadapt.methods.losa import SideNetwork
from vidadapt.methods.vpt import PromptedBlock
from vidadapt.models import VideoModel


def shard(model: VideoModel, world: World) -> None:
    """Keep of the model's parameters this process's part; a single process keeps all.

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
    """Whether `shard` has shared it out."""
    return isinstance(model, FSDPModule)


def is_part(tensor: Tensor) -> bool:
    """Whether this process holds a part of it alone."""
    return isinstance(tensor, DTensor)


def divide_gradients(parameters: Sequence[nn.Parameter], shares: Tensor) -> None:
    """Make the sums that the gradients of sharded parameters are the means that are wanted.

    Args:
        shares: the sum of the processes' `share`s, as `distributed.average_gradients` gives it.
    """
    gradients = [p.grad.to_local() for p in parameters if isinstance(p.grad, DTensor)]
    if gradients:
        torch._foreach_div_(gradients, shares)


def empty_pass(model: VideoModel, device: torch.device) -> Tensor:
    """A loss without gradients, by which a process that has no clip takes part in a step.

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
    """Within, every process holds all weights and computes without the others.

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
    """A whole tensor as `like` is: the same part of it on this process, if that is sharded."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(
        tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


def placed_optimizer(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's `state_dict` of whole tensors, for one whose parameters may be sharded."""
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
    """The whole of a tensor; of a sharded one all processes have to ask for it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _blocks(model: VideoModel) -> list[nn.Module]:
    blocks: list[nn.Module] = [slot.block for slot in model.slots()]
    if isinstance(blocks[0], SideNetwork):
        return list(blocks[0].blocks)
    # A prompted block returns a view, behind which FSDP2's hooks could be lost.
    return [block.block if isinstance(block, PromptedBlock) else block for block in blocks]


def _sharded(model: nn.Module) -> list[FSDPModule]:
    return [module for module in model.modules() if isinstance(module, FSDPModule)]
