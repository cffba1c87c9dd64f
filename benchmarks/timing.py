"""Contenders measured side by side: rounds in which they take turns, medians, spreads, targets."""

from __future__ import annotations

import gc
import operator
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vidadapt.console import track


@dataclass(frozen=True)
class Target:
    """A ratio that is aimed at.

    Attributes:
        name: what of what, e.g. `training loader, mp4, 8 frames: vidadapt : released, clips/s`.
        goal: the number.
        sense: whether `measured` must be at least or at most the goal.
        measured: by this run.
    """

    name: str
    goal: float
    sense: Literal[">=", "<="]
    measured: float

    @property
    def met(self) -> bool:
        compare = operator.ge if self.sense == ">=" else operator.le
        return bool(compare(self.measured, self.goal))

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "met": self.met}


def take_turns(
    contenders: Mapping[str, Callable[[], float]], rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """What each contender returns in each round, after `warmup` rounds that do not count.

    In a round all take their turn, so that whatever else the machine does hits all of them.

    Args:
        contenders: each does its work once and returns the seconds that a unit of it took.
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    numbers = range(warmup + rounds)
    for number in track(numbers, total=len(numbers), label="measure", unit="rounds"):
        for name, work in contenders.items():
            gc.collect()
            seconds = work()
            if number >= warmup:
                found[name].append(seconds)
    return found


def timed(work: Callable[[], None]) -> Callable[[], float]:
    """Make a contender of `take_turns` of work on the CPU: it returns the seconds of one call."""

    def seconds() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return seconds


def times_as_fast(seconds: Mapping[str, Sequence[float]], name: str, as_other: str) -> float:
    """Median over the rounds of how many times as fast one is as another in the same round.

    >>> times_as_fast({"ours": [1.0, 1.0, 2.0], "theirs": [2.0, 3.0, 4.0]}, "ours", "theirs")
    2.0
    """
    pairs = zip(seconds[name], seconds[as_other], strict=True)
    return float(statistics.median(other / own for own, other in pairs))
