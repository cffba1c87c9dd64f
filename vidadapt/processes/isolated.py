"""Run a function on many jobs in processes that may crash or hang without harm."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from vidadapt.processes.children import LostProcess, check_temporary_folder

Job = TypeVar("Job")

CANNOT_START = (
    "a process for decoding could not start; it imports the script that is running, which has to "
    'be a file whose work stands under `if __name__ == "__main__":` (its own error is above)'
)

START = 60.0  # seconds that a worker may need to start: several on a busy machine


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    job: Any
    deadline: float
    has_started: bool = False


def run_isolated(
    function: Callable[[Job], Any],
    jobs: Sequence[Job],
    num_workers: int,
    time_limit: float | None,
    limit_key: str = "",
) -> Iterator[tuple[Job, Any, str]]:
    """Yield (job, result, error) as jobs end; error is empty, or says how the worker ended.

    A worker that dies or needs more than `time_limit` seconds for one job is replaced; only the
    job it had is lost. Workers come from a fork server, so no thread, decoder or device of this
    process is copied into them.

    Args:
        function: importable by name; its argument and result can be pickled; it must not raise.
        jobs: its arguments.
        num_workers: processes.
        time_limit: seconds for one job, without the start of its worker; None: no limit.
        limit_key: key or option of this limit, for the error.

    Raises:
        LostProcess: a worker died before it took its job; as a rule the script that runs this
            has no main guard.
        OSError: see `check_temporary_folder`.
    """
    named = f" ({limit_key})" if limit_key else ""
    check_temporary_folder()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", function.__module__])
    waiting = deque(jobs)
    workers: list[_Worker] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < num_workers:
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, function), daemon=True)
                process.start()
                theirs.close()
                workers.append(_Worker(process, ours, None, 0.0))
                _give(workers[-1], waiting.popleft(), time_limit and START)
            soonest = min(worker.deadline for worker in workers)
            patience = None if soonest == math.inf else max(0.0, soonest - time.monotonic())
            ready = wait([w.pipe for w in workers], patience)
            for worker in list(workers):
                error, result = "", None
                if worker.pipe in ready:
                    try:
                        result = worker.pipe.recv()
                    except (EOFError, OSError) as fault:
                        worker.process.join()
                        if not worker.has_started:
                            raise LostProcess(CANNOT_START) from fault
                        error = f"the decoder process died (exit code {worker.process.exitcode})"
                elif time.monotonic() >= worker.deadline:
                    error = f"the decoder process did not finish within {time_limit:g} s{named}"
                    if not worker.has_started:
                        error = f"the decoder process did not start within {START:g} s"
                else:
                    continue
                if not worker.has_started and not error:
                    worker.has_started = True
                    worker.deadline = _deadline(time_limit)
                    continue
                done = worker.job
                if waiting and not error:
                    _give(worker, waiting.popleft(), time_limit)
                else:
                    workers.remove(worker)
                    _end(worker)
                yield done, result, error
    finally:
        for worker in workers:
            _end(worker)


def _give(worker: _Worker, job: Any, time_limit: float | None) -> None:
    worker.job = job
    worker.deadline = _deadline(time_limit)
    with contextlib.suppress(OSError):  # it died meanwhile: reading its pipe shows that
        worker.pipe.send(job)


def _deadline(time_limit: float | None) -> float:
    return math.inf if time_limit is None else time.monotonic() + time_limit


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


def _serve(pipe: Connection, function: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all: the main process ends this
    pipe.send("started")
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send(function(job))
