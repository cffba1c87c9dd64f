"""The training loop, top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional
from torch.profiler import record_function
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from vidadapt import runs
from vidadapt.config import TrainConfig
from vidadapt.data.epochs import EpochBatches
from vidadapt.data.mixing import mix_batch
from vidadapt.data.transforms import normalize
from vidadapt.distributed import World, average_buffers, parallel, sum_over_ranks, without_sync
from vidadapt.epoch_log import say_epoch, write_log
from vidadapt.methods import load_trainable_state, train_mode, trainable_state
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
    """Train what requires a gradient; one checkpoint and one log line an epoch.

    Args:
        model: what `prepare` gives -> logits (B, K), on `world.device`, already frozen and
            injected.
        loader: batches {"label": int64 (B,), "index": int64 (B,), ...}, the rest being for
            `prepare`; its `batch_sampler` is an `EpochBatches`.
        prepare: batch -> what the model takes, on `world.device`, e.g. `normalized_clip`.
        paths: list paths of the training samples, for messages.
        loss: mean loss from float32 logits (B, K) and the batch's targets, e.g.
            `classification_loss`.
        description: written beside the weights, with the results of the epoch as `metrics`.
        facts: kept with the trainer state, for the caller to compare before it resumes.
        resume_state: what `runs.load_trainer` gave; continues after its epoch. Its tensors are
            dropped once they are in place.
        validate: accuracies of the current weights, e.g. {"dev_top1": 61.2, ...}.
        select_best: keep the checkpoint with the best `dev_top1`.
        phase: entered with its name around each part of a step; e.g. `StepProfiler.phase`.

    Returns:
        Summary: epochs, steps, seconds; `last`, the last epoch's log line; `best`, the results of
        the best epoch or None.

    Raises:
        NonFiniteLoss: with step and files; nothing is overwritten.
    """
    sampler = cast(EpochBatches, loader.batch_sampler)
    steps = sampler.steps
    clips_per_step = sampler.keys_per_epoch // steps
    schedule = {
        "total_steps": recipe.epochs * steps,
        "warmup_steps": round(recipe.warmup_epochs * steps),
        "peak": effective_lr(recipe.base_lr, clips_per_step),
        "minimum": recipe.min_lr,
    }
    groups = parameter_groups(
        model,
        depth=model.depth,
        weight_decay=recipe.weight_decay,
        layer_decay=recipe.layer_decay,
    )
    optimizer = build_optimizer(recipe.optimizer, groups)
    scaler = torch.amp.GradScaler(world.device.type, enabled=recipe.precision == "fp16")
    average = WeightAverage(model, recipe.ema) if recipe.ema > 0 else None
    state: dict[str, Any] = {"epoch": 0, "seconds": 0.0, "best": None, "latest": {}}
    if resume_state is not None:
        _restore(resume_state, model, optimizer, scaler, average)
        state = {key: resume_state[key] for key in state}
        resume_state.clear()
    if recipe.compile:
        model.compile()
    wrapped = parallel(world, model)
    board = (
        SummaryWriter(run_dir / "tensorboard", purge_step=state["epoch"] * steps)
        if world.is_main
        else None
    )

    for epoch in range(state["epoch"], recipe.epochs):
        began = time.monotonic()
        sampler.set_epoch(epoch)
        torch.manual_seed(_mixed_seed(recipe.seed, epoch, world.rank))
        train_mode(model)
        losses, lrs, waited = _train_epoch(
            wrapped,
            loader,
            first_step=epoch * steps,
            label=f"epoch {epoch + 1}/{recipe.epochs}",
            recipe=recipe,
            schedule=schedule,
            num_classes=num_classes,
            prepare=prepare,
            paths=paths,
            loss_function=loss,
            world=world,
            optimizer=optimizer,
            scaler=scaler,
            average=average,
            phase=phase,
        )
        train_seconds = time.monotonic() - began
        step_losses = (sum_over_ranks(world, losses) / world.size).tolist()
        average_buffers(world, model)
        _check_finite(model)
        if average is not None:
            average.swap(model)
        results = validate() if validate is not None else {}
        evaluated = {name: tensor.clone() for name, tensor in trainable_state(model).items()}
        if average is not None:
            average.swap(model)
        is_best = select_best and (
            state["best"] is None or results["dev_top1"] > state["best"]["dev_top1"]
        )
        state = {
            "epoch": epoch + 1,
            "seconds": state["seconds"] + time.monotonic() - began,
            "best": {"epoch": epoch + 1, **results} if is_best else state["best"],
            "latest": {
                "epoch": epoch + 1,
                "train_loss": sum(step_losses) / len(step_losses),
                "lr": lrs[-1],
                "clips_per_second": sampler.keys_per_epoch / train_seconds,
                "loader_wait_share": waited / train_seconds,
                "train_seconds": train_seconds,
                "validate_seconds": time.monotonic() - began - train_seconds,
                **results,
            },
        }
        if board is not None:
            trainer = {
                **state,
                "trained": {k: v.cpu() for k, v in trainable_state(model).items()},
                "optimizer": optimizer.state_dict(),
                "scaler": scaler.state_dict(),
                "average": None if average is None else average.values,
                "facts": facts,
            }
            write_log(run_dir, board, epoch, steps, step_losses, lrs, state["latest"])
            about = {**description, "metrics": {"epoch": epoch + 1, **results}}
            if is_best:
                runs.save_checkpoint(run_dir / "best", evaluated, about)
            runs.save_checkpoint(run_dir / "last", evaluated, about, trainer)
            say_epoch(state, recipe.epochs)
    if board is not None:
        board.close()
    return {
        "epochs": state["epoch"],
        "steps": state["epoch"] * steps,
        "seconds": state["seconds"],
        "best": state["best"],
        "last": state["latest"],
    }


def _train_epoch(
    model: nn.Module,
    loader: DataLoader,
    *,
    first_step: int,
    label: str,
    recipe: TrainConfig,
    schedule: dict[str, Any],
    num_classes: int,
    prepare: Callable[[dict[str, Any]], Any],
    paths: list[str],
    loss_function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    world: World,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: WeightAverage | None,
    phase: Callable[[str], AbstractContextManager[None]],
) -> tuple[torch.Tensor, list[float], float]:
    """One pass; (loss per optimiser step on this rank, learning rates, seconds spent waiting)."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    losses: list[torch.Tensor] = []
    lrs: list[float] = []
    waiting = [0.0]
    pending: Callable[[], None] | None = None
    clips_per_batch = recipe.batch_size * world.size
    batches = track(
        _timed(loader, waiting, phase),
        total=len(loader) * clips_per_batch,
        label=label,
        unit="clips",
        units_per_item=clips_per_batch,
        shown=world.is_main,
    )
    for number, batch in enumerate(batches):
        step, micro = first_step + number // recipe.accumulation, number % recipe.accumulation
        last_micro = micro == recipe.accumulation - 1
        if micro == 0:
            lrs.append(lr_at(step, **schedule))
            set_lr(optimizer, lrs[-1])
            losses.append(torch.zeros((), device=world.device))
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
                step=(step * recipe.accumulation + micro) * world.size + world.rank,
            )
        with without_sync(model, not last_micro):
            with phase("forward"):
                with autocast(world.device, recipe.precision):
                    logits = model(inputs)
                loss = loss_function(logits.float(), targets)
            with phase("backward"):
                scaler.scale(loss / recipe.accumulation).backward()
        losses[-1] += loss.detach() / recipe.accumulation
        if pending is not None:
            pending()
        pending = _later_check(loss.detach(), step, [paths[i] for i in batch["index"].tolist()])
        if not last_micro:
            continue
        with phase("optimiser"):
            if recipe.clip_grad > 0:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(parameters, recipe.clip_grad)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            if average is not None:
                average.update(getattr(model, "module", model))
    if pending is not None:
        pending()
    return torch.stack(losses).cpu(), lrs, waiting[0]


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


