"""Processes that train together: who they are, and how they meet, fail and wait together.

Everything works unchanged in a single process. Start-up and tear-down: `launching`.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from vidadapt.files import Lock, held_folder
from vidadapt.processes import LostProcess

Result = TypeVar("Result")

ANSWER = 10.0  # seconds that a process has to answer after an exchange has failed
# Part of gloo's errors: their place in its source, or torch's class for it.
GLOO = re.compile(r"\bgloo/\S+\.(cc|h):\d+|ProcessGroupGloo|\bGloo ")


@dataclass(frozen=True)
class World:
    """This process among its peers: `rank` of `size`, and the device that it computes on.

    `control` carries messages (errors, scores), on the CPU and with all the time that one process
    may need alone, e.g. to count the frames of a large set (less after `with_patience`). `group`
    carries the numbers of training, on the device; None: torch's default group. `roll` is for
    finding out who is missing after a failed exchange, which ends the connections of its group.
    `store` is where a process that fails leaves word of it; see `launching.end_with_the_others`.
    """

    rank: int
    size: int
    device: torch.device
    control: dist.ProcessGroup | None = None
    group: dist.ProcessGroup | None = None
    roll: dist.ProcessGroup | None = None
    store: dist.Store | None = None

    @property
    def is_main(self) -> bool:
        """True on the process that writes files and prints."""
        return self.rank == 0


class PeerError(RuntimeError):
    """Another process failed in a step that all of them take together."""


class Stopped(BaseException):
    """A signal asked the process to stop. No library's `except Exception` may swallow it.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}"


def with_patience(world: World, minutes: float) -> World:
    """Return the world with new groups, whose exchanges fail after so many minutes."""
    if world.size == 1:
        return world
    patience = timedelta(minutes=minutes)
    control: Any = dist.new_group(backend="gloo", timeout=patience)
    group: Any = dist.new_group(timeout=patience)
    # All ranks but 0 wait for the group's timeout, whatever timeout the barrier is given.
    roll: Any = dist.new_group(backend="gloo", timeout=timedelta(seconds=3 * ANSWER))
    return replace(world, control=control, group=group, roll=roll)


@contextlib.contextmanager
def exchange(
    world: World, where: str | Callable[[], str], minutes: float = math.inf
) -> Iterator[None]:
    """Guard a block in which processes exchange numbers.

    Args:
        where: names the block; a function is called when the error is raised.
        minutes: timeout of an exchange, where the block is hardly more than one.

    Raises:
        LostProcess: one of them did not take part; names it and what `where` says.
    """
    began = time.monotonic()
    try:
        yield
    except RuntimeError as error:
        if world.size == 1 or not is_broken_exchange(error):
            raise
        # After a closed connection, fail at once to close the others: no other process knows yet.
        # After a time-out all are here, but those that hang. The first one that times out closes
        # its connections, too; the others have waited long by then (over half of `minutes`).
        late = "timed out" in str(error).lower() or time.monotonic() - began > 30 * minutes
        who = _who_is_missing(world) if late else "lost another process"
        place = where if isinstance(where, str) else where()
        raise LostProcess(f"{place}: {who} ({_first_line(error)})") from error


def is_broken_exchange(error: Exception) -> bool:
    """Return whether torch.distributed raised it; gloo's errors are plain RuntimeErrors."""
    of_gloo = type(error) is RuntimeError and GLOO.search(str(error))
    return isinstance(error, dist.DistError) or bool(of_gloo)


def _who_is_missing(world: World) -> str:
    """Name the missing process: rank 0 asks all others, which wait longer than it does."""
    seconds = ANSWER if world.is_main else 3 * ANSWER
    try:
        dist.monitored_barrier(world.roll, timedelta(seconds=seconds), wait_all_ranks=True)
    except RuntimeError as error:
        found = re.search(r"Ranks? ([\d, ]+) failed to pass", str(error))
        if found:
            return f"rank {found[1].strip(' ,')} does not answer"
        if not world.is_main and "timed out" in str(error).lower():
            return "rank 0 does not answer"
        return "lost another process"
    return "all processes answer, but one was too late"


def _first_line(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return first.partition("] ")[2] or first


@contextlib.contextmanager
def together(world: World) -> Iterator[None]:
    """Let a step without communication succeed on all processes or fail on all of them.

    An error in one process reaches every other as a `PeerError`, so that none waits for a peer
    that is gone.

    Raises:
        Stopped: a signal stopped the lowest rank that failed; on all of them.
        PeerError: the lowest rank that failed is another process.
    """
    error: Exception | Stopped | None = None
    try:
        yield
    except (Exception, Stopped) as caught:
        error = caught
    stop = error.number if isinstance(error, Stopped) else None
    own = None if error is None else (str(error), stop)
    failures = enumerate(gather_objects(world, own))
    first, found = next(((rank, one) for rank, one in failures if one is not None), (-1, None))
    if found is None:
        return
    message, stop = found
    if first == world.rank and error is not None:
        raise error
    raise (PeerError(f"rank {first}: {message}") if stop is None else Stopped(stop)) from error


def from_main(world: World, step: Callable[[], Result]) -> Result:
    """Run a step on the main process alone; return its result on all processes.

    It succeeds on all processes or fails on all of them, see `together`. The result is sent by
    pickle; loading it may fail, e.g. where it maps a file that another machine lacks.
    """
    with together(world):
        result = step() if world.is_main else None
    if world.size == 1:
        return cast(Result, result)
    box = [pickle.dumps(result) if world.is_main else b""]
    dist.broadcast_object_list(box, src=0, group=world.control)
    with together(world):
        return cast(Result, result if world.is_main else pickle.loads(box[0]))


@contextlib.contextmanager
def held_by_main(
    world: World, folder: Path, what: str, *, wait: float = 0.0
) -> Iterator[Lock | None]:
    """Hold a folder's lock on the main process, for all of them; see `files.locks.held_folder`.

    It is released when all have reached the end, or when this one has failed.

    Raises:
        Held, OSError: as a `PeerError` on the other processes.
    """
    with contextlib.ExitStack() as stack:
        with together(world):
            main = held_folder(folder, what, wait=wait) if world.is_main else None
            lock = None if main is None else stack.enter_context(main)
        yield lock
        gather_objects(world, None)


def gather_objects(world: World, value: Any) -> list[Any]:
    """Return one picklable value of every process, in rank order, on every process."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value, group=world.control)
    return values
