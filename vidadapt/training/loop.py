"""The training loop, top to bottom."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional
from torch.profiler import record_function
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from vidadapt.config import TrainConfig
from vidadapt.data.epochs import EpochBatches
from vidadapt.data.skips import SkipLog
from vidadapt.data.transforms import normalize
from vidadapt.distributed import (
    Stopped,
    World,
    average_buffers,
    exchange,
    gather_objects,
    own_buffers,
    require_equal_weights,
    together,
)
from vidadapt.files.locks import Lock
from vidadapt.launching.failures import located
from vidadapt.methods import train_mode, trainable_state
from vidadapt.models import VideoModel
from vidadapt.models.precision import NonFinite
from vidadapt.runs import checkpoints
from vidadapt.training.epoch_log import say_epoch, write_log
from vidadapt.training.optim import WeightAverage, build_optimizer, parameter_groups
from vidadapt.training.resuming import Progress, StopRequest, TrainingState, copied, stop_requests
from vidadapt.training.saving import Saving
from vidadapt.training.sharding import gathered, shard, whole
from vidadapt.training.steps import UNHARMED, Step, Stretch, optimiser_steps


def fit(
    model: VideoModel,
    loader: DataLoader,
    *,
    recipe: TrainConfig,
    num_classes: int,
    prepare: Callable[[dict[str, Any]], Any],
    paths: Sequence[str],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    world: World,
    run_dir: Path,
    description: dict[str, Any],
    facts: dict[str, Any],
    resume_state: dict[str, Any] | None,
    validate: Callable[[], dict[str, float]] | None,
    select_best: bool,
    skips: SkipLog | None = None,
    lock: Lock | None = None,
    phase: Callable[[str], AbstractContextManager[None]] = record_function,
) -> dict[str, Any]:
    """Train what requires a gradient; a log line an epoch, checkpoints then and in between.

    Args:
        model: what `prepare` gives -> logits (B, K), on `world.device`, already frozen and
            injected.
        loader: batches {"label": int64 (B,), "index": int64 (B,), ...}, the rest being for
            `prepare`; its `batch_sampler` is an `EpochBatches`. A batch may be smaller than
            `recipe.batch_size`, or None: what was skipped counts in no mean.
        prepare: batch -> what the model takes, on `world.device`, e.g. `normalized_clip`.
        paths: list paths of the training samples, for messages.
        loss: mean loss from float32 logits (B, K) and the batch's targets, e.g.
            `classification_loss`.
        description: written beside the weights, with the results of the epoch as `metrics`.
        facts: kept with the trainer state, for the caller to compare before it resumes.
        resume_state: what `checkpoints.load_trainer` gave; continues after its last step. Its
            tensors are dropped once they are in place.
        validate: accuracies and loss of the current weights, e.g. {"dev_top1": 61.2, ...}.
        select_best: keep the checkpoint with the best `dev_top1`; of equal ones that with the
            lower `dev_loss`, of equal ones the later.
        skips: the loader's, whose cap holds for all processes together.
        lock: of the run folder; nothing is written once another process has taken it over.
        phase: entered with its name around each part of a step; e.g. `StepProfiler.phase`.

    Returns:
        Summary: epochs, steps, seconds; `last`, the last epoch's log line; `best`, the results of
        the best epoch or None.

    Raises:
        NonFinite: with step and files; nothing is overwritten.
        ReadError: no clip of a step could be had.
        Stopped: by a signal, after a checkpoint was written.
        TooManySkipped: of an epoch's clips.
        WriteError: a checkpoint could not be written; the ones before are whole.
        Held: the run folder's lock was lost.
    """
    sampler = cast(EpochBatches, loader.batch_sampler)
    require_equal_weights(world, dict(model.named_parameters()))
    if recipe.shard:
        shard(model, world)
    groups = parameter_groups(
        model,
        depth=model.depth,
        weight_decay=recipe.weight_decay,
        layer_decay=recipe.layer_decay,
    )
    trained = TrainingState(
        world,
        model,
        build_optimizer(recipe.optimizer, groups),
        torch.amp.GradScaler(world.device.type, enabled=recipe.precision == "fp16"),
        WeightAverage(model, recipe.ema) if recipe.ema > 0 else None,
    )
    progress = Progress()
    if resume_state is not None:
        require_equal_weights(world, resume_state["trained"])
        progress = trained.restore(resume_state)
        resume_state.clear()
    if recipe.compile:
        model.compile()

    steps = partial(
        optimiser_steps,
        trained,
        loader,
        recipe=recipe,
        num_classes=num_classes,
        prepare=prepare,
        paths=paths,
        loss_function=loss,
        world=world,
        phase=phase,
    )

    def place() -> str:
        return f"epoch {progress.epoch + 1}, after step {progress.steps - 1}"

    with (
        located(lambda: (progress.epoch + 1, progress.steps)),
        stop_requests() as request,
        checkpoints.CheckpointWriter() as writer,
        _board(run_dir, progress, world) as board,
    ):
        saving = Saving(
            writer,
            trained,
            run_dir,
            description,
            facts,
            keep=recipe.keep_checkpoints,
            minutes=recipe.checkpoint_minutes,
            lock=lock,
        )
        for epoch in range(progress.epoch, recipe.epochs):
            with exchange(world, place):
                sampler.set_epoch(epoch, progress.consumed)
                _train_epoch(steps, progress, saving, request, recipe, sampler.global_batch, skips)
                # Before validation, as a signal in it finds the processes at different places.
                copies = saving.taken([own_buffers(model)])
                began = time.monotonic()
                try:
                    with trained.averaged(), whole(model), request.heeded_at_once():
                        results = validate() if validate is not None else {}
                except Stopped:
                    saving.save(copies, progress)
                    raise
                is_best = select_best and _is_best(results, progress.best)
                records = progress.records
                progress = progress.after_epoch(
                    results,
                    clips=sampler.keys_per_epoch,
                    validate_seconds=time.monotonic() - began,
                    is_best=is_best,
                )
                if board is not None:
                    saving.check_lock()
                    write_log(run_dir, board, progress.steps, records, progress.latest)
                saving.save(copies, progress, is_best)
                if world.is_main:
                    say_epoch(progress.latest, progress.seconds, recipe.epochs)
    return {
        "epochs": progress.epoch,
        "steps": progress.steps,
        "seconds": progress.seconds,
        "best": progress.best,
        "last": progress.latest,
    }


def _is_best(results: dict[str, float], best: dict[str, Any] | None) -> bool:
    """Whether results of validation are at least as good as the best ones before.

    A run that an older version began has no loss of its best epoch.
    """
    if best is None:
        return True
    loss, before = results["dev_loss"], best.get("dev_loss", math.inf)
    return (results["dev_top1"], -loss) >= (best["dev_top1"], -before)


@contextmanager
def _board(run_dir: Path, progress: Progress, world: World) -> Iterator[SummaryWriter | None]:
    """The main process's TensorBoard writer, closed at the end however it comes."""
    if not world.is_main:
        yield None
        return
    begun = progress.steps - len(progress.records)
    with closing(SummaryWriter(run_dir / "tensorboard", purge_step=begun)) as board:
        yield board


