"""Run tasks in worker processes: an item that hangs or kills its worker is found and named.

A task is one or more items, which a worker loads one after the other and joins into a result. Each
worker has a pipe of its own, so that nothing it leaves locked or half-written holds up another one,
and notes in shared memory which item it is on and since when. Where an item takes too long or a
worker has ended, that worker is replaced, and its tasks are done again without what is lost.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import util
from multiprocessing.connection import wait
from typing import Any

import numpy as np

from vidadapt.processes.children import LostProcess, check_temporary_folder
from vidadapt.processes.worker import NO_BYTES, Task, Work, Worker, receive

CANNOT_START = (
    "a process for decoding could not start; its work is a function of the script that is running, "
    'which has to be a file with the rest under `if __name__ == "__main__":`, or the work in a '
    "module of its own (its own error is above)"
)
START = 60.0  # seconds that a worker may need to start: several on a busy machine
IDLE_ENDS = 3  # of workers that have the same task before them and are on no item
AHEAD = 2  # tasks that a worker has, where results come in order: one waits while it is on another


@dataclass(frozen=True)
class Lost:
    """An item that hung or killed its worker, and the seconds that were spent on it."""

    item: Any
    reason: str
    seconds: float


@dataclass(frozen=True)
class Done:
    """The result of a task.

    Attributes:
        place: of the task.
        items: those that the result is of, without what is barred or lost.
        result: what `unpack` made of it; None if no item is left.
    """

    place: int
    items: list[Any]
    result: Any


class _Pass:
    """The tasks of a pass: those that wait for a worker, and those that are done.

    Args:
        window: how many tasks may be under way, in the order of which results are yielded; None:
            any number, and results are yielded as they come.
    """

    def __init__(
        self, tasks: Sequence[Sequence[Any]], barred: Callable[[Any], bool], window: int | None
    ) -> None:
        self.tasks, self.barred, self.window = tasks, barred, window
        self.given = self.ended = 0
        self.again: list[Task] = []
        self.done: dict[int, Done] = {}

    def may_give(self) -> bool:
        last = len(self.tasks) if self.window is None else self.ended + self.window
        return bool(self.again) or self.given < min(last, len(self.tasks))

    def next_task(self) -> Task | None:
        """Take the next task, without what is barred; None: it is done, since nothing is left."""
        if self.again:
            task = self.again.pop(0)
        else:
            task = Task(self.given, dict(enumerate(self.tasks[self.given])))
            self.given += 1
        task.items = {n: item for n, item in task.items.items() if not self.barred(item)}
        if task.items:
            return task
        self.done[task.place] = Done(task.place, [], None)
        return None

    def do_again(self, tasks: Iterable[Task]) -> None:
        self.again = sorted([*self.again, *tasks], key=lambda task: task.place)

    def next_done(self) -> int | None:
        """Place of the next task whose result can be yielded."""
        if self.window is None:
            return next(iter(self.done), None)
        return self.ended if self.ended in self.done else None


def _as_it_is(result: Any, data: np.ndarray) -> Any:
    return result


def _nothing(item: Any) -> bool:
    return False


class Pool:
    """Worker processes that last over many passes; each starts with the first task for it.

    `close` ends the workers, as does the end of this process or of the object. One pass over
    `results` at a time: it ends the one before, and where that was broken off, needs new workers.

    Args:
        work: what workers do.
        num_workers: 0: this process does it, and nothing can be found to hang or die.
        limit: seconds for one item, without the start of its worker; None: any time.
        limit_key: key or option of this limit, for messages.
        tries: how often an item may kill its worker until it is lost. The cause may be outside it:
            the kernel ends processes where memory is short. One that hangs is lost at once.
        unpack: result and bytes of `work.join` -> the result, in this process, as soon as it comes.

    Raises:
        OSError: see `check_temporary_folder`.
    """

    def __init__(
        self,
        work: Work,
        *,
        num_workers: int,
        limit: float | None,
        limit_key: str = "",
        tries: int = 1,
        unpack: Callable[[Any, np.ndarray], Any] = _as_it_is,
    ) -> None:
        if num_workers > 0:
            check_temporary_folder()
        self._work, self._num_workers, self._unpack = work, num_workers, unpack
        self._limit, self._limit_key, self._tries = limit, limit_key, tries
        self._workers: list[Worker] = []
        self._run: _Pass | None = None
        # Before multiprocessing's own end, which waits for workers that hang.
        util.Finalize(self, _end, (self._workers,), exitpriority=100)

    def close(self) -> None:
        """End the workers, and the pass that is under way."""
        self._run = None
        _end(self._workers)

    def results(
        self,
        tasks: Sequence[Sequence[Any]],
        *,
        barred: Callable[[Any], bool] = _nothing,
        in_order: bool = False,
    ) -> Iterator[Done | Lost]:
        """Yield the result of each task once, and each lost item as soon as it is known.

        Args:
            tasks: the items of each.
            barred: whether an item is to be left out. It may change when a lost item is yielded:
                no later result holds what is barred then.
            in_order: yield results in the order of tasks, else as they come. In order, `AHEAD`
                tasks for each worker are under way or wait to be yielded.

        Raises:
            LostProcess: workers cannot start, as a rule since their work is a function of a script
                without a main guard; or they end again and again while they are on no item.
            RuntimeError: asked for more after `close`, or after another pass has begun.
            Exception: one that was raised in a worker; a RuntimeError with its words where pickle
                cannot copy it.
        """
        if self._num_workers == 0:
            yield from self._results_here(tasks, barred)
            return
        if any(worker.tasks for worker in self._workers):
            self.close()
        run = self._run = _Pass(tasks, barred, AHEAD * self._num_workers if in_order else None)
        self._give_out(run)
        while run.ended < len(tasks):
            self._check_under_way(run)
            for lost in self._take_in(run):
                yield lost
                self._check_under_way(run)
                self._recall(run)
            place = run.next_done()
            run.ended += place is not None
            self._give_out(run)
            if place is not None:
                yield run.done.pop(place)

    def _check_under_way(self, run: _Pass) -> None:
        if self._run is not run:
            raise RuntimeError("this pass has ended: the pool was closed, or began another one")

    def _results_here(
        self, tasks: Sequence[Sequence[Any]], barred: Callable[[Any], bool]
    ) -> Iterator[Done]:
        for place, items in enumerate(tasks):
            left, result = [item for item in items if not barred(item)], None
            if left:
                if self._work.begin is not None:
                    self._work.begin(left)
                result, arrays = self._work.join([self._work.load(item) for item in left])
                flat = [array.reshape(-1).view(np.uint8) for array in arrays]
                data = flat[0] if len(flat) == 1 else np.concatenate([*flat, NO_BYTES])
                result = self._unpack(result, data)
            yield Done(place, left, result)

    def _give_out(self, run: _Pass) -> None:
        """Give tasks to the workers with the fewest; start workers while all have some."""
        most = 1 if run.window is None else AHEAD
        while run.may_give():
            worker = min(self._workers, key=lambda one: len(one.tasks), default=None)
            if worker is None or (worker.tasks and len(self._workers) < self._num_workers):
                worker = Worker(self._work, self._limit)
                self._workers.append(worker)
            if len(worker.tasks) == most:
                return
            if task := run.next_task():
                worker.give(task)

    def _take_in(self, run: _Pass) -> list[Lost]:
        """Take what workers have sent; replace those that have ended or are late.

        Waits where nothing can be yielded, but not for ever where a worker may be late.
        """
        interval = None if self._limit is None else min(1.0, self._limit / 4)
        patience = interval if run.next_done() is None else 0.0
        ready = wait([worker.pipe for worker in self._workers], patience)
        lost = []
        for worker in list(self._workers):
            if worker.pipe not in ready:
                if interval and worker.seconds(2 * interval) > self._limit_of(worker):
                    lost += self._lose(worker, run, late=True)
                continue
            try:
                result, data = receive(worker.pipe)
            except (EOFError, OSError):
                lost += self._lose(worker, run, late=False)
                continue
            worker.count_anew()
            if not worker.is_ready:
                worker.is_ready = True
                continue
            if isinstance(result, Exception):
                raise result
            task = worker.tasks.popleft()
            items = list(task.items.values())
            run.done[task.place] = Done(task.place, items, self._unpack(result, data))
        return lost

    def _limit_of(self, worker: Worker) -> float:
        """Seconds after which a worker is late, on an item or at its start.

        One that is ready and has not begun its task, or does not send the result, has stopped.
        """
        limit = math.inf if self._limit is None else self._limit
        return limit if worker.is_ready and worker.began else max(START, limit)

    def _withdraw(self, worker: Worker, run: _Pass) -> None:
        """End a worker; its tasks are to be done again."""
        worker.end()
        self._workers.remove(worker)
        run.do_again(worker.tasks)

    def _lose(self, worker: Worker, run: _Pass, *, late: bool) -> list[Lost]:
        """Withdraw a worker that has ended or is late; return the item that is lost, if any."""
        if not late:
            worker.process.join(1.0)  # it has closed its pipe, and may not have ended yet
        self._withdraw(worker, run)
        number, began = worker.note
        if not worker.tasks or (late and began != worker.began):  # it has finished just now
            return []
        task, how = worker.tasks[0], worker.how_it_ended()
        if not began:
            if late:
                how = f"not started within {self._limit_of(worker):g} s"
            _check_idle_end(worker, task, how)
            return []
        alarmed = worker.process.exitcode == -signal.SIGALRM  # by its own clock, see `_noted`
        if not late:
            task.deaths.append(number)
            # That clock runs while a job is suspended: an item has hung where it rings twice.
            tries = max(2, self._tries) if alarmed else self._tries
            if task.deaths.count(number) < tries:
                return []
        if late or alarmed:
            named = f" ({self._limit_key})" if self._limit_key else ""
            reason = f"did not finish within {self._limit:g} s{named}"
        else:
            times = {1: "", 2: " twice"}.get(self._tries, f" {self._tries} times")
            reason = f"died{times} ({how})"
        seconds = (time.monotonic_ns() - began) / 1e9
        return [Lost(task.items.pop(number), f"the decoder process {reason}", seconds)]

    def _recall(self, run: _Pass) -> None:
        """Let tasks be done again in which an item has been barred since they were given out."""
        for worker in list(self._workers):
            if any(run.barred(item) for task in worker.tasks for item in task.items.values()):
                self._withdraw(worker, run)
        for place, done in list(run.done.items()):
            if any(map(run.barred, done.items)):
                del run.done[place]
                run.do_again([Task(place, dict(enumerate(done.items)))])


def _check_idle_end(worker: Worker, task: Task, how: str) -> None:
    if not worker.is_ready and how.startswith("exit status"):
        raise LostProcess(CANNOT_START)
    task.idle_ends.append(how)
    if len(task.idle_ends) == IDLE_ENDS:
        raise LostProcess(
            f"processes that load videos ended {IDLE_ENDS} times while they were on none "
            f"({', '.join(sorted(set(task.idle_ends)))}); is memory short? Lower data.num_workers "
            "or train.batch_size"
        )


def _end(workers: list[Worker]) -> None:
    while workers:
        workers.pop().end()
