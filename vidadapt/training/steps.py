"""Optimiser steps: batches, forward, backward, the exchange between processes, and what it says."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader

from vidadapt.config import TrainConfig
from vidadapt.console.progress import track
from vidadapt.data.epochs import EpochBatches
from vidadapt.data.mixing import mix_batch
from vidadapt.distributed import World, average_gradients, exchange, mean_over_ranks
from vidadapt.models import VideoModel
from vidadapt.models.batchnorm import without_clips
from vidadapt.models.precision import NonFinite, autocast
from vidadapt.training.optim import effective_lr, lr_at, set_lr
from vidadapt.training.profiling import WAIT
from vidadapt.training.resuming import Progress, StepRecord, TrainingState
from vidadapt.training.sharding import divide_gradients, empty_pass, is_part, is_sharded
from vidadapt.video.readers import ReadError

UNHARMED = (
    "The last checkpoint is unharmed; lower train.base_lr, set train.clip_grad, or use "
    "train.precision bf16 or fp32"
)


@dataclass(frozen=True)
class Step:
    """An optimiser step on this process.

    Attributes:
        number: of the run's steps, from 0.
        lr: learning rate.
        figures: (5,) on the device: the sum of this process's losses over its number of clips if
            none was skipped; and summed over all processes the share of these clips that were
            there, how many processes wish to stop and to save, and clips skipped in the epoch.
        files: list paths of this process's clips.
    """

    number: int
    lr: float
    figures: torch.Tensor
    files: list[str]
    _on_host: Callable[[], list[float]] = field(repr=False)

    def checked(self) -> list[float]:
        """How many processes wish to stop, and to save; and clips skipped in the epoch.

        Raises:
            NonFinite: the loss is not finite.
            ReadError: no clip of the step was there.
        """
        loss, share, *rest = self._on_host()
        if share == 0:
            raise ReadError(
                f"every clip of step {self.number} was skipped (skipped.jsonl has them): mend the "
                "files or raise train.batch_size, then go on with --resume"
            )
        if not math.isfinite(loss):
            more = f" and {len(self.files) - 8} more" if len(self.files) > 8 else ""
            raise NonFinite(
                f"the loss is {loss} at step {self.number}, on {', '.join(self.files[:8])}{more}. "
                + UNHARMED
            )
        return rest


class Stretch:
    """The steps since the last checkpoint or epoch.

    Attributes:
        steps: made so far.
        waiting: seconds spent waiting for data, its one item.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.waiting = [0.0]
        self._began = time.monotonic()

    def settle(self, world: World, progress: Progress) -> None:
        """Put what they came to into the progress, all processes together; begin anew."""
        now = time.monotonic()
        progress.train_seconds += now - self._began
        progress.seconds += now - self._began
        progress.waited += self.waiting[0]
        if self.steps:
            loss, share = torch.stack([step.figures[:2] for step in self.steps]).unbind(1)
            means = mean_over_ranks(world, loss.contiguous()) * (world.size / share)
            progress.records += [
                StepRecord(loss=mean, lr=step.lr)
                for mean, step in zip(means.tolist(), self.steps, strict=True)
            ]
        self.steps.clear()
        self.waiting[0] = 0.0
        self._began = now


