"""Loader workers that are looked after: a clip that hangs or kills its worker is found and named.

`DataLoader` waits for ever for a worker that hangs, and cannot replace one that died; a hang in C
ignores Python's signals. So each worker notes in shared memory which item it is on and since when,
and a thread of this process looks: where an item takes too long or a worker has ended, it kills
all of them. Waiting for the next result then fails, and `Watched` starts new ones at the first
result that is missing.

An item whose worker died is tried once more, for the cause may lie outside it (the kernel ends
processes where memory is short); one that hung is not. Workers ignore SIGINT, SIGTERM and SIGUSR1,
which schedulers send to all processes of a job: they end with the process that started them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import util
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from vidadapt.data.changes import ChangedVideo
from vidadapt.data.workers import start_worker, worker_options
from vidadapt.processes.children import LostProcess
from vidadapt.video import ReadError

BEGAN, NUMBER = 0, 1  # of a worker's slot: monotonic ns, 0 while it is on no item; which item
FAULTS = (RuntimeError, OSError, EOFError, KeyError)  # of waiting for a worker that is gone
STARTS = 3  # in a row whose workers end while they are on no item
ENDING = 10.0  # seconds that a killed process may need, e.g. to give its memory back


@dataclass(frozen=True)
class Unread:
    """An item that raised `ReadError`: its key, the message, the seconds that were spent, and
    whether its file has changed since it was counted."""

    key: Any
    reason: str
    seconds: float
    changed: bool = False


@dataclass(frozen=True)
class _Loss:
    number: int
    reason: str
    seconds: float
    hung: bool


class Watched:
    """Results of tasks in their order, from workers that are replaced when one hangs or dies.

    Args:
        dataset: key -> item; it may raise `ReadError`.
        collate: one or more items -> result.
        num_workers: 0: items are made in this process, and none can be watched.
        pin_memory: see `DataLoader`.
        limit: seconds for one item; None: any time, and only deaths are noticed.
        barred: whether an item is to be left out, by key.
        lost: told key, reason and seconds of an item that hung or killed its worker, after which
            `barred` must be true of it.

    `close` ends the workers, as does the end of this process or of the object. One pass over
    `results` at a time; one that is broken off costs new workers at the next.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        collate: Callable[[list[Any]], Any],
        *,
        num_workers: int,
        pin_memory: bool,
        limit: float | None,
        barred: Callable[[Any], bool],
        lost: Callable[[Any, str, float], None],
    ) -> None:
        self._dataset, self._collate = dataset, _Collate(collate)
        self._num_workers, self._pin_memory, self._limit = num_workers, pin_memory, limit
        self._barred, self._lost = barred, lost
        self._suspects: set[Any] = set()
        self._crews: list[_Crew] = []  # none or one
        self._under_way = False
        # Before PyTorch's own end, which waits for workers that hang.
        util.Finalize(self, _dismiss, (self._crews,), exitpriority=100)

    def results(self, tasks: Sequence[Sequence[Any]]) -> Iterator[tuple[Any, list[Unread]]]:
        """For each task, a list of keys, the result of its items and those that were unreadable.

        What is barred, lost or unreadable is left out of its task's result; of a task of which
        nothing is left it is None. All else comes exactly once, in order.

        Raises:
            LostProcess: workers end again and again while they are on no item.
        """
        done = idle_ends = 0
        while done < len(tasks):
            coming = [[key for key in keys if not self._barred(key)] for keys in tasks[done:]]
            stream = self._stream(coming)
            while done < len(tasks):
                try:
                    result = next(stream)
                except FAULTS:
                    # A worker that has just broken a connection may not have ended yet.
                    if not (self._crews and self._crews[0].has_lost_some(patience=1.0)):
                        raise
                    break
                done, idle_ends = done + 1, 0
                self._under_way = done < len(tasks)
                yield result
            else:
                return
            numbered = [key for keys in coming for key in keys]
            losses = self._crews[0].losses()
            status = self._crews[0].status()
            _dismiss(self._crews)
            idle_ends += not losses
            if idle_ends == STARTS:
                raise LostProcess(
                    f"processes that load clips ended {STARTS} times while they were on none "
                    f"({status}); is memory short, or /dev/shm full (df -h /dev/shm)? Lower "
                    "data.num_workers or train.batch_size"
                )
            for loss in losses:
                key = numbered[loss.number]
                if loss.hung or key in self._suspects:
                    self._lost(key, loss.reason, loss.seconds)
                self._suspects.add(key)

    def close(self) -> None:
        """End the workers."""
        _dismiss(self._crews)

    def _stream(self, coming: list[list[Any]]) -> Iterator[tuple[Any, list[Unread]]]:
        """The results of the tasks, as long as no worker is lost."""
        if self._under_way or (self._crews and self._crews[0].has_lost_some(patience=0.0)):
            _dismiss(self._crews)
        self._under_way = True
        results: Iterator[Any] = iter(())
        if self._num_workers == 0:
            results = map(self._result_here, filter(None, coming))
        else:
            numbers = iter(range(sum(map(len, coming))))
            numbered = [[(next(numbers), key) for key in keys] for keys in coming if keys]
            if numbered:
                results = self._from_workers(numbered)
        for keys in coming:
            yield next(results) if keys else (None, [])

    def _result_here(self, keys: list[Any]) -> tuple[Any, list[Unread]]:
        return self._collate([_item(self._dataset, key) for key in keys])

    def _from_workers(self, tasks: list[list[tuple[int, Any]]]) -> Iterator[Any]:
        if self._crews:
            return self._crews[0].begin(tasks)
        crew = _Crew(self._dataset, self._collate, self._num_workers, self._pin_memory, self._limit)
        self._crews.append(crew)
        return crew.begin(tasks)


