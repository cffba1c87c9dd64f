"""Sums and means over processes: buffers and figures; and whether all hold the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from vidadapt.distributed.world import World, gather_objects


def sum_over_ranks(world: World, tensor: torch.Tensor) -> torch.Tensor:
    """Return the sum over the processes, in the tensor's own type (exact for integers)."""
    if world.size == 1:
        return tensor
    moved = tensor.to(world.device)
    dist.all_reduce(moved, group=world.group)
    return moved.to(tensor.device)


class _TotalOverRanks(torch.autograd.Function):
    """y = sum of the processes' x; so the gradient of each x is the sum of the processes' dy."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, group: dist.ProcessGroup | None) -> torch.Tensor:
        ctx.group = group
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _TotalOverRanks.apply(gradient, ctx.group), None


def total_over_ranks(world: World, tensor: torch.Tensor) -> torch.Tensor:
    """Return a sum over the processes that gradients pass through; the tensor is on `world.device`.

    Gradients are those of the sum of the processes' losses: the backward pass of each sums the
    gradients of all, so every process must run it.
    """
    if world.size == 1:
        return tensor
    return _TotalOverRanks.apply(tensor, world.group)


def own_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the saved floating-point buffers: BatchNorm's statistics, each process's own."""
    saved = model.state_dict().keys()
    return {
        name: buffer
        for name, buffer in model.named_buffers()
        if name in saved and buffer.is_floating_point()
    }


def average_buffers(world: World, model: nn.Module) -> None:
    """Replace each of `own_buffers` by its mean over the processes.

    The statistics are then of every sample that was seen, not only of rank 0's.
    """
    if world.size == 1:
        return
    for buffer in own_buffers(model).values():
        dist.all_reduce(buffer, group=world.group)
        buffer /= world.size


def mean_over_ranks(world: World, tensor: torch.Tensor) -> torch.Tensor:
    """Return the mean over the processes, summed in the order of ranks at any length."""
    if world.size == 1:
        return tensor
    everyones = [torch.empty_like(tensor) for _ in range(world.size)]
    dist.all_gather(everyones, tensor, group=world.group)
    total = everyones[0]
    for other in everyones[1:]:
        total = total + other
    return total / world.size


def require_equal_weights(world: World, tensors: Mapping[str, torch.Tensor]) -> None:
    """Check that all processes begin with the same weights.

    Raises:
        ValueError: they do not.
    """
    if world.size == 1:
        return
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    found = gather_objects(world, digest.hexdigest())
    if any(one != found[0] for one in found):
        raise ValueError(
            "the processes begin with different weights; give all machines the same model.weights "
            "and run folder"
        )
