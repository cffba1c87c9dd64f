"""The training loop, top to bottom: epochs in `fit`, batches and steps in `train_epoch`."""

from __future__ import annotations

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
from vidadapt.data import Batches, SkipLog, mix_batch
from vidadapt.distributed import (
    Stopped,
    World,
    exchange,
    own_buffers,
    require_equal_weights,
)
from vidadapt.files import Lock
from vidadapt.launching import StopRequest, located, stop_requests
from vidadapt.methods import train_mode
from vidadapt.models import VideoModel, require_two_clips, without_clips
from vidadapt.runs import CheckpointWriter
from vidadapt.training.class_terms import ClassTerms
from vidadapt.training.heeding import close_epoch, end_steps, heed, told_of
from vidadapt.training.log import open_board, say_epoch
from vidadapt.training.losses import classification_loss, multi_label_loss
from vidadapt.training.optim import scheduled_lr, set_lr
from vidadapt.training.sharding import (
    divide_gradients,
    empty_pass,
    is_sharded,
    shard,
    whole,
)
from vidadapt.training.state import Progress, Saving, TrainingState
from vidadapt.training.steps import Step, Stretch, Told, batch_seed, followed, mixes
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
    class_terms: ClassTerms,
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
        select_best: keep the checkpoint with the best `recipe.select` on the development list;
            of equal ones that with the lower `dev_loss`, of equal ones the later. After
            `recipe.early_stopping_patience` epochs without a better one the run ends.
        class_terms: of the loss, on `world.device`; see `classification_loss`.
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
                    class_terms=class_terms,
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
                progress = close_epoch(
                    progress,
                    results,
                    copies,
                    saving,
                    board,
                    trackers,
                    clips=sampler.keys_per_epoch,
                    validate_seconds=time.monotonic() - began,
                    select=recipe.select,
                    select_best=select_best,
                )
                if world.is_main:
                    say_epoch(progress.latest, progress.seconds, recipe)
    return {**progress.result(recipe.epochs), "trackers": trackers.summary()}


def train_epoch(
    state: TrainingState,
    batches: Batches,
    progress: Progress,
    *,
    recipe: TrainConfig,
    num_classes: int,
    paths: Sequence[str],
    class_terms: ClassTerms,
    saving: Saving,
    request: StopRequest,
    skips: SkipLog | None,
    phase: Phase,
) -> None:
    """Train on what is left of an epoch; write checkpoints where due or where a signal asks.

    Args and errors: see `fit`.
    """
    world, model = state.world, state.model
    sampler = batches.batch_sampler
    step = sampler.epoch * sampler.steps + sampler.consumed // sampler.global_batch
    train_mode(model)
    stretch = Stretch(world.device, recipe)
    for number, batch in enumerate(followed(batches, recipe, world, phase, [stretch])):
        micro = number % recipe.accumulation
        # Of all batches of the run, in the same order with any number of processes.
        place = (step * world.size + world.rank) * recipe.accumulation + micro
        torch.manual_seed(batch_seed(recipe.seed, place))
        if micro == 0:
            lr = scheduled_lr(recipe, step, sampler.steps, sampler.global_batch)
            set_lr(state.optimizer, lr)
            figures, share = torch.zeros(2, device=world.device), 0.0
            files = list[str]()

        if batch is not None:
            files += [paths[i] for i in batch["index"].tolist()]
            if len(batch["index"]) == 1 < recipe.batch_size:
                require_two_clips(model.head, files, step)
            with phase("copy"):
                given = prepared(batches, batch, recipe, num_classes, place, world.device)
            if micro == recipe.accumulation - 1 and not is_sharded(model):
                state.gradients.begin_in_backward()
            figures += forward_backward(state, recipe, *given, class_terms, phase)
            share += len(batch["index"]) / recipe.batch_size / recipe.accumulation
        else:
            pass_without_clips(state, recipe)
        if micro < recipe.accumulation - 1:
            continue

        told = told_of(saving, request, skips)
        figures = take_step(state, recipe, step, figures, share, told, phase)
        stretch.steps.append(Step.taken(step, lr, files, figures))
        step += 1
        progress.after_step(sampler.global_batch)
        heed(stretch, progress, saving, recipe, request, skips)
    end_steps(stretch, progress, state, skips)


def prepared(
    batches: Batches,
    batch: dict[str, Any],
    recipe: TrainConfig,
    num_classes: int,
    place: int,
    device: torch.device,
) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Put a batch on the device; return inputs, labels, and targets where clips are mixed."""
    inputs = batches.prepare(batch, device)
    labels = batch["label"].to(device, non_blocking=True)
    if not mixes(recipe):
        return inputs, labels, labels
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
    return inputs, labels, targets


def forward_backward(
    state: TrainingState,
    recipe: TrainConfig,
    inputs: Any,
    labels: torch.Tensor,
    targets: torch.Tensor,
    class_terms: ClassTerms,
    phase: Phase,
) -> torch.Tensor:
    """Forward and backward pass of a batch; return its part of the step's loss, and hits, (2,).

    Hits are NaN where a clip has no single label: mixed, or of a multi-label list.
    """
    with phase("forward"):
        with state.computing(recipe.precision):
            logits = state.model(inputs)
        if labels.ndim == 2:
            loss = multi_label_loss(logits.float(), targets)
        else:
            smoothing = recipe.label_smoothing
            loss = classification_loss(logits.float(), targets, smoothing, class_terms)
        loss = loss * (len(labels) / recipe.batch_size) / recipe.accumulation
    with phase("backward"):
        state.scaler.scale(loss).backward()
    if targets.ndim == 1:
        hits = (logits.detach().argmax(1) == targets).sum().to(loss.dtype)
    else:
        hits = loss.new_full((), torch.nan)
    return torch.stack([loss.detach(), hits])


def pass_without_clips(state: TrainingState, recipe: TrainConfig) -> None:
    """Exchange with other processes, without a clip, what they exchange in their passes."""
    if is_sharded(state.model):
        with state.computing(recipe.precision):
            nothing = empty_pass(state.model, state.world.device)
        state.scaler.scale(nothing).backward()
    else:
        without_clips(state.model.head)


def take_step(
    state: TrainingState,
    recipe: TrainConfig,
    step: int,
    figures: torch.Tensor,
    share: float,
    told: Told,
    phase: Phase,
) -> torch.Tensor:
    """Exchange the gradients and change the weights; return the figures of `Step`.

    Args:
        figures: loss and hits of this process's batches.
        share: of the step's clips that this process has had.
    """
    world, optimizer, scaler = state.world, state.optimizer, state.scaler
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    lost = (~torch.isfinite(figures[:1])).float()
    with phase("exchange"), exchange(world, f"step {step}", recipe.patience_minutes):
        numbers = state.gradients.average(share, astuple(told), lost)
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
            state.average.update(state.model, step)
    return torch.cat([figures, numbers])
