"""An epoch of the loop on a device whose figures come a step late, as a GPU's do."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ALONE
from torch.profiler import record_function

from vidadapt.config import TrainConfig
from vidadapt.data.epochs import EpochBatches
from vidadapt.data.skips import SkipLog, TooManySkipped
from vidadapt.distributed import GradientMeans, Stopped
from vidadapt.launching import StopRequest
from vidadapt.lists import Sample
from vidadapt.runs.checkpoints import CheckpointWriter
from vidadapt.training import heeding, loop, steps
from vidadapt.training.class_terms import ClassTerms
from vidadapt.training.state import Progress, Saving, TrainingState


class Ones:
    """So many batches of one clip."""

    def __init__(self, number: int) -> None:
        self.number, self.batch_sampler = number, EpochBatches(50, 0, batch_size=1)

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for _ in range(self.number):
            yield {"index": torch.tensor([0]), "label": torch.tensor([0])}

    def prepare(self, batch: dict[str, Any], device: torch.device) -> torch.Tensor:
        return torch.ones(1, 1, device=device)


def one_epoch(
    folder: Path,
    number: int,
    *,
    request: StopRequest,
    checkpoint_steps: int,
    skips: SkipLog | None = None,
    progress: Progress | None = None,
) -> Progress:
    model: Any = torch.nn.Linear(1, 2)
    optimizer = torch.optim.SGD([{"params": [*model.parameters()], "lr_scale": 1.0}])
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    gradients = GradientMeans(ALONE, model, torch.nn.Identity())
    state = TrainingState(ALONE, model, optimizer, scaler, None, gradients)
    progress = progress or Progress()
    recipe = replace(
        TrainConfig(), batch_size=1, precision="fp32", checkpoint_steps=checkpoint_steps
    )
    with CheckpointWriter() as writer:
        saving = Saving(writer, state, folder / "run", {}, {}, keep=1, minutes=0.0)
        loop.train_epoch(
            state,
            Ones(number),
            progress,
            recipe=recipe,
            num_classes=2,
            paths=["a.mp4"],
            class_terms=ClassTerms(),
            saving=saving,
            request=request,
            skips=skips,
            phase=record_function,
        )
    return progress


@pytest.fixture(autouse=True)
def late_figures(monkeypatch):
    """Figures come a step late, and the loop's model is one without blocks."""
    monkeypatch.setattr(steps, "figures_lag", lambda device: 1)
    monkeypatch.setattr(loop, "train_mode", lambda model: None)


def also_skipped(monkeypatch, elsewhere: Callable[[int], int]) -> None:
    """Other processes have skipped so many clips until each step."""
    honest, steps = GradientMeans.average, iter(range(1000))

    def averaged(means: GradientMeans, *about: Any) -> torch.Tensor:
        numbers = honest(means, *about)
        numbers[-1] += elsewhere(next(steps))
        return numbers

    monkeypatch.setattr(GradientMeans, "average", averaged)


@pytest.mark.parametrize("checkpoint_steps", [0, 1, 2, 3])
def test_a_stop_is_heeded_however_often_checkpoints_are_written(tmp_path, checkpoint_steps):
    progress, request = Progress(), StopRequest(number=signal.SIGTERM)
    with pytest.raises(Stopped):
        one_epoch(
            tmp_path,
            50,
            request=request,
            checkpoint_steps=checkpoint_steps,
            progress=progress,
        )
    assert progress.steps <= 2
    assert (tmp_path / "run" / "last" / "trainer.pt").exists()


@pytest.mark.parametrize("checkpoint_steps", [0, 1, 7])
@pytest.mark.parametrize("step", [10, 48, 49])
def test_clips_skipped_in_any_step_count(tmp_path, monkeypatch, checkpoint_steps, step):
    also_skipped(monkeypatch, lambda i: 5 * (i >= step))
    skips = SkipLog(tmp_path / "skipped.jsonl", [Sample("a.mp4", 0)], 1)
    with pytest.raises(TooManySkipped):
        one_epoch(
            tmp_path,
            50,
            request=StopRequest(),
            checkpoint_steps=checkpoint_steps,
            skips=skips,
        )


@pytest.mark.parametrize(("number", "joins"), [(0, 0), (1, 1)])
def test_buffers_are_joined_again_where_more_is_trained(tmp_path, monkeypatch, number, joins):
    """A run stopped in validation may have steps left for a smaller global batch."""
    calls: list[object] = []
    monkeypatch.setattr(heeding, "average_buffers", lambda *about: calls.append(about))
    progress = one_epoch(
        tmp_path,
        number,
        request=StopRequest(),
        checkpoint_steps=0,
        progress=Progress(joined=True),
    )
    assert progress.joined and len(calls) == joins
