"""One worker process: what its parent holds of it, and what it does."""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import pickle
import signal
import struct
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import recv_handle, send_handle
from types import ModuleType
from typing import Any

import numpy as np

from vidadapt.processes.children import check_temporary_folder, end_with_parent

NUMBER, BEGAN = 0, 1  # of a worker's note: the item that it is on; monotonic ns, 0: it is on none
ENDING = 10.0  # seconds that a killed process may need, e.g. to give its memory back
NO_BYTES = np.empty(0, np.uint8)
SIZES = struct.Struct("qq")  # of what lies in memory: the arrays, and the pickle behind them
HIDING = threading.Lock()  # one thread at a time hides the script
MOST_IN_PIPE = 16_384  # bytes of a pickled result: no worker waits until its parent reads it


@dataclass(frozen=True)
class Work:
    """The work of a pool's workers; all functions are importable by name.

    Attributes:
        load: item -> value.
        join: values of a task's items -> the task's result, and arrays whose bytes go through
            shared memory, into which they are copied once.
        start: called once in each worker, before its first task.
        ahead: called with the items of a task as soon as a worker has it, while it is on an earlier
            one; what it raises is ignored, since `load` tells it.
        begin: called with the items of a task, in their order, before the first of them is loaded.
    """

    load: Callable[[Any], Any]
    join: Callable[[list[Any]], tuple[Any, Sequence[np.ndarray]]]
    start: Callable[[], None] | None = None
    ahead: Callable[[Iterable[Any]], None] | None = None
    begin: Callable[[Iterable[Any]], None] | None = None


@dataclass
class Task:
    """Items by number; of its workers' deaths the items' numbers, and how idle ones ended."""

    place: int
    items: dict[int, Any]
    deaths: list[int] = field(default_factory=list)
    idle_ends: list[str] = field(default_factory=list)


class Worker:
    """A process, from a fork server: no thread, decoder or device of this one is copied into it."""

    def __init__(self, work: Work, limit: float | None) -> None:
        context = multiprocessing.get_context("forkserver")
        module, said = getattr(work.load, "func", work.load).__module__, pickle.dumps(work)
        of_script = b"__main__" in said
        context.set_forkserver_preload([*(["__main__"] if of_script else []), module])
        self.pipe, theirs = context.Pipe()
        self.note = context.RawArray("q", 2)
        self.tasks: deque[Task] = deque()  # whose results are still to come
        self.is_ready = False
        self.began, self._spent, self._looked = 0, 0.0, time.monotonic()
        arguments = (theirs, self.note, limit)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        with contextlib.nullcontext() if of_script else _script_hidden():
            self.process.start()
        theirs.close()
        # No argument: `start` fails where a process dies before it has read all its arguments.
        self._tell(said)

    def give(self, task: Task) -> None:
        """Send a task; it waits in the pipe while the worker is on another one."""
        self.tasks.append(task)
        self._tell(pickle.dumps(task.items))

    def _tell(self, said: bytes) -> None:
        with contextlib.suppress(OSError):  # it died meanwhile: reading its pipe shows that
            self.pipe.send_bytes(said)

    def seconds(self, most: float) -> float:
        """Seconds for which the worker has been seen on its item, starting, or before its task.

        Of the time since the last look `most` counts: where a job was suspended nobody looked, and
        its workers have not worked.
        """
        now, began = time.monotonic(), self.note[BEGAN]
        self._spent += min(now - self._looked, most)
        if began != self.began or (self.is_ready and not self.tasks):
            self._spent = 0.0
        self.began, self._looked = began, now
        return self._spent

    def count_anew(self) -> None:
        """Let `seconds` begin at 0: it has sent something."""
        self.seconds(0.0)
        self._spent = 0.0

    def end(self) -> None:
        """Kill the process and let go of all that belongs to it."""
        if self.process.is_alive():
            self.process.kill()
        self.process.join(ENDING)
        if self.process.exitcode == 255:  # its status died with the fork server: it may live
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid or 0, signal.SIGKILL)
        self.pipe.close()

    def how_it_ended(self) -> str:
        code = self.process.exitcode
        if code in (None, 255):
            return "unknown"
        return f"exit status {code}" if code >= 0 else signal.strsignal(-code) or f"signal {-code}"


def start_server(module: str) -> None:
    """Start the fork server, which imports this module while its caller does something else.

    Else the first `Worker` starts it, and waits until it has imported what the work needs: torch
    and torchvision take 3.4 s of a core. Where it cannot start, the first `Worker` says why.
    """
    multiprocessing.set_forkserver_preload([module])
    with _script_hidden(), contextlib.suppress(OSError):
        forkserver.ensure_running()