def optimiser_steps(
    trained: TrainingState,
    loader: DataLoader,
    *,
    label: str,
    recipe: TrainConfig,
    num_classes: int,
    prepare: Callable[[dict[str, Any]], Any],
    paths: Sequence[str],
    loss_function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    world: World,
    told: Callable[[], tuple[float, ...]],
    waiting: list[float],
    phase: Callable[[str], AbstractContextManager[None]],
) -> Iterator[Step]:
    """What is left of the loader's epoch, a step at a time."""
    model, optimizer, scaler = trained.model, trained.optimizer, trained.scaler
    sampler = cast(EpochBatches, loader.batch_sampler)
    schedule = partial(
        lr_at,
        total_steps=recipe.epochs * sampler.steps,
        warmup_steps=round(recipe.warmup_epochs * sampler.steps),
        peak=effective_lr(recipe.base_lr, sampler.global_batch),
        minimum=recipe.min_lr,
    )
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    whole = [p for p in parameters if not is_part(p)]
    # Remembered copies of weights would stay whole until the forward pass has ended.
    computing = autocast(world.device, recipe.precision, remember=not is_sharded(model))
    clips_per_batch = recipe.batch_size * world.size
    batches = track(
        _timed(loader, waiting, phase),
        total=len(loader) * clips_per_batch,
        label=label,
        unit="clips",
        units_per_item=clips_per_batch,
        shown=world.is_main,
    )
    step = sampler.epoch * sampler.steps + sampler.consumed // sampler.global_batch
    for number, batch in enumerate(batches):
        micro = number % recipe.accumulation
        # Of all batches of the run, in the same order with any number of processes.
        place = (step * world.size + world.rank) * recipe.accumulation + micro
        torch.manual_seed(_mixed_seed(recipe.seed, place))
        if micro == 0:
            lr = schedule(step)
            set_lr(optimizer, lr)
            mean_loss, share = torch.zeros((), device=world.device), 0.0
            files = list[str]()
        there = 0.0
        if batch is not None:
            files += [paths[i] for i in batch["index"].tolist()]
            there = len(batch["index"]) / recipe.batch_size
            if len(batch["index"]) == 1 < recipe.batch_size and _needs_two(model.head):
                raise ValueError(
                    f"step {step}: of a batch only {files[-1]} could be had, and BatchNorm needs 2 "
                    "clips (skipped.jsonl has the others); raise train.batch_size, set "
                    "train.sync_batchnorm, or use model.head linear, and go on with --resume"
                )
            with phase("copy"):
                inputs = prepare(batch)
                targets = batch["label"].to(world.device, non_blocking=True)
            if recipe.mixup > 0 or recipe.cutmix > 0:
                inputs, targets = mix_batch(
                    inputs,
                    targets,
                    num_classes,
                    mixup_alpha=recipe.mixup,
                    cutmix_alpha=recipe.cutmix,
                    label_smoothing=recipe.label_smoothing,
                    seed=recipe.seed,
                    step=place,
                )
            with phase("forward"):
                with computing:
                    logits = model(inputs)
                loss = loss_function(logits.float(), targets) * there / recipe.accumulation
            with phase("backward"):
                scaler.scale(loss).backward()
            mean_loss += loss.detach()
            share += there / recipe.accumulation
        elif is_sharded(model):
            with computing:
                nothing = empty_pass(cast(VideoModel, model), world.device)
            scaler.scale(nothing).backward()
        else:
            without_clips(cast(nn.Module, model.head))
        if micro < recipe.accumulation - 1:
            continue
        this = partial("step {}".format, step)
        with phase("exchange"), exchange(world, this, recipe.patience_minutes):
            numbers = average_gradients(world, whole, share, told())
            divide_gradients(parameters, numbers[0])
        with phase("optimiser"):
            if share > 0 or world.size > 1:  # else there is no gradient, which a scaler refuses
                if recipe.clip_grad > 0:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(parameters, recipe.clip_grad)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad(set_to_none=True)
            if trained.average is not None:
                trained.average.update(model, step)
        figures = torch.cat([mean_loss[None], numbers])
        yield Step(step, lr, figures, files, _to_host(figures))
        step += 1


def _needs_two(head: Any) -> bool:
    return any(type(module) is nn.BatchNorm1d for module in head.modules())


def _timed(
    loader: Iterable, waiting: list[float], phase: Callable[[str], AbstractContextManager[None]]
) -> Iterator:
    """The loader's batches, adding up the seconds spent waiting for them."""
    batches = iter(loader)
    end = object()
    while True:
        began = time.monotonic()
        with phase(WAIT):
            batch = next(batches, end)
        waiting[0] += time.monotonic() - began
        if batch is end:
            return
        yield batch


def _to_host(figures: torch.Tensor) -> Callable[[], list[float]]:
    """Start copying figures to the host; the function waits for them."""
    on_host = figures.to("cpu", non_blocking=True)
    copied = torch.cuda.Event() if figures.is_cuda else None
    if copied is not None:
        copied.record()

    def values() -> list[float]:
        if copied is not None:
            copied.synchronize()
        return on_host.tolist()

    return values


def _mixed_seed(seed: int, place: int) -> int:
    """One number for torch's generator (dropout, drop path) in the batch at this place."""
    return (seed * 1_000_003 * 65_537 + place) % 2**63
