"""One thread that runs the models, on the views of several requests at a time."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidadapt.models import NonFinite, autocast
from vidadapt.serving.bank import AdapterBank
from vidadapt.serving.predict import Group

Logits = dict[str, np.ndarray]


@dataclass(eq=False)
class Job:
    """What one request wants of a group of adapters that share decoding and a backbone.

    Attributes:
        group: the adapters' group.
        names: of the adapters that are asked for.
        views: (V, 3, T, S, S) uint8, the distinct views of a video.
        logits: to come: name -> (V, K) float32.
    """

    group: Group
    names: Sequence[str]
    views: Tensor
    logits: Future[Logits] = field(default_factory=Future)

    @property
    def rows(self) -> int:
        """Clips that the models look at: every view, once for each adapter."""
        return len(self.views) * len(self.names)


class Batcher:
    """Runs models on jobs, several in one forward pass.

    A pass waits for more jobs only while requests are on their way that are not here yet, and
    `max_wait` seconds at most: a request that is alone never waits.

    Args:
        max_batch: clips for which no more jobs are gathered; a forward pass has no more, or as
            many as `eval.views_per_forward` of the adapters.
        max_wait: seconds.
        coming: how many requests are being decoded, whose jobs come soon.
        passed: called with the clips of each forward pass.
    """

    def __init__(
        self,
        *,
        max_batch: int,
        max_wait: float,
        device: torch.device,
        coming: Callable[[], int],
        passed: Callable[[int], Any],
    ) -> None:
        self.max_batch, self.max_wait, self.device = max_batch, max_wait, device
        self._coming, self._passed = coming, passed
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Future[Logits]:
        """Put a job into the queue; its `logits` carry what the model raises, too."""
        self._jobs.put(job)
        return job.logits

    def close(self) -> None:
        """Finish the jobs in the queue, and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        ahead: list[Job] = []  # that did not fit into the pass before
        while True:
            first = ahead.pop(0) if ahead else self._jobs.get()
            if first is None:
                return
            jobs, ended = self._gathered(first, ahead)
            jobs = [job for job in jobs if job.logits.set_running_or_notify_cancel()]
            try:
                _answer(jobs, self.max_batch, self.device, self._passed)
            except Exception as error:
                self._one_by_one(jobs, error)
            if ended:
                self._jobs.put(None)

    def _gathered(self, first: Job, ahead: list[Job]) -> tuple[list[Job], bool]:
        """Take what waits and fits into a pass with a job, and wait for what comes.

        Args:
            ahead: jobs that were taken before; what does not fit is left in it, or put into it.

        Returns:
            The jobs of the pass, and whether the queue has ended.
        """
        jobs, waiting = [first], list(ahead)
        ahead.clear()
        deadline = time.monotonic() + self.max_wait
        while (left := self.max_batch - sum(job.rows for job in jobs)) > 0:
            if waiting:
                job: Job | None = waiting.pop(0)
            else:
                seconds = deadline - time.monotonic()
                waits = seconds > 0 and self._coming() > 0
                try:
                    job = self._jobs.get(timeout=seconds) if waits else self._jobs.get_nowait()
                except queue.Empty:
                    break
            if job is None:
                return jobs, True
            fits = job.group is first.group and job.rows <= left
            (jobs if fits else ahead).append(job)
        ahead += waiting
        return jobs, False

    def _one_by_one(self, jobs: Sequence[Job], error: Exception) -> None:
        """Answer the jobs of a pass that has failed, each alone: only those at fault fail again."""
        for job in jobs:
            if job.logits.done():
                continue
            try:
                if len(jobs) == 1:
                    raise error
                _answer([job], self.max_batch, self.device, self._passed)
            except Exception as own:
                job.logits.set_exception(own)


def _answer(
    jobs: Sequence[Job], max_batch: int, device: torch.device, passed: Callable[[int], Any]
) -> None:
    """Run the models of one group on the views of all jobs, and set their logits.

    Raises:
        NonFinite: a model's scores are not finite.
        Exception: what the model raises.
    """
    if not jobs:
        return
    group = jobs[0].group
    assert isinstance(group.bank, AdapterBank)  # a published classifier is not served
    clips = torch.cat([job.views for job in jobs for _ in job.names])
    tasks = [name for job in jobs for name in job.names for _ in range(len(job.views))]
    rows: list[Tensor] = []
    size = max(max_batch, group.config.eval.views_per_forward)  # a video's own views go together
    for start in range(0, len(clips), size):
        part = slice(start, start + size)
        own, batch = tasks[part], clips[part].to(device, non_blocking=True)
        with autocast(device, group.precision):
            rows += group.bank.logits(batch, own[0] if len(set(own)) == 1 else own)
        passed(len(own))
    start = 0
    for job in jobs:
        found = {}
        for name in job.names:
            found[name] = torch.stack(rows[start : start + len(job.views)]).float().cpu().numpy()
            start += len(job.views)
            if not np.isfinite(found[name]).all():
                raise NonFinite(f"the scores of {name} are not finite")
        if not job.logits.done():  # answered before another one of the pass failed
            job.logits.set_result(found)
