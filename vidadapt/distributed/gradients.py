"""The mean of the processes' gradients, exchanged while the backward pass computes others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from vidadapt.distributed.world import World

EXCHANGED_AT_ONCE = 2**22  # numbers; 16 MiB of fp32


class GradientMeans:
    """The mean of what all processes' clips give as gradients of a model's parameters.

    Gradients travel in buckets of neighbours, about `EXCHANGED_AT_ONCE` numbers each. Buckets start
    in a fixed order, about that of the backward pass, so that the order of sums is the same in
    every step and after every restart, and on all processes, whichever gradient is there first.
    (DistributedDataParallel decides its layout in its first step.)

    Args:
        model: whose trained parameters are meant, without sharded ones, for which there is
            `sharding.divide_gradients`.
        head: its part that comes last; it may have a BatchNorm, which exchanges sums in the
            backward pass.
    """

    def __init__(self, world: World, model: nn.Module, head: nn.Module) -> None:
        trained = [p for p in model.parameters() if p.requires_grad and not isinstance(p, DTensor)]
        of_head = set(head.parameters())
        backbone = [p for p in reversed(trained) if p not in of_head]
        # Nothing may start before the backward pass has left the head and its BatchNorm, since a
        # process without clips exchanges that one's sums first: a backbone's parameter is first.
        self._parameters = [*backbone, *(p for p in trained if p in of_head)]
        self._may_begin_early = bool(backbone)
        self._world, self._is_last_pass = world, False
        self._buckets = list(_buckets(self._parameters)) if world.size > 1 else []
        self._begun: list[dist.Work] = []
        for bucket in self._buckets:
            for parameter, place in zip(bucket.parameters, bucket.places, strict=True):
                parameter.register_post_accumulate_grad_hook(partial(self._take, bucket, place))

    def begin_in_backward(self) -> None:
        """Let the next backward pass, which is the step's last one, start what it is done with.

        Every process that has a backward pass may call it, or not: sums are the same.
        """
        self._is_last_pass = self._may_begin_early

    def _take(self, bucket: _Bucket, place: torch.Tensor, parameter: nn.Parameter) -> None:
        if self._is_last_pass:
            self._put(parameter, place)  # at once, while it is in the processor's cache
            bucket.put += 1
            while len(self._begun) < len(self._buckets):
                first = self._buckets[len(self._begun)]
                if first.put < len(first.parameters):
                    return
                self._begin(first)

    def _put(self, parameter: nn.Parameter, place: torch.Tensor) -> None:
        if parameter.grad is None:
            place.zero_()
        else:
            torch.div(parameter.grad, self._world.size, out=place)
        parameter.grad = place

    def _begin(self, bucket: _Bucket) -> None:
        for parameter, place in zip(bucket.parameters, bucket.places, strict=True):
            if parameter.grad is not place:
                self._put(parameter, place)
        bucket.put = 0
        work = dist.all_reduce(bucket.numbers, group=self._world.group, async_op=True)
        self._begun.append(work)

    def average(
        self, share: float, told: Sequence[float], figures: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Replace every gradient by its mean over the clips that all processes have had.

        A parameter without a gradient counts as zero.

        Args:
            share: part of its clips that this process has had: 1, or less where some were skipped.
                Gradients are sums over these, divided by the number it should have had.
            told: a few numbers that this process tells all others.
            figures: (F,) float32, others that are on the device.

        Returns:
            (1 + F + told,) float32 on the device: the sums over the processes of `share`, `figures`
            and `told`.
        """
        numbers = torch.tensor([share, *map(float, told)], device=self._world.device)
        if figures is not None:
            numbers = torch.cat([numbers[:1], figures, numbers[1:]])
        if self._world.size == 1:
            if 0 < share < 1:
                for parameter in self._parameters:
                    if parameter.grad is not None:
                        parameter.grad /= share
            return numbers
        for bucket in self._buckets[len(self._begun) :]:
            self._begin(bucket)
        last = dist.all_reduce(numbers, group=self._world.group, async_op=True)
        # In their order: an exchange that begins after another has failed may never end in gloo.
        for work in (*self._begun, last):
            work.wait()
        for bucket in self._buckets:
            # On a GPU without looking at the number, for which the host would have to wait.
            if numbers.is_cuda or numbers[0] != self._world.size:
                bucket.numbers *= self._world.size / numbers[0]
        self._begun, self._is_last_pass = [], False
        return numbers


@dataclass
class _Bucket:
    """Parameters whose gradients travel together.

    Attributes:
        numbers: (N,) all gradients, a process's share of the mean and then the mean.
        places: its parts, in the shapes of the parameters.
        put: how many gradients of the step's last backward pass are there.
    """

    parameters: list[nn.Parameter]
    numbers: torch.Tensor
    places: list[torch.Tensor]
    put: int = 0

    @classmethod
    def of(cls, parameters: list[nn.Parameter]) -> _Bucket:
        sizes = [parameter.numel() for parameter in parameters]
        numbers = parameters[0].new_zeros(sum(sizes))
        parts = numbers.split(sizes)
        places = [part.view_as(p) for p, part in zip(parameters, parts, strict=True)]
        return cls(parameters, numbers, places)


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[_Bucket]:
    """Yield the parameters in their order, about `EXCHANGED_AT_ONCE` numbers together."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        bucket.append(parameter)
        if sum(p.numel() for p in bucket) >= EXCHANGED_AT_ONCE:
            yield _Bucket.of(bucket)
            bucket = []
    if bucket:
        yield _Bucket.of(bucket)