def _dismiss(crews: list[_Crew]) -> None:
    while crews:
        crews.pop().end()


class _Crew:
    """The workers of one `DataLoader`, and the thread that looks after them."""

    def __init__(
        self,
        dataset: Dataset[Any],
        collate: _Collate,
        num_workers: int,
        pin_memory: bool,
        limit: float | None,
    ) -> None:
        slots = torch.zeros((num_workers, 2), dtype=torch.int64).share_memory_()
        self._slots, self._limit = slots.numpy(), limit
        self._tasks = _Tasks()
        options = worker_options(num_workers, pin_memory)
        self._loader = DataLoader(
            _Noting(dataset, slots, limit),
            batch_sampler=self._tasks,
            collate_fn=collate,
            **{**options, "worker_init_fn": _start_watched},
        )
        self._iterator: Any = None
        self._processes: list[Any] = []
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._lock = threading.Lock()
        self._killed_at = 0  # monotonic ns; 0: not
        self._ended: set[int] = set()
        self._late: dict[int, int] = {}

    def begin(self, tasks: list[list[tuple[int, Any]]]) -> Iterator[Any]:
        """The results of these tasks; the first call starts the workers."""
        self._tasks.coming = tasks
        if self._iterator is None:
            # Sockets of workers lie in this process's folder, since killed ones remove none.
            util.get_temp_dir()
            # What workers import is imported once, where nothing has started the server yet.
            server = multiprocessing.get_context("forkserver")
            server.set_forkserver_preload(["__main__", "vidadapt.data.clips"])
            self._iterator = iter(self._loader)
            self._processes = list(self._iterator._workers)
            self._watcher.start()
            return self._iterator
        return iter(self._loader)

    def has_lost_some(self, patience: float) -> bool:
        """Whether a worker has ended, or does within so many seconds."""
        return bool(self._killed_at or wait(self._sentinels(), patience))

    def losses(self) -> list[_Loss]:
        """Kill the workers; the items that one of them was late with or died on."""
        self._kill({})
        for process in self._processes:
            process.join(ENDING)
        found = []
        for worker, (began, number) in enumerate(self._slots.tolist()):
            seconds = (self._killed_at - began) / 1e9
            if began and self._late.get(worker) == began:
                reason = f"the decoder process did not finish within {self._limit:g} s"
                found.append(_Loss(number, reason, seconds, hung=True))
            elif began and worker in self._ended and (how := self._how(worker)):
                reason = f"the decoder process died twice ({how})"
                found.append(_Loss(number, reason, seconds, hung=False))
        return found

    def status(self) -> str:
        """How those workers ended that were not killed from here."""
        return ", ".join(sorted({self._how(worker) or "unknown" for worker in self._ended}))

    def end(self) -> None:
        """Kill the workers and let go of all that belongs to them."""
        self._kill({})
        for process in self._processes:
            process.join(ENDING)
            if process.exitcode == 255:  # its status died with the fork server: it may live
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            # PyTorch removes the names at once; a killed process may not have come to that.
            for name in Path("/dev/shm").glob(f"torch_{process.pid}_*"):
                name.unlink(missing_ok=True)
        if self._iterator is None:
            return
        self._watcher.join(ENDING)
        # Tells workers to end; one that was killed can have left it locked, and none is left.
        self._iterator._workers_done_event = threading.Event()
        # PyTorch waits here for its pinning thread, and that for a result which came half.
        goodbye = threading.Thread(target=self._iterator._shutdown_workers, daemon=True)
        with contextlib.suppress(RuntimeError):  # Python is ending: it frees what is left
            goodbye.start()
            goodbye.join(ENDING)

    def _watch(self) -> None:
        interval = 1.0 if self._limit is None else min(1.0, self._limit / 4)
        began, spent = self._slots[:, BEGAN].copy(), np.zeros(len(self._slots))
        last = time.monotonic()
        while not wait(self._sentinels(), interval):
            now = time.monotonic()
            # A job that was suspended has not looked, and its workers have not worked.
            spent += min(now - last, 2 * interval)
            last = now
            seen = self._slots[:, BEGAN].copy()
            spent[(seen != began) | (seen == 0)] = 0.0
            began = seen
            if self._limit is not None and (spent > self._limit).any():
                late = np.flatnonzero(spent > self._limit).tolist()
                self._kill_and_wake({worker: int(began[worker]) for worker in late})
                return
        self._kill_and_wake({})

    def _kill_and_wake(self, late: dict[int, int]) -> None:
        """End the wait for the next result with a `KeyError`, unless nothing was left to kill."""
        if self._kill(late):
            results = self._iterator._worker_result_queue
            results.cancel_join_thread()
            with contextlib.suppress(ValueError):  # closed meanwhile
                results.put((None, None))

    def _kill(self, late: dict[int, int]) -> bool:
        """Kill all workers, unless that was done; keep who was late, and who had ended before.

        Returns when they have ended, `ENDING` at most for each.
        """
        with self._lock:
            if self._killed_at:
                return False
            ready = set(wait(self._sentinels(), 0)) if self._processes else set()
            self._ended = {i for i, p in enumerate(self._processes) if p.sentinel in ready}
            self._late = late
            self._killed_at = time.monotonic_ns()
            for number, process in enumerate(self._processes):
                if number not in self._ended:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGKILL)
            for sentinel in self._sentinels():
                wait([sentinel], ENDING)
            if self._iterator is not None:
                # Asked for by this process below, and a killed one can have left it locked.
                lock = self._iterator._worker_result_queue._wlock
                lock.acquire(False)
                lock.release()
            return True

    def _sentinels(self) -> list[int]:
        return [process.sentinel for process in self._processes]

    def _how(self, worker: int) -> str:
        """How a worker ended; empty where that is unknown, as when the fork server was killed."""
        code = self._processes[worker].exitcode
        if code in (None, 255):
            return ""
        return f"exit status {code}" if code >= 0 else signal.strsignal(-code) or f"signal {-code}"


