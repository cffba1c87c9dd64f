"""Time training steps: seconds by phase, and a trace to look at."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from vidadapt.data import Batches, EpochBatches
from vidadapt.distributed import World
from vidadapt.files import replaced, write_json
from vidadapt.training.setup import Setup

# The phase with which every batch begins.
WAIT = "wait for data"

WARM_UP, TRACED = 5, 3
TRACE, PROFILE = "trace.json.gz", "profile.json"


class ProfileDone(Exception):
    """The steps that were to be profiled are done; ends the run from inside its loop."""


@dataclass(frozen=True)
class Repeated:
    """Batches that begin again where they end; `length` is for the progress."""

    batches: Batches
    length: int

    @property
    def batch_sampler(self) -> EpochBatches:
        return self.batches.batch_sampler

    def prepare(self, batch: dict[str, Any], device: torch.device) -> Any:
        return self.batches.prepare(batch, device)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(repeat(self.batches))


class StepProfiler:
    """Times the phases of `steps` training steps, traces a few more, then raises `ProfileDone`.

    The timed steps run without the tracer, which slows steps down. On a CUDA device time is the
    device's own: events mark where a phase begins and ends among the queued work, so that nothing
    waits for it, and `wait for data` counts only while the device has nothing else to do.

    Args:
        steps: timed optimiser steps, after `WARM_UP` and before `TRACED` others.
        accumulation: batches of a step.
        device: of the training.
        folder: where the trace is written; none: not by this process.
    """

    def __init__(
        self, steps: int, accumulation: int, device: torch.device, folder: Path | None
    ) -> None:
        self.steps, self.device, self.folder = steps, device, folder
        self._first, self._last = WARM_UP * accumulation, (WARM_UP + steps) * accumulation
        self.batches = self._last + TRACED * accumulation
        self._number = 0
        self._span: list[Any] = []
        self._marks: list[tuple[str, Any, Any]] = []
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it speaks of missing GPUs
        kinds = [ProfilerActivity.CPU]
        if device.type == "cuda":
            kinds.append(ProfilerActivity.CUDA)
        self._tracer = profile(activities=kinds)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A part of a step, named in the trace; `WAIT` also counts the batches.

        Raises:
            ProfileDone: after the last traced step, on entering `WAIT`.
        """
        if name == WAIT:
            self._next_batch()
        began = self._now()
        with record_function(name):
            yield
        if self._first < self._number <= self._last:
            self._marks.append((name, began, self._now()))

    def seconds(self) -> dict[str, float]:
        """Of a step on average: by phase, `other` for what no phase covers, `step` for all."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        found: dict[str, float] = {}
        for name, began, ended in self._marks:
            found[name] = found.get(name, 0.0) + self._between(began, ended) / self.steps
        step = self._between(*self._span) / self.steps
        return {**found, "other": step - sum(found.values()), "step": step}

    def _next_batch(self) -> None:
        if self._number in (self._first, self._last):
            self._span.append(self._now())
        if self._number == self._last:
            self._tracer.start()
        if self._number == self.batches:
            self._tracer.stop()
            if self.folder is not None:
                with replaced(self.folder / TRACE) as partial:
                    self._tracer.export_chrome_trace(str(partial))
            raise ProfileDone
        self._number += 1

    def _now(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _between(self, began: Any, ended: Any) -> float:
        """Seconds."""
        if self.device.type != "cuda":
            return ended - began
        return began.elapsed_time(ended) / 1000


@contextmanager
def profiled(
    batches: Batches, setup: Setup, steps: int, world: World, folder: Path
) -> Iterator[tuple[Repeated, Path, Callable[[str], AbstractContextManager[None]]]]:
    """Time some steps of the training run within, end it then, and say where the time went.

        with profiled(batches, setup, 20, world, folder) as (repeated, nowhere, phase):
            fit(model, repeated, run_dir=nowhere, phase=phase, ...)

    Args:
        batches: they begin again where they end.
        steps: as many are timed.
        folder: for the times and the trace of the main process, which alone says anything.
    """
    written = folder if world.is_main else None
    profiler = StepProfiler(steps, setup.recipe.accumulation, world.device, written)
    with tempfile.TemporaryDirectory() as nowhere, suppress(ProfileDone):
        yield Repeated(batches, profiler.batches), Path(nowhere), profiler.phase
    seconds = profiler.seconds()
    if world.is_main:
        print("\n".join(table(seconds)))
        rate = setup.facts["global_batch"] / seconds["step"]
        facts = {"steps": steps, "clips_per_second": rate, "seconds": seconds}
        write_json(folder / PROFILE, facts)
        print(f"steps timed: {steps}; {rate:.1f} clips/s; the run was neither trained nor saved")
        print(f"  {folder / TRACE}: a trace of {TRACED} more; open it in ui.perfetto.dev")


def table(seconds: dict[str, float]) -> list[str]:
    """Lines of a table of `StepProfiler.seconds`.

    >>> print("\\n".join(table({"forward": 0.25, "other": 0.25, "step": 0.5})))
    phase              ms a step      %
    forward                250.0   50.0
    other                  250.0   50.0
    step                   500.0  100.0
    """
    return [f"{'phase':18} {'ms a step':>9} {'%':>6}"] + [
        f"{name:18} {1000 * value:9.1f} {100 * value / seconds['step']:6.1f}"
        for name, value in seconds.items()
    ]
