"""After a step, heed what the processes told each other: a stop, a checkpoint, skipped clips.

After an epoch, settle what its steps left, log it, and write its checkpoints.
"""

from __future__ import annotations

import signal

from torch.utils.tensorboard import SummaryWriter

from vidadapt.config import TrainConfig
from vidadapt.data import SkipLog
from vidadapt.distributed import (
    Stopped,
    average_buffers,
    exchange,
    gather_objects,
    own_buffers,
    together,
)
from vidadapt.launching import StopRequest
from vidadapt.training.log import write_log
from vidadapt.training.state import Copies, Progress, Saving, TrainingState, check_finite, copied
from vidadapt.training.steps import Stretch, Told
from vidadapt.training.trackers import Trackers


def told_of(saving: Saving, request: StopRequest, skips: SkipLog | None) -> Told:
    """Return what this process tells the others in a step."""
    return Told(
        stop=request.number is not None,
        save=saving.overdue(),
        skipped=0 if skips is None else skips.met,
    )


def heed(
    stretch: Stretch,
    progress: Progress,
    saving: Saving,
    recipe: TrainConfig,
    request: StopRequest,
    skips: SkipLog | None,
) -> None:
    """After a step, do what the processes have told each other: write a checkpoint, or stop.

    Raises:
        Stopped: a signal asked for it; a checkpoint was written.
        NonFinite, ReadError, TooManySkipped: see `fit`.
    """
    heard = stretch.heard()
    every = recipe.checkpoint_steps
    due = heard.stop or heard.save or (every and progress.steps % every == 0)
    if due:
        heard = stretch.steps[-1].heard()
    _check_skipped(skips, heard.skipped)
    if due:
        write_checkpoint(stretch, saving, progress, recipe.patience_minutes)
    if heard.stop:
        with together(saving.state.world):
            saving.writer.wait()
        raise Stopped(request.number or signal.SIGTERM)


def end_steps(
    stretch: Stretch, progress: Progress, state: TrainingState, skips: SkipLog | None
) -> None:
    """After an epoch's last step, settle its figures and join the processes' buffers."""
    if stretch.steps:
        _check_skipped(skips, stretch.steps[-1].heard().skipped)
    stretch.settle(state.world, progress)
    if not progress.joined:
        average_buffers(state.world, state.model)
        progress.joined = True
    check_finite(state.model, f"at the end of epoch {progress.epoch + 1}")


def write_checkpoint(stretch: Stretch, saving: Saving, progress: Progress, minutes: float) -> None:
    """Write a checkpoint after the stretch's last step, all processes together.

    Args:
        minutes: that the processes wait for each other.
    """
    world, model = saving.state.world, saving.state.model
    place = f"after step {stretch.steps[-1].number}"
    with exchange(world, place, minutes):
        stretch.settle(world, progress)
        check_finite(model, place)
        buffers = gather_objects(world, copied(own_buffers(model)))
    saving.save(saving.taken(buffers), progress)


def _check_skipped(skips: SkipLog | None, skipped: float) -> None:
    if skips is not None and skipped:
        skips.check(skips.known() + int(skipped))


def close_epoch(
    progress: Progress,
    results: dict[str, float],
    copies: Copies | None,
    saving: Saving,
    board: SummaryWriter | None,
    trackers: Trackers,
    *,
    clips: int,
    validate_seconds: float,
    select: str,
    select_best: bool,
) -> Progress:
    """Log an epoch with these results, write its checkpoints, and return the next one's progress.

    Args:
        copies: what `Saving.taken` gave before validation.
        select: see `Progress.is_best`.
    """
    is_best = select_best and progress.is_best(results, select)
    records = progress.records
    progress = progress.after_epoch(
        results, clips=clips, validate_seconds=validate_seconds, select=select, is_best=is_best
    )
    if board is not None:
        saving.check_lock()
        write_log(saving.run_dir, board, trackers, progress.steps, records, progress.latest)
    saving.save(copies, progress, is_best)
    return progress
