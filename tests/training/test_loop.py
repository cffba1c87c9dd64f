"""An epoch of the loop on a device whose figures come a step late, as a GPU's do."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vidadapt.config import TrainConfig
from vidadapt.data.skips import SkipLog, TooManySkipped
from vidadapt.distributed import World
from vidadapt.lists.reading import Sample
from vidadapt.runs.checkpoints import CheckpointWriter
from vidadapt.training import loop as train
from vidadapt.training.resuming import Progress, Stopped, StopRequest, TrainingState
from vidadapt.training.saving import Saving
from vidadapt.training.steps import Step

LATE = World(0, 1, torch.device("cuda"))  # nothing is computed on it


def steps_of(number: int, skipped_elsewhere: Callable[[int], int]) -> Callable[..., Iterator[Step]]:
    """So many steps, with what other processes have skipped until each."""

    def steps(*, label: str, told: Callable[[], Any], waiting: list[float]) -> Iterator[Step]:
        for i in range(number):
            stop, overdue, skipped = map(float, told())
            figures = torch.tensor([1.0, 1.0, stop, overdue, skipped + skipped_elsewhere(i)])
            yield Step(i, 0.1, figures, ["a.mp4"], figures.tolist)

    return steps


def one_epoch(
    folder: Path,
    steps: Callable[..., Iterator[Step]],
    *,
    request: StopRequest,
    checkpoint_steps: int,
    skips: SkipLog | None = None,
    progress: Progress | None = None,
) -> Progress:
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters())
    trained = TrainingState(
        LATE, model, optimizer, torch.amp.GradScaler("cpu", enabled=False), None
    )
    progress = progress or Progress()
    recipe = replace(TrainConfig(), checkpoint_steps=checkpoint_steps)
    with CheckpointWriter() as writer:
        saving = Saving(writer, trained, folder / "run", {}, {}, keep=1, minutes=0.0)
        train._train_epoch(steps, progress, saving, request, recipe, 4, skips)
    return progress


@pytest.fixture(autouse=True)
def plain_model(monkeypatch):
    """The loop's model is here one without blocks."""
    monkeypatch.setattr(train, "train_mode", lambda model: None)


@pytest.mark.parametrize("checkpoint_steps", [0, 1, 2, 3])
def test_a_stop_is_heeded_however_often_checkpoints_are_written(tmp_path, checkpoint_steps):
    progress, request = Progress(), StopRequest(number=signal.SIGTERM)
    with pytest.raises(Stopped):
        one_epoch(
            tmp_path,
            steps_of(50, lambda step: 0),
            request=request,
            checkpoint_steps=checkpoint_steps,
            progress=progress,
        )
    assert progress.steps <= 2
    assert (tmp_path / "run" / "last" / "trainer.pt").exists()


@pytest.mark.parametrize("checkpoint_steps", [0, 1, 7])
@pytest.mark.parametrize("step", [10, 48, 49])
def test_clips_skipped_in_any_step_count(tmp_path, checkpoint_steps, step):
    skips = SkipLog(tmp_path / "skipped.jsonl", [Sample("a.mp4", 0)], 1)
    with pytest.raises(TooManySkipped):
        one_epoch(
            tmp_path,
            steps_of(50, lambda i: 5 * (i >= step)),
            request=StopRequest(),
            checkpoint_steps=checkpoint_steps,
            skips=skips,
        )


@pytest.mark.parametrize(("number", "joins"), [(0, 0), (1, 1)])
def test_buffers_are_joined_again_where_more_is_trained(tmp_path, monkeypatch, number, joins):
    """A run stopped in validation may have steps left for a smaller global batch."""
    calls: list[object] = []
    monkeypatch.setattr(train, "average_buffers", lambda *about: calls.append(about))
    progress = one_epoch(
        tmp_path,
        steps_of(number, lambda step: 0),
        request=StopRequest(),
        checkpoint_steps=0,
        progress=Progress(joined=True),
    )
    assert progress.joined and len(calls) == joins
