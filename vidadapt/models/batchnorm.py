"""BatchNorm over the clips of all processes, on any device."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

# A tensor of this process -> its sum over all of them, through which gradients pass.
Total = Callable[[Tensor], Tensor]


class GlobalBatchNorm(nn.BatchNorm1d):
    """`BatchNorm1d` without parameters, whose statistics in training are those of all processes.

    Sums and the numbers of clips are exchanged, so that processes may have different numbers of
    clips, or none: mean m and variance v are those of all clips together, y = (x - m) / sqrt(v +
    eps), and running_var takes v n / (n - 1) with the global n. Two exchanges of D numbers forward
    and two backward, all in float64, which leaves little of the order of sums: processes end with
    the same running statistics. All of them must call it, in the same order, and take the backward
    pass; one without a clip does with `without_clips`. With fewer than two clips in all,
    running_var becomes NaN.

    torch's `SyncBatchNorm` computes the same, on GPUs only. State dict: `BatchNorm1d`'s.

    Args:
        of: whose settings and buffers it takes over.
        total: sums over the processes.
    """

    def __init__(self, of: nn.BatchNorm1d, total: Total) -> None:
        super().__init__(of.num_features, eps=of.eps, momentum=of.momentum, affine=False)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            setattr(self, name, getattr(of, name))
        self.train(of.training)
        self.total = total

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, D) of its type; B may be 0 in training."""
        if not self.training:
            return super().forward(x)
        # Its backward pass exchanges sums in every process, or in none.
        wide = x.double() if x.requires_grad else x.detach().double().requires_grad_()
        sums = self.total(torch.cat([wide.sum(0), wide.new_full((1,), len(x))]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = wide - mean
        variance = self.total(centred.square().sum(0)) / count
        with torch.no_grad():
            unbiased = variance * (count / (count - 1).clamp(min=1))
            # One clip alone says nothing about how clips vary.
            share = (count > 1).double() * cast(float, self.momentum)
            self._follow(self.running_mean, mean, share)
            self._follow(self.running_var, unbiased, share)
            cast(Tensor, self.num_batches_tracked).add_(1)
        return (centred * torch.rsqrt(variance + self.eps)).to(x.dtype)

    def _follow(self, running: Tensor | None, value: Tensor, share: Tensor) -> None:
        assert running is not None
        running.copy_(running.double().lerp(value, share))


def over_all_processes(head: nn.Module, total: Total) -> None:
    """Let the BatchNorm of a `batchnorm_linear` head see the clips of all processes.

    Args:
        head: edited in place; its tensors and their names stay.
        total: see `GlobalBatchNorm`. A function, or another object that a copy of the model may
            share.

    Raises:
        ValueError: the head has no BatchNorm.
    """
    if not (isinstance(head, nn.Sequential) and isinstance(head[0], nn.BatchNorm1d)):
        raise ValueError("this head has no BatchNorm; use model.head batchnorm_linear")
    # Exchanges between processes are nothing that a compiler could put into its graph.
    head[0] = GlobalBatchNorm(head[0], torch.compiler.disable(total))


def without_clips(head: nn.Module) -> None:
    """What a process does in the place of a training step for which it has no clip.

    Forward and backward pass of the head with none of them, since the others wait for its share of
    the sums. Nothing, if no BatchNorm is shared.
    """
    if isinstance(head, nn.Sequential) and isinstance(head[0], GlobalBatchNorm):
        running = cast(Tensor, head[0].running_mean)
        head(running.new_zeros((0, len(running)))).sum().backward()
