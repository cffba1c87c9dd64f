"""The training loop of several models on the frozen half of one backbone.

It is `loop.fit` with each batch decoded and encoded once: a member takes from it what it would
take alone, with the same random numbers, so that its weights are bit by bit those of a run alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.profiler import record_function

from vidadapt.config import TrainConfig
from vidadapt.console import duration
from vidadapt.data import Batches, SkipLog
from vidadapt.distributed import (
    PeerError,
    Stopped,
    World,
    exchange,
    gather_objects,
    own_buffers,
    require_equal_weights,
)
from vidadapt.evaluation import METRICS, MULTI_LABEL_METRICS
from vidadapt.features import Halves, Joined
from vidadapt.launching import StopRequest, stop_requests
from vidadapt.methods import train_mode
from vidadapt.models import NonFinite, require_two_clips
from vidadapt.runs import RunError
from vidadapt.training.class_terms import ClassTerms
from vidadapt.training.heeding import close_epoch, end_steps, heed, told_of
from vidadapt.training.loop import (
    forward_backward,
    pass_without_clips,
    prepared,
    take_step,
)
from vidadapt.training.members import Member, Running, begun
from vidadapt.training.optim import scheduled_lr, set_lr
from vidadapt.training.steps import Step, Stretch, batch_seed, followed
from vidadapt.training.trackers import Trackers, open_trackers
from vidadapt.training.validation import Validation

# Clips on the device (or features of a cache) -> features, as `Halves.features`.
Encode = Callable[[Any], tuple[torch.Tensor, ...]]


def fit_side_by_side(
    members: Sequence[Member],
    batches: Batches,
    *,
    encode: Encode,
    num_classes: int,
    paths: Sequence[str],
    world: World,
    validation: Validation,
    class_terms: ClassTerms,
    skips: SkipLog | None,
) -> dict[str, Any]:
    """Train all members that have not diverged; see `loop.fit`, whose errors it has.

    Members may have come to different places of the run; those in front wait for the others.

    Args:
        members: their recipes differ in the learning rate and the weight decay alone.
        encode: the frozen half.
        validation: done after each epoch, on a development list.

    Returns:
        Facts of a summary about trackers: grids have none.
    """
    recipe, sampler = members[0].recipe, batches.batch_sampler
    require_equal_weights(world, dict(members[0].parts.model.named_parameters()))
    with (
        ExitStack() as stack,
        stop_requests() as request,
        open_trackers([], members[0].folder, {}, world) as trackers,
    ):
        runs = [begun(member, world, stack) for member in members if member.error is None]
        for epoch in range(min((run.progress.epoch for run in runs), default=0), recipe.epochs):
            here = [run for run in runs if run.member.trains_in(epoch)]
            if not here:
                continue
            with exchange(world, f"epoch {epoch + 1}"):
                sampler.set_epoch(epoch, min(run.progress.consumed for run in here))
                _train_epoch(
                    here,
                    batches,
                    encode=encode,
                    recipe=recipe,
                    num_classes=num_classes,
                    paths=paths,
                    class_terms=class_terms,
                    request=request,
                    skips=skips,
                )
                here = [run for run in here if run.member.error is None]
                if here:
                    _validate(here, validation, request, trackers, sampler.keys_per_epoch)
            here = [run for run in here if run.member.error is None]
            if world.is_main and here:
                _say_epoch(here, recipe)
    return trackers.summary()


def _train_epoch(
    runs: Sequence[Running],
    batches: Batches,
    *,
    encode: Encode,
    recipe: TrainConfig,
    num_classes: int,
    paths: Sequence[str],
    class_terms: ClassTerms,
    request: StopRequest,
    skips: SkipLog | None,
) -> None:
    """Train on what is left of an epoch, see `loop.train_epoch`: the same, for each of the runs."""
    world, sampler = runs[0].state.world, batches.batch_sampler
    consumed = sampler.consumed
    _require_meeting(runs, consumed, sampler.global_batch)
    step = sampler.epoch * sampler.steps + consumed // sampler.global_batch
    for run in runs:
        train_mode(run.state.model)
        run.stretch = Stretch(world.device, recipe)
    stretches = [run.stretch for run in runs]
    for number, batch in enumerate(followed(batches, recipe, world, record_function, stretches)):
        micro = number % recipe.accumulation
        place = (step * world.size + world.rank) * recipe.accumulation + micro
        if micro == 0:
            share, files = 0.0, list[str]()
            active = [
                run
                for run in runs
                if run.progress.consumed == consumed and not (run.member.error or run.stopped)
            ]
            for run in active:
                own = run.member.recipe
                run.lr = scheduled_lr(own, step, sampler.steps, sampler.global_batch)
                set_lr(run.state.optimizer, run.lr)
                run.figures = torch.zeros(2, device=world.device)
        if not active:
            break

        if batch is not None:
            files += [paths[i] for i in batch["index"].tolist()]
            if len(batch["index"]) == 1 < recipe.batch_size:
                require_two_clips(active[0].state.model.head, files, step)
            inputs, labels, targets = prepared(
                batches, batch, recipe, num_classes, place, world.device
            )
            with active[0].state.computing(recipe.precision):
                features = encode(inputs)
            share += len(labels) / recipe.batch_size / recipe.accumulation
        for run in active:
            _seed(batch_seed(recipe.seed, place), world.device)
            if batch is None:
                pass_without_clips(run.state, recipe)
                continue
            run.figures += forward_backward(
                run.state, recipe, features, labels, targets, class_terms, record_function
            )
        if micro < recipe.accumulation - 1:
            continue

        for run in active:
            with run.member.apart(world):
                _step(run, recipe, step, files, share, sampler.global_batch, request, skips)
        step += 1
        consumed += sampler.global_batch
    for stopped in (run.stopped for run in runs if run.stopped):
        raise stopped
    for run in runs:
        if run.member.error is None:
            with run.member.apart(world):
                end_steps(run.stretch, run.progress, run.state, skips)


def _step(
    run: Running,
    recipe: TrainConfig,
    step: int,
    files: list[str],
    share: float,
    clips: int,
    request: StopRequest,
    skips: SkipLog | None,
) -> None:
    """Take a member's step; where a signal asks for a stop, it is noted after its checkpoint."""
    told = told_of(run.saving, request, skips)
    figures = take_step(run.state, recipe, step, run.figures, share, told, record_function)
    run.stretch.steps.append(Step.taken(step, run.lr, files, figures))
    run.progress.after_step(clips)
    try:
        heed(run.stretch, run.progress, run.saving, recipe, request, skips)
    except Stopped as error:
        run.stopped = error