def _later_check(loss: torch.Tensor, step: int, files: list[str]) -> Callable[[], None]:
    """Start copying the loss to the host; the returned check raises if it is not finite.

    The check is called while the next step computes, so that the device never waits for it.
    """
    on_host = loss.to("cpu", non_blocking=True)
    copied = torch.cuda.Event() if loss.is_cuda else None
    if copied is not None:
        copied.record()

    def check() -> None:
        if copied is not None:
            copied.synchronize()
        if not torch.isfinite(on_host):
            more = f" and {len(files) - 8} more" if len(files) > 8 else ""
            raise NonFiniteLoss(
                f"the loss is {on_host.item()} at step {step}, on {', '.join(files[:8])}{more}. "
                + UNHARMED
            )

    return check


def _check_finite(model: nn.Module) -> None:
    for name, tensor in trainable_state(model).items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise NonFiniteLoss(f"{name} is no longer finite at the end of this epoch. {UNHARMED}")


def _mixed_seed(seed: int, epoch: int, rank: int) -> int:
    """One number for torch's generator (dropout, drop path) of this epoch on this rank."""
    return ((seed * 1_000_003 + epoch) * 65_537 + rank) % 2**63


def _restore(
    saved: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: WeightAverage | None,
) -> None:
    load_trainable_state(model, saved["trained"], runs.TRAINER)
    optimizer.load_state_dict(saved["optimizer"])
    scaler.load_state_dict(saved["scaler"])
    if average is not None:
        for name, value in average.values.items():
            value.copy_(saved["average"][name])