class _Tasks:
    """A batch sampler whose tasks can be exchanged between passes."""

    def __init__(self) -> None:
        self.coming: list[list[tuple[int, Any]]] = []

    def __iter__(self) -> Iterator[list[tuple[int, Any]]]:
        return iter(self.coming)

    def __len__(self) -> int:
        return len(self.coming)


class _Noting(Dataset[Any]):
    """Items by (number, key), the number being noted in the worker's slot meanwhile."""

    def __init__(self, dataset: Dataset[Any], slots: torch.Tensor, limit: float | None) -> None:
        self.dataset, self.slots, self.limit = dataset, slots, limit

    def __getitem__(self, numbered: tuple[int, Any]) -> Any:
        number, key = numbered
        info = get_worker_info()
        assert info is not None
        slot = self.slots.numpy()[info.id]
        slot[NUMBER] = number
        slot[BEGAN] = time.monotonic_ns()
        # Ends a worker that hangs with Python's lock when nobody is left to kill it.
        signal.setitimer(signal.ITIMER_REAL, 2 * self.limit if self.limit else 0.0)
        try:
            return _item(self.dataset, key)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            slot[BEGAN] = 0


class _Collate:
    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, items: list[Any]) -> tuple[Any, list[Unread]]:
        read = [item for item in items if not isinstance(item, Unread)]
        unread = [item for item in items if isinstance(item, Unread)]
        return (self.collate(read) if read else None), unread


def _item(dataset: Dataset[Any], key: Any) -> Any:
    began = time.monotonic()
    try:
        return dataset[key]
    except ReadError as error:
        changed = isinstance(error, ChangedVideo)
        return Unread(key, str(error), time.monotonic() - began, changed)


def _start_watched(worker: int) -> None:
    start_worker(worker)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