def _seed(seed: int, device: torch.device) -> None:
    """Seed the generators that dropout draws from, as in a run alone.

    `torch.manual_seed` does the same, and keeps a stack trace for each kind of device that is not
    in use: 0.5 ms, for each run in each batch.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _require_meeting(runs: Sequence[Running], consumed: int, global_batch: int) -> None:
    """Check that the members in front can be reached in steps of this global batch."""
    for run in runs:
        if (run.progress.consumed - consumed) % global_batch:
            raise RunError(
                f"--resume: {run.member.folder} is {run.progress.consumed - consumed} clips ahead "
                f"of another run of the grid, which is no multiple of the global batch "
                f"{global_batch}; resume it with as many processes as before, or alone"
            )


def _validate(
    runs: Sequence[Running],
    validation: Validation,
    request: StopRequest,
    trackers: Trackers,
    clips: int,
) -> None:
    """Validate the members together, log the epoch, and write their checkpoints."""
    copies = [run.saving.taken([own_buffers(run.state.model)]) for run in runs]
    began = time.monotonic()
    try:
        with ExitStack() as averaged, request.heeded_at_once():
            for run in runs:
                averaged.enter_context(run.state.averaged())
            found = results_of(validation, [run.member.parts for run in runs])
    except Stopped:
        for run, copy in zip(runs, copies, strict=True):
            run.saving.save(copy, run.progress)
        raise
    seconds = time.monotonic() - began
    for run, copy, results in zip(runs, copies, found, strict=True):
        with run.member.apart(run.state.world):
            if isinstance(results, NonFinite):
                raise results
            run.member.progress = close_epoch(
                run.progress,
                results,
                copy,
                run.saving,
                run.board,
                trackers,
                clips=clips,
                validate_seconds=seconds,
                select=run.member.recipe.select,
                select_best=True,
            )


def results_of(
    validation: Validation, parts: Sequence[Halves]
) -> list[dict[str, float] | NonFinite]:
    """Score the list with models on one backbone, as `Validation.results` does with each.

    Returns:
        For each its results; an error where its scores are not finite.
    """
    joined, setup = Joined(parts), validation.setup
    if setup.cached is not None:
        setup = replace(setup, cached=replace(setup.cached, parts=joined))
        validation = replace(validation, setup=setup)
    problem: Exception | None = None
    try:
        scores = validation.scores(joined, len(parts))
    except (NonFinite, PeerError) as error:
        problem = error
    if any(gather_objects(validation.world, isinstance(problem, NonFinite))):
        if len(parts) > 1:  # to find out whose
            return [found for part in parts for found in results_of(validation, [part])]
        return [NonFinite(str(problem))]
    if problem is not None:
        raise problem
    classes = setup.plan.num_classes
    columns = [slice(first * classes, (first + 1) * classes) for first in range(len(parts))]
    return [
        validation.measured(replace(scores, logits=np.ascontiguousarray(scores.logits[..., own])))
        for own in columns
    ]


def _say_epoch(runs: Sequence[Running], recipe: TrainConfig) -> None:
    """Print the best of the runs, their speed and the time that is left."""
    key, title = f"dev_{recipe.select}", (METRICS | MULTI_LABEL_METRICS)[recipe.select].title
    best = max(runs, key=lambda run: run.progress.latest[key])
    latest, seconds = best.progress.latest, best.progress.seconds
    left = seconds / latest["epoch"] * (recipe.epochs - latest["epoch"])
    print(
        f"epoch {latest['epoch']}/{recipe.epochs}: {len(runs)} runs, the best {best.member.name} "
        f"with dev {title} {latest[key]:.2f}, loss {latest['train_loss']:.4f}; "
        f"{latest['clips_per_second']:.0f} clips/s, loader wait "
        f"{100 * latest['loader_wait_share']:.0f} %, {duration(left)} left",
        flush=True,
    )