def start_from_server(function: Callable[..., object], *arguments: object) -> BaseProcess:
    """Start a function, importable by name, in a process of the fork server; it may have children.

    What the server has imported need not be imported again.

    Raises:
        OSError: see `check_temporary_folder`, or the process cannot start.
    """
    check_temporary_folder()
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=function, args=arguments)
    with _script_hidden():
        process.start()
    return process


@contextlib.contextmanager
def _script_hidden() -> Iterator[None]:
    """Let processes that start in this block not run the script of this one.

    `multiprocessing` runs it again in each of them, so that what was pickled finds the script's
    functions; without a main guard the script would begin again there. Work that is importable from
    elsewhere needs no script.
    """
    with HIDING:
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = script


def _serve(pipe: Connection, note: Any, limit: float | None) -> None:
    """Take the work, say "ready", take tasks and send results until the parent ends.

    A task is a dict of items by number; its result, or what was raised, goes to `receive`.

    Args:
        note: two int64 in shared memory, which say on which item this worker is, and since when.
        limit: seconds for one item; None: any time.
    """
    # Ctrl-C, and what schedulers send to all processes of a job: the parent ends this process.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    with contextlib.suppress(EOFError, ConnectionError):  # the parent has ended
        work = pickle.loads(pipe.recv_bytes())
        if work.start is not None:
            work.start()
        _send(pipe, pickle.dumps("ready"), ())
        tasks: deque[bytes] = deque()
        while True:
            while not tasks or (work.ahead is not None and pipe.poll()):
                tasks.append(pipe.recv_bytes())
                with contextlib.suppress(Exception):
                    _look_ahead(work, tasks[-1])
            _send(pipe, *_outcome(tasks.popleft(), note, work, limit))


def _look_ahead(work: Work, task: bytes) -> None:
    if work.ahead is not None:
        work.ahead(pickle.loads(task).values())


def _outcome(
    task: bytes, note: Any, work: Work, limit: float | None
) -> tuple[bytes, Sequence[np.ndarray]]:
    """The pickled result of a pickled task and its arrays, or what was raised."""
    try:
        items = pickle.loads(task)
        if work.begin is not None:
            work.begin(items.values())
        values = [_noted(number, items[number], note, work, limit) for number in items]
        result, arrays = work.join(values)
        return pickle.dumps(result), arrays
    except Exception as error:
        return _pickled(error), ()


def _pickled(error: Exception) -> bytes:
    """Return an error with its place; in words where pickle cannot copy it."""
    trace = error.__traceback__
    try:
        said = pickle.dumps(ExceptionWithTraceback(error, trace))
        pickle.loads(said)
    except Exception:
        said = pickle.dumps(ExceptionWithTraceback(RuntimeError(repr(error)), trace))
    return said


def _noted(number: int, item: Any, note: Any, work: Work, limit: float | None) -> Any:
    """Load an item; the note says meanwhile that this worker is on it."""
    note[NUMBER] = number
    note[BEGAN] = time.monotonic_ns()
    # Ends a worker that hangs with Python's lock when nobody is left to kill it.
    signal.setitimer(signal.ITIMER_REAL, 2 * limit if limit else 0.0)
    try:
        return work.load(item)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        note[BEGAN] = 0


def _send(pipe: Connection, said: bytes, arrays: Sequence[np.ndarray]) -> None:
    """Send a pickle and the bytes of arrays, end to end, in memory without a name."""
    size = sum(array.nbytes for array in arrays)
    behind = len(said) if len(said) > MOST_IN_PIPE else 0
    told = SIZES.pack(size, behind) + (b"" if behind else said)
    if not size + behind:
        pipe.send_bytes(told)
        return
    memory = hasattr(os, "memfd_create")  # Linux
    with os.fdopen(os.memfd_create("clips"), "wb") if memory else tempfile.TemporaryFile() as file:
        # Written, not copied into a mapping, whose pages would be cleared and faulted in singly.
        for array in arrays:
            file.write(np.ascontiguousarray(array).data)
        file.write(said[:behind])
        file.flush()
        pipe.send_bytes(told)
        send_handle(pipe, file.fileno(), os.getppid())


def receive(pipe: Connection) -> tuple[Any, np.ndarray]:
    """Read what `_send` sent: the result, and (N,) uint8, whose memory goes with the array.

    Raises:
        EOFError, OSError: the worker is gone.
    """
    told = pipe.recv_bytes()
    size, behind = SIZES.unpack_from(told)
    if not size + behind:
        return pickle.loads(told[SIZES.size :]), NO_BYTES
    file = recv_handle(pipe)
    try:
        memory = mmap.mmap(file, size + behind)
    finally:
        os.close(file)
    said = memory[size:] if behind else told[SIZES.size :]
    return pickle.loads(said), np.frombuffer(memory, np.uint8, size) if size else NO_BYTES
