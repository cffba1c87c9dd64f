"""BatchNorm over the clips of all processes, on any device."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

# A tensor of this process -> its sum over all processes, differentiable.
Total = Callable[[Tensor], Tensor]


class GlobalBatchNorm(nn.BatchNorm1d):
    """`BatchNorm1d` without parameters; in training its statistics are those of all processes.

    Sums and numbers of clips are exchanged, so processes may have different numbers of clips, or
    none: mean m and variance v are those of all clips together, y = (x - m) / sqrt(v + eps), and
    running_var takes v n / (n - 1) with the global n. Forward and backward take two exchanges of D
    numbers each, in float64, where the order of sums hardly matters: processes end with the same
    running statistics. All of them must call it, in the same order, and run the backward pass; one
    without a clip calls `without_clips`. One clip in all leaves the running statistics as they
    are; without any they become NaN.

    torch's `SyncBatchNorm` computes the same, on GPUs only. State dict: `BatchNorm1d`'s.

    Args:
        of: module whose settings and buffers are used.
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
        # The backward pass must exchange sums in every process, or in none.
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
        total: see `GlobalBatchNorm`; a function, or an object that copies of the model may share.

    Raises:
        ValueError: the head has no BatchNorm.
    """
    if not (isinstance(head, nn.Sequential) and isinstance(head[0], nn.BatchNorm1d)):
        raise ValueError("this head has no BatchNorm; use model.head batchnorm_linear")
    # A compiler cannot put exchanges between processes into its graph.
    head[0] = GlobalBatchNorm(head[0], torch.compiler.disable(total))


def without_clips(head: nn.Module) -> None:
    """Replace a training step in a process that has no clip for it.

    Run the head forward and backward on zero clips, since the other processes wait for this one's
    share of the sums. Do nothing if no BatchNorm is shared.
    """
    if isinstance(head, nn.Sequential) and isinstance(head[0], GlobalBatchNorm):
        running = cast(Tensor, head[0].running_mean)
        head(running.new_zeros((0, len(running)))).sum().backward()


def require_two_clips(head: nn.Module, files: list[str], step: int) -> None:
    """Refuse a batch of which one clip alone is there, where BatchNorm needs two.

    Raises:
        ValueError: names the step and the clip.
    """
    if any(type(module) is nn.BatchNorm1d for module in head.modules()):
        raise ValueError(
            f"step {step}: of a batch only {files[-1]} could be had, and BatchNorm needs 2 "
            "clips (skipped.jsonl has the others); raise train.batch_size, set "
            "train.sync_batchnorm, or use model.head linear, and go on with --resume"
        )
