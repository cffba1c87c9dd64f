"""The training loop, top to bottom: epochs in `fit`, batches and steps in `train_epoch`."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import record_function

from vidadapt.config import TrainConfig
from vidadapt.console import track
from vidadapt.data import Batches, SkipLog, mix_batch
from vidadapt.distributed import (
    Stopped,
    World,
    average_buffers,
    average_gradients,
    exchange,
    own_buffers,
    require_equal_weights,
    together,
)
from vidadapt.files import Lock
from vidadapt.launching import StopRequest, located, stop_requests
from vidadapt.methods import train_mode
from vidadapt.models import VideoModel, autocast, require_two_clips, without_clips
from vidadapt.runs import CheckpointWriter
from vidadapt.training.log import open_board, say_epoch, write_log
from vidadapt.training.losses import classification_loss
from vidadapt.training.optim import scheduled_lr, set_lr
from vidadapt.training.sharding import (
    divide_gradients,
    empty_pass,
    is_part,
    is_sharded,
    shard,
    whole,
)
from vidadapt.training.state import Progress, Saving, TrainingState, check_finite
from vidadapt.training.steps import Step, Stretch, Told, batch_seed, write_checkpoint
from vidadapt.training.trackers import open_trackers
from vidadapt.training.validation import Validation

Phase = Callable[[str], AbstractContextManager[None]]


def fit(
    model: VideoModel,
    batches: Batches,
    *,
    recipe: TrainConfig,
    num_classes: int,
    paths: Sequence[str],
    world: World,
    run_dir: Path,
    description: dict[str, Any],
    facts: dict[str, Any],
    resume_state: dict[str, Any] | None,
    validation: Validation | None,
    select_best: bool,
    class_weights: torch.Tensor | None,
    skips: SkipLog | None = None,
    lock: Lock | None = None,
    phase: Phase = record_function,
) -> dict[str, Any]:
    """Train what requires a gradient; a log line an epoch, checkpoints then and in between.

    Args:
        model: what `batches.prepare` gives -> logits (B, K), on `world.device`, already frozen and
            injected.
        paths: list paths of the training samples, for messages.
        description: written beside the weights, with the results of the epoch as `metrics`.
        facts: kept with the trainer state, for the caller to compare before it resumes.
        resume_state: what `checkpoints.load_trainer` gave; continues after its last step. Its
            tensors are dropped once they are in place.
        validation: done after each epoch.
        select_best: keep the checkpoint with the best `dev_top1`; of equal ones that with the
            lower `dev_loss`, of equal ones the later. After
            `recipe.early_stopping_patience` epochs without a better one the run ends.
        class_weights: see `classification_loss`.
        skips: of the batches; its cap holds for all processes together.
        lock: of the run folder; nothing is written once another process has taken it over.
        phase: entered with its name around each part of a step; e.g. `StepProfiler.phase`.

    Returns:
        Summary: epochs, steps, seconds; `stopped_early`; `last`, the last epoch's log line; `best`,
        the results of the best epoch or None; `trackers`, see `Trackers.summary`.

    Raises:
        NonFinite: with step and files; nothing is overwritten.
        ReadError: no clip of a step could be had.
        Stopped: by a signal, after a checkpoint was written.
        TooManySkipped: of an epoch's clips.
        WriteError: a checkpoint could not be written; the ones before are whole.
        Held: the run folder's lock was lost.
    """
    sampler = batches.batch_sampler
    class_weights = None if class_weights is None else class_weights.to(world.device)
    require_equal_weights(world, dict(model.named_parameters()))
    if recipe.shard:
        shard(model, world)
    state = TrainingState.begun(world, model, recipe)
    progress = Progress()
    if resume_state is not None:
        require_equal_weights(world, resume_state["trained"])
        progress = state.restore(resume_state)
        resume_state.clear()
    if recipe.compile:
        model.compile()

    def place() -> str:
        return f"epoch {progress.epoch + 1}, after step {progress.steps - 1}"

    with (
        located(lambda: (progress.epoch + 1, progress.steps)),
        stop_requests() as request,
        CheckpointWriter() as writer,
        open_board(run_dir, progress, world) as board,
        open_trackers(recipe.trackers, run_dir, facts, world) as trackers,
    ):
        saving = Saving(
            writer,
            state,
            run_dir,
            description,
            facts,
            keep=recipe.keep_checkpoints,
            minutes=recipe.checkpoint_minutes,
            lock=lock,
        )
        for epoch in range(progress.epoch, recipe.epochs):
            if progress.stalled(recipe.early_stopping_patience):
                break
            with exchange(world, place):
                sampler.set_epoch(epoch, progress.consumed)
                train_epoch(
                    state,
                    batches,
                    progress,
                    recipe=recipe,
                    num_classes=num_classes,
                    paths=paths,
                    class_weights=class_weights,
                    saving=saving,
                    request=request,
                    skips=skips,
                    phase=phase,
                )
                # Before validation, as a signal in it finds the processes at different places.
                copies = saving.taken([own_buffers(model)])
                began = time.monotonic()
                try:
                    with state.averaged(), whole(model), request.heeded_at_once():
                        results = {} if validation is None else validation.results(model)
                except Stopped:
                    saving.save(copies, progress)
                    raise
                is_best = select_best and progress.is_best(results)
                records = progress.records
                progress = progress.after_epoch(
                    results,
                    clips=sampler.keys_per_epoch,
                    validate_seconds=time.monotonic() - began,
                    is_best=is_best,
                )
                if board is not None:
                    saving.check_lock()
                    write_log(run_dir, board, trackers, progress.steps, records, progress.latest)
                saving.save(copies, progress, is_best)
                if world.is_main:
                    say_epoch(progress.latest, progress.seconds, recipe.epochs)
    return {
        "epochs": progress.epoch,
        "steps": progress.steps,
        "seconds": progress.seconds,
        "stopped_early": progress.epoch < recipe.epochs,
        "best": progress.best,
        "last": progress.latest,
        "trackers": trackers.summary(),
    }


def train_epoch(
    state: TrainingState,
    batches: Batches,
    progress: Progress,
    *,
    recipe: TrainConfig,
    num_classes: int,
    paths: Sequence[str],
    class_weights: torch.Tensor | None,
    saving: Saving,
    request: StopRequest,
    skips: SkipLog | None,
    phase: Phase,
) -> None:
    """Train on what is left of an epoch; write checkpoints where due or where a signal asks.

    Args and errors: see `fit`.
    """
    world, model, optimizer, scaler = state.world, state.model, state.optimizer, state.scaler
    sampler = batches.batch_sampler
    step = sampler.epoch * sampler.steps + sampler.consumed // sampler.global_batch
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    replicated = [p for p in parameters if not is_part(p)]
    # Remembered copies of weights would stay whole until the forward pass has ended.
    computing = autocast(world.device, recipe.precision, remember=not is_sharded(model))
    clips_per_batch = recipe.batch_size * world.size
    train_mode(model)
    mixing = recipe.mixup > 0 or recipe.cutmix > 0
    stretch = Stretch(world.device, None if mixing else recipe.batch_size * recipe.accumulation)
    shown = track(
        stretch.timed(batches, phase),
        total=len(batches) * clips_per_batch,
        label=f"epoch {progress.epoch + 1}/{recipe.epochs}",
        unit="clips",
        units_per_item=clips_per_batch,
        shown=world.is_main,
    )
    for number, batch in enumerate(shown):
        micro = number % recipe.accumulation
        # Of all batches of the run, in the same order with any number of processes.
        place = (step * world.size + world.rank) * recipe.accumulation + micro
        torch.manual_seed(batch_seed(recipe.seed, place))
        if micro == 0:
            lr = scheduled_lr(recipe, step, sampler.steps, sampler.global_batch)
            set_lr(optimizer, lr)
            (mean_loss, hits), share = torch.zeros(2, device=world.device), 0.0
            files = list[str]()

        if batch is not None:
            clips = len(batch["index"])
            files += [paths[i] for i in batch["index"].tolist()]
            if clips == 1 < recipe.batch_size:
                require_two_clips(model.head, files, step)
            with phase("copy"):
                inputs = batches.prepare(batch, world.device)
                labels = targets = batch["label"].to(world.device, non_blocking=True)
            if mixing:
                inputs, targets = mix_batch(
                    inputs,
                    labels,
                    num_classes,
                    mixup_alpha=recipe.mixup,
                    cutmix_alpha=recipe.cutmix,
                    label_smoothing=recipe.label_smoothing,
                    seed=recipe.seed,
                    step=place,
                )
            there = clips / recipe.batch_size
            with phase("forward"):
                with computing:
                    logits = model(inputs)
                loss = classification_loss(
                    logits.float(), targets, recipe.label_smoothing, class_weights
                )
                loss = loss * there / recipe.accumulation
            with phase("backward"):
                scaler.scale(loss).backward()
            mean_loss += loss.detach()
            hits += (logits.detach().argmax(1) == labels).sum()
            share += there / recipe.accumulation
        elif is_sharded(model):
            with computing:
                nothing = empty_pass(model, world.device)
            scaler.scale(nothing).backward()
        else:
            without_clips(model.head)
        if micro < recipe.accumulation - 1:
            continue

        told = Told(
            stop=request.number is not None,
            save=saving.overdue(),
            skipped=0 if skips is None else skips.met,
        )
        with phase("exchange"), exchange(world, f"step {step}", recipe.patience_minutes):
            numbers = average_gradients(world, replicated, share, astuple(told))
            divide_gradients(parameters, numbers[0])
        with phase("optimiser"):
            if share > 0 or world.size > 1:  # else there is no gradient, which a scaler refuses
                if recipe.clip_grad > 0:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(parameters, recipe.clip_grad)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad(set_to_none=True)
            if state.average is not None:
                state.average.update(model, step)
        figures = torch.cat([torch.stack([mean_loss, hits]), numbers])
        stretch.steps.append(Step.taken(step, lr, files, figures))
        step += 1
        progress.steps += 1
        progress.consumed += sampler.global_batch
        progress.joined = False

        heard = stretch.heard()
        every = recipe.checkpoint_steps
        due = heard.stop or heard.save or (every and progress.steps % every == 0)
        if due:
            heard = stretch.steps[-1].heard()
        _check_skipped(skips, heard.skipped)
        if due:
            write_checkpoint(stretch, saving, progress, recipe.patience_minutes)
        if heard.stop:
            with together(world):
                saving.writer.wait()
            raise Stopped(request.number or signal.SIGTERM)

    if stretch.steps:
        _check_skipped(skips, stretch.steps[-1].heard().skipped)
    stretch.settle(world, progress)
    if not progress.joined:
        average_buffers(world, model)
        progress.joined = True
    check_finite(model, f"at the end of epoch {progress.epoch + 1}")


def _check_skipped(skips: SkipLog | None, skipped: float) -> None:
    if skips is not None and skipped:
        skips.check(skips.known() + int(skipped))