def _train_epoch(
    steps: Callable[..., Iterator[Step]],
    progress: Progress,
    saving: Saving,
    request: StopRequest,
    recipe: TrainConfig,
    global_batch: int,
    skips: SkipLog | None,
) -> None:
    """What is left of an epoch, with checkpoints where they are due or a signal asks for an end."""
    world, model = saving.trained.world, saving.trained.model
    lag = 0 if world.device.type == "cpu" else 1  # so that no step of a GPU waits for its figures

    def told() -> tuple[float, ...]:
        """What this process tells the others: `Step.figures` from the third on."""
        return request.number is not None, saving.overdue(), 0 if skips is None else skips.met

    train_mode(model)
    stretch = Stretch()
    label = f"epoch {progress.epoch + 1}/{recipe.epochs}"
    for step in steps(label=label, told=told, waiting=stretch.waiting):
        stretch.steps.append(step)
        progress.steps += 1
        progress.consumed += global_batch
        progress.joined = False
        stop = overdue = skipped = 0.0
        if len(stretch.steps) > lag:
            stop, overdue, skipped = stretch.steps[-1 - lag].checked()
        every = recipe.checkpoint_steps
        due = bool(stop or overdue or (every and progress.steps % every == 0))
        if due:
            stop, _, skipped = step.checked()
        _check_skipped(skips, skipped)
        if due:
            place = partial("after step {}".format, step.number)
            with exchange(world, place, recipe.patience_minutes):
                stretch.settle(world, progress)
                _check_finite(model, place())
                buffers = gather_objects(world, copied(own_buffers(model)))
            saving.save(saving.taken(buffers), progress)
        if stop:
            with together(world):
                saving.writer.wait()
            raise Stopped(request.number or signal.SIGTERM)
    if stretch.steps:
        _check_skipped(skips, stretch.steps[-1].checked()[-1])
    stretch.settle(world, progress)
    if not progress.joined:
        average_buffers(world, model)
        progress.joined = True
    _check_finite(model, f"at the end of epoch {progress.epoch + 1}")


def _check_skipped(skips: SkipLog | None, skipped: float) -> None:
    if skips is not None and skipped:
        skips.check(skips.known() + int(skipped))


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


def _check_finite(model: nn.Module, when: str) -> None:
    for name, tensor in trainable_state(model).items():
        if tensor.is_floating_point() and not gathered(torch.isfinite(tensor).all()):
            raise NonFinite(f"{name} is no longer finite {when}. {UNHARMED}")
