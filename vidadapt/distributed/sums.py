"""Sums and means over processes: gradients, buffers, figures; and whether all hold the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from vidadapt.distributed.world import World, gather_objects

EXCHANGED_AT_ONCE = 2**25  # numbers; 128 MiB of fp32


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


def average_gradients(
    world: World,
    parameters: Sequence[nn.Parameter],
    share: float,
    told: Sequence[float],
    figures: torch.Tensor | None = None,
) -> torch.Tensor:
    """Replace every gradient by its mean over the clips that all processes have had.

    One exchange after the last backward, in the parameters' order, so that the order of sums is
    the same in every step and after every restart. (DistributedDataParallel exchanges while
    backward computes, in buckets whose layout its first step decides; for the few per cent of
    parameters that are trained here there is little to hide.) A parameter without a gradient counts
    as zero.

    Args:
        parameters: without the sharded ones, see `sharding.divide_gradients`.
        share: part of its clips that this process has had: 1, or less where some were skipped.
            Gradients are sums over these, divided by the number it should have had.
        told: a few numbers that this process tells all others.
        figures: (F,) float32, others that are on the device.

    Returns:
        (1 + F + told,) float32 on the device: the sums over the processes of `share`, `figures`
        and `told`.
    """
    numbers = torch.tensor([share, *map(float, told)], device=world.device)
    if figures is not None:
        numbers = torch.cat([numbers[:1], figures, numbers[1:]])
    if world.size == 1:
        if 0 < share < 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad /= share
        return numbers
    chunks = list(_chunks(parameters))
    flats = [
        torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in chunk])
        for chunk in chunks
    ]
    for tensor in (numbers, *flats):
        dist.all_reduce(tensor, group=world.group)
    for chunk, flat in zip(chunks, flats, strict=True):
        flat /= numbers[0]
        parts = flat.split([parameter.numel() for parameter in chunk])
        for parameter, part in zip(chunk, parts, strict=True):
            parameter.grad = part.view_as(parameter)
    return numbers


def _chunks(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Yield the parameters in their order, about `EXCHANGED_AT_ONCE` numbers together."""
    chunk: list[nn.Parameter] = []
    for parameter in parameters:
        chunk.append(parameter)
        if sum(p.numel() for p in chunk) >= EXCHANGED_AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


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
