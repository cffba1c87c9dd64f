"""The training loop, top to bottom."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional
from torch.profiler import record_function
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from vidadapt import checkpoints
from vidadapt.config import TrainConfig
from vidadapt.data.epochs import EpochBatches
from vidadapt.data.mixing import mix_batch
from vidadapt.data.transforms import normalize
from vidadapt.distributed import (
    World,
    average_buffers,
    average_gradients,
    gather_objects,
    mean_over_ranks,
    require_equal_weights,
    together,
)
from vidadapt.epoch_log import say_epoch, write_log
from vidadapt.methods import train_mode, trainable_state
from vidadapt.models import VideoModel
from vidadapt.optim import (
    WeightAverage,
    build_optimizer,
    effective_lr,
    lr_at,
    parameter_groups,
    set_lr,
)
from vidadapt.precision import autocast
from vidadapt.profiling import WAIT
from vidadapt.progress import track
from vidadapt.resuming import Progress, Stopped, Trained, copied, own_buffers, stop_requests

UNHARMED = (
    "The last checkpoint is unharmed; lower train.base_lr, set train.clip_grad, or use "
    "train.precision bf16 or fp32"
)


class NonFiniteLoss(RuntimeError):
    """The loss or a trained tensor became NaN or infinite."""


def fit(
    model: VideoModel,
    loader: DataLoader,
    *,
    recipe: TrainConfig,
    num_classes: int,
    prepare: Callable[[dict[str, Any]], Any],
    paths: list[str],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    world: World,
    run_dir: Path,
    description: dict[str, Any],
    facts: dict[str, Any],
    resume_state: dict[str, Any] | None,
    validate: Callable[[], dict[str, float]] | None,
    select_best: bool,
    phase: Callable[[str], AbstractContextManager[None]] = record_function,
) -> dict[str, Any]:
    """Train what requires a gradient; a log line an epoch, checkpoints then and in between.

    Args:
        model: what `prepare` gives -> logits (B, K), on `world.device`, already frozen and
            injected.
        loader: batches {"label": int64 (B,), "index": int64 (B,), ...}, the rest being for
            `prepare`; its `batch_sampler` is an `EpochBatches`. A batch may be smaller than
            `recipe.batch_size`: what was skipped counts in no mean.
        prepare: batch -> what the model takes, on `world.device`, e.g. `normalized_clip`.
        paths: list paths of the training samples, for messages.
        loss: mean loss from float32 logits (B, K) and the batch's targets, e.g.
            `classification_loss`.
        description: written beside the weights, with the results of the epoch as `metrics`.
        facts: kept with the trainer state, for the caller to compare before it resumes.
        resume_state: what `checkpoints.load_trainer` gave; continues after its last step. Its
            tensors are dropped once they are in place.
        validate: accuracies of the current weights, e.g. {"dev_top1": 61.2, ...}.
        select_best: keep the checkpoint with the best `dev_top1`.
        phase: entered with its name around each part of a step; e.g. `StepProfiler.phase`.

    Returns:
        Summary: epochs, steps, seconds; `last`, the last epoch's log line; `best`, the results of
        the best epoch or None.

    Raises:
        NonFiniteLoss: with step and files; nothing is overwritten.
        Stopped: by a signal, after a checkpoint was written.
        RunError: a checkpoint could not be written; the ones before are whole.
    """
    sampler = cast(EpochBatches, loader.batch_sampler)
    groups = parameter_groups(
        model,
        depth=model.depth,
        weight_decay=recipe.weight_decay,
        layer_decay=recipe.layer_decay,
    )
    trained = Trained(
        model,
        build_optimizer(recipe.optimizer, groups),
        torch.amp.GradScaler(world.device.type, enabled=recipe.precision == "fp16"),
        WeightAverage(model, recipe.ema) if recipe.ema > 0 else None,
    )
    progress = Progress()
    if resume_state is not None:
        progress = trained.restore(world, resume_state)
        resume_state.clear()
    require_equal_weights(world, dict(model.named_parameters()))
    if recipe.compile:
        model.compile()
    board = (
        SummaryWriter(run_dir / "tensorboard", purge_step=progress.steps - len(progress.losses))
        if world.is_main
        else None
    )

    with stop_requests() as request, checkpoints.Writer() as writer:
        saved_at = time.monotonic()

        def wishes() -> tuple[bool, bool]:
            """To stop, to save: of this process."""
            minutes = (time.monotonic() - saved_at) / 60
            overdue = world.is_main and 0 < recipe.checkpoint_minutes <= minutes
            return request.number is not None, overdue

        def save(evaluated: dict[str, torch.Tensor], state: dict[str, Any], is_best: bool) -> None:
            about = {**description, "metrics": state["progress"]["latest"]}
            if is_best:
                writer.save(run_dir / "best", evaluated, about)
            writer.save(run_dir / "last", evaluated, about, state, keep=recipe.keep_checkpoints)

        for epoch in range(progress.epoch, recipe.epochs):
            sampler.set_epoch(epoch, progress.consumed)
            train_mode(model)
            stretch = Stretch()
            for step in _optimiser_steps(
                trained,
                loader,
                label=f"epoch {epoch + 1}/{recipe.epochs}",
                recipe=recipe,
                num_classes=num_classes,
                prepare=prepare,
                paths=paths,
                loss_function=loss,
                world=world,
                wishes=wishes,
                waiting=stretch.waiting,
                phase=phase,
            ):
                stretch.steps.append(step)
                progress.steps += 1
                progress.consumed += sampler.global_batch
                stop = overdue = False
                if len(stretch.steps) > step.lag:
                    stop, overdue = stretch.steps[-1 - step.lag].checked()
                every = recipe.checkpoint_steps
                if stop or overdue or (every and progress.steps % every == 0):
                    step.checked()
                    stretch.settle(world, progress)
                    _check_finite(model)
                    buffers = gather_objects(world, copied(own_buffers(model)))
                    if world.is_main:
                        save(trained.evaluated(), trained.snapshot(progress, buffers, facts), False)
                    saved_at = time.monotonic()
                if stop:
                    with together(world):
                        writer.wait()
                    raise Stopped(request.number or signal.SIGTERM)
            if stretch.steps:
                stretch.steps[-1].checked()
                average_buffers(world, model)
            stretch.settle(world, progress)
            _check_finite(model)

            began = time.monotonic()
            try:
                with trained.averaged(), request.heeded_at_once():
                    results = validate() if validate is not None else {}
            except Stopped:
                if world.is_main:
                    buffers = [copied(own_buffers(model))]
                    save(trained.evaluated(), trained.snapshot(progress, buffers, facts), False)
                raise
            validate_seconds = time.monotonic() - began
            is_best = select_best and (
                progress.best is None or results["dev_top1"] > progress.best["dev_top1"]
            )
            losses, lrs = progress.losses, progress.lrs
            latest = {
                "epoch": epoch + 1,
                "train_loss": sum(losses) / len(losses),
                "lr": lrs[-1],
                "clips_per_second": sampler.keys_per_epoch / progress.train_seconds,
                "loader_wait_share": progress.waited / progress.train_seconds,
                "train_seconds": progress.train_seconds,
                "validate_seconds": validate_seconds,
                **results,
            }
            progress = Progress(
                epoch=epoch + 1,
                steps=progress.steps,
                seconds=progress.seconds + validate_seconds,
                best={"epoch": epoch + 1, **results} if is_best else progress.best,
                latest=latest,
            )
            if board is not None:
                write_log(run_dir, board, progress.steps, losses, lrs, latest)
                buffers = [copied(own_buffers(model))]
                save(trained.evaluated(), trained.snapshot(progress, buffers, facts), is_best)
                say_epoch(latest, progress.seconds, recipe.epochs)
            saved_at = time.monotonic()
    if board is not None:
        board.close()
    return {
        "epochs": progress.epoch,
        "steps": progress.steps,
        "seconds": progress.seconds,
        "best": progress.best,
        "last": progress.latest,
    }


@dataclass(frozen=True)
class Step:
    """An optimiser step on this process.

    Attributes:
        number: of the run's steps, from 0.
        lr: learning rate.
        figures: (4,) on the device: the mean loss of this process's clips; and of all processes,
            summed, the share of the step's clips that they had and who wishes to stop and to save.
        files: list paths of this process's clips.
        lag: steps that may begin before `checked`, so that a GPU never waits.
    """

    number: int
    lr: float
    figures: torch.Tensor
    files: list[str]
    lag: int
    _on_host: Callable[[], list[float]] = field(repr=False)

    def checked(self) -> tuple[bool, bool]:
        """Whether a process wishes to stop, and to save.

        Raises:
            NonFiniteLoss: the loss is not finite, or no clip of the step was there.
        """
        loss, share, stop, overdue = self._on_host()
        if share == 0:
            raise NonFiniteLoss(f"every clip of step {self.number} was skipped. {UNHARMED}")
        if not math.isfinite(loss):
            more = f" and {len(self.files) - 8} more" if len(self.files) > 8 else ""
            raise NonFiniteLoss(
                f"the loss is {loss} at step {self.number}, on {', '.join(self.files[:8])}{more}. "
                + UNHARMED
            )
        return stop > 0, overdue > 0


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
            progress.losses += means.tolist()
            progress.lrs += [step.lr for step in self.steps]
        self.steps.clear()
        self.waiting[0] = 0.0
        self._began = now


def _optimiser_steps(
    trained: Trained,
    loader: DataLoader,
    *,
    label: str,
    recipe: TrainConfig,
    num_classes: int,
    prepare: Callable[[dict[str, Any]], Any],
    paths: list[str],
    loss_function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    world: World,
    wishes: Callable[[], tuple[bool, bool]],
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
        files += [paths[i] for i in batch["index"].tolist()]
        there = len(batch["index"]) / recipe.batch_size
        if there:
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
                with autocast(world.device, recipe.precision):
                    logits = model(inputs)
                loss = loss_function(logits.float(), targets) * there / recipe.accumulation
            with phase("backward"):
                scaler.scale(loss).backward()
            mean_loss += loss.detach()
            share += there / recipe.accumulation
        if micro < recipe.accumulation - 1:
            continue
        with phase("exchange"):
            numbers = average_gradients(world, parameters, share, wishes())
        with phase("optimiser"):
            if recipe.clip_grad > 0:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(parameters, recipe.clip_grad)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            if trained.average is not None:
                trained.average.update(model)
        figures = torch.cat([mean_loss[None], numbers])
        lag = 0 if world.device.type == "cpu" else 1
        yield Step(step, lr, figures, files, lag, _to_host(figures))
        step += 1


def normalized_clip(
    batch: dict[str, Any], *, normalization: str, device: torch.device
) -> torch.Tensor:
    """The uint8 `clip` (B, 3, T, S, S) of a batch as a model takes it: float32, on the device."""
    return normalize(batch["clip"].to(device, non_blocking=True), normalization)


def classification_loss(
    logits: torch.Tensor, targets: torch.Tensor, label_smoothing: float
) -> torch.Tensor:
    """Mean cross-entropy of (B, K) logits.

    `targets` are class numbers (B,), smoothed here, or distributions (B, K) as mixing gives them,
    taken as they are.
    """
    smoothing = label_smoothing if targets.ndim == 1 else 0.0
    return functional.cross_entropy(logits, targets, label_smoothing=smoothing)


def _timed(
    loader: Iterable, waiting: list[float], phase: Callable[[str], AbstractContextManager[None]]
) -> Iterator:
    """The loader's batches, adding up the seconds spent waiting for them."""
    batches = iter(loader)
    while True:
        began = time.monotonic()
        with phase(WAIT):
            batch = next(batches, None)
        waiting[0] += time.monotonic() - began
        if batch is None:
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


def _check_finite(model: nn.Module) -> None:
    for name, tensor in trainable_state(model).items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise NonFiniteLoss(f"{name} is no longer finite at the end of this epoch. {UNHARMED}")


def _mixed_seed(seed: int, place: int) -> int:
    """One number for torch's generator (dropout, drop path) in the batch at this place."""
    return (seed * 1_000_003 * 65_537 + place) % 2**63
