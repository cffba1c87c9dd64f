"""The machinery: jobs, how their outcomes are judged, and processes that may crash or hang."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import sys
import tempfile
import traceback
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Before the other modules here, whose helpers lie there.
sys.path.append(str(Path(__file__).parents[1]))

RIGHT = "right"
TIME_LIMIT = 300.0  # seconds of one job, on a machine that may have other work
SHM = "/dev/shm"  # where a file and its folder cost least
MEMORY = 3 << 30  # bytes of address space that a process may take beyond what it starts with


class Job(NamedTuple):
    """Input `number` of a kind; with `seed` it settles every byte of it."""

    kind: str
    seed: int
    number: int

    def rng(self) -> np.random.Generator:
        letters = int.from_bytes(self.kind.encode(), "big")
        return np.random.default_rng([self.seed, self.number, letters])


@dataclass
class Tally:
    """What became of the inputs of a kind.

    Attributes:
        outcomes: number of inputs by `right` or the type of the error.
        parts: the same by what the inputs are: kind and name of a part, e.g. ("codec", "h264").
        defects: what must not be: any other end.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    parts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    defects: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.outcomes.update(other.outcomes)
        self.parts.update(other.parts)
        self.defects += other.defects


class Defect(AssertionError):
    """Something else than a right result or a documented error."""


def judged(
    call: Callable[[], Any], documented: tuple[type[BaseException], ...], named: str = ""
) -> tuple[str, Any]:
    """`RIGHT` and the result, or the name of a documented error and None.

    Args:
        documented: exactly these types, none derived from them.
        named: what the message must hold: the file.

    Raises:
        Defect: an error of another type, or one with a message that is none.
    """
    try:
        return RIGHT, call()
    except documented as error:
        said = str(error)
        if type(error) not in documented:
            raise Defect(f"a {type(error).__name__}, which is not documented: {said}") from error
        if not said.strip() or named not in said:
            raise Defect(
                f"the message of a {type(error).__name__} says too little: {said}"
            ) from error
        if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") and c not in "\n\t" for c in said):
            raise Defect(f"a message that a terminal would obey: {said!r}") from error
        return type(error).__name__, None


def same(found: Any, expected: Any, what: str) -> None:
    if found != expected:
        raise Defect(f"{what}: {found!r} where {expected!r} is right")


def attempt(job: Job) -> Tally:
    """Make an input, give it to what is tested, and judge: never raises."""
    from fuzz_kinds import KINDS

    tally = Tally()
    _limit_memory()
    try:
        with (
            tempfile.TemporaryDirectory(
                prefix="fuzz", dir=SHM if os.access(SHM, os.W_OK) else None
            ) as scratch,
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            KINDS[job.kind].check(job, Path(scratch), tally)
    except BaseException as error:
        notes = "\n".join(getattr(error, "__notes__", ()))
        trace = "".join(traceback.format_exception(error)[-12:])
        tally.defects.append(f"{job}\n{trace}\n{notes}")
    return tally


_limited: list[bool] = []


def _limit_memory() -> None:
    """An input that asks for too much gets a MemoryError, not the machine's memory."""
    if not _limited and "PYTEST_CURRENT_TEST" not in os.environ:
        _limited.append(True)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def campaign(jobs: list[Job], processes: int) -> Iterator[tuple[Job, Tally]]:
    """The outcome of each job as it comes; a crash and a hang are defects, too."""
    from vidadapt.processes import run_isolated

    for job, tally, death in run_isolated(attempt, jobs, processes, TIME_LIMIT):
        yield job, tally or Tally(defects=[f"{job}\n{death}"])
