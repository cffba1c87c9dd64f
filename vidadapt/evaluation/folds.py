"""A cross-validation as one result: scores of its folds joined, and what groups say of chance.

Videos of one group (a person, a film) are alike, so that intervals and tests are over groups: over
videos they would be too narrow.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from vidadapt.evaluation.judged import Fusion
from vidadapt.evaluation.metrics import judge, top
from vidadapt.evaluation.scores import Scores

DRAWS = 10_000  # of groups, for an interval


@dataclass(frozen=True)
class Difference:
    """Pooled top-1 of one method minus that of another, on the same videos.

    Attributes:
        points: percentage points.
        low, high: 95 % interval, see `interval`.
        p: two-sided, of no difference: the share of all ways to swap the methods within groups
            that give a difference at least as large.
    """

    points: float
    low: float
    high: float
    p: float


def join_folds(folds: Mapping[str, Scores]) -> Scores:
    """Join the scores of folds: every video once, in the folds' order.

    Raises:
        ValueError: folds of other views or classes, or a video that two of them hold.
    """
    parts = list(folds.values())
    first = parts[0]
    for name, part in folds.items():
        same = part.logits.shape[1:] == first.logits.shape[1:]
        if not same or (part.clips != first.clips).any() or (part.crops != first.crops).any():
            raise ValueError(
                f"{name} has {part.logits.shape[1]} views and {part.logits.shape[2]} classes, "
                f"others have {first.logits.shape[1]} and {first.logits.shape[2]}; evaluate all "
                "folds with the same views"
            )
    paths = [path for part in parts for path in part.paths]
    if twice := len(paths) - len(set(paths)):
        raise ValueError(f"{twice} videos are in the test lists of two folds")
    return Scores(
        paths,
        np.concatenate([part.labels for part in parts]),
        first.clips,
        first.crops,
        np.concatenate([part.logits for part in parts]),
        {path: why for part in parts for path, why in part.errors.items()},
    )


def cross_validated(
    folds: Mapping[str, Scores], fusion: Fusion, group_of: Mapping[str, int]
) -> dict[str, Any]:
    """Say what the folds are worth apart, and how far chance among groups goes.

    Args:
        group_of: number of each video's group.

    Returns:
        `folds`: top1 and num_videos by name; `mean_over_folds` and their sample standard deviation
        `std_over_folds`; `by_group`: number -> [correct videos, videos]; `interval`: of the pooled
        top-1, see there.
    """
    judged = {name: judge(scores, fusion) for name, scores in folds.items()}
    top1 = {name: top(1, one) for name, one in judged.items()}
    by_group: dict[int, list[int]] = {}
    for name, scores in folds.items():
        for path, rank in zip(scores.paths, judged[name].ranks, strict=True):
            counts = by_group.setdefault(group_of[path], [0, 0])
            counts[0] += int(rank == 0)
            counts[1] += 1
    correct, videos = np.array([by_group[group] for group in sorted(by_group)]).T
    return {
        "folds": {
            name: {"top1": top1[name], "num_videos": len(scores.paths)}
            for name, scores in folds.items()
        },
        "mean_over_folds": statistics.fmean(top1.values()),
        "std_over_folds": statistics.stdev(top1.values()),
        "by_group": {str(group): by_group[group] for group in sorted(by_group)},
        "interval": interval(correct, videos),
    }


def interval(correct: np.ndarray, videos: np.ndarray) -> list[float]:
    """The 95 % interval of a pooled accuracy in per cent: a percentile bootstrap over groups.

    The same groups give the same interval. With few groups (under 20) it is rather too narrow.

    Args:
        correct: (G,) correct videos of each group, those of several seeds added up.
        videos: (G,) videos of each group, as often as they were judged.

    >>> interval(np.array([8, 10, 9]), np.array([10, 10, 10]))
    [80.0, 100.0]
    """
    drawn = _drawn(len(videos))
    return _within(100 * correct[drawn].sum(1) / videos[drawn].sum(1))


def difference(one: np.ndarray, other: np.ndarray, videos: np.ndarray) -> Difference:
    """Compare the correct videos of two methods, group by group.

    Args:
        one, other: (G,) whole numbers, as `interval` takes them; of the same seeds.

    >>> difference(np.array([9, 10, 8]), np.array([5, 7, 6]), np.array([10, 10, 10]))
    Difference(points=30.0, low=20.0, high=40.0, p=0.25)
    """
    drawn, gains = _drawn(len(videos)), one - other
    low, high = _within(100 * gains[drawn].sum(1) / videos[drawn].sum(1))
    points = 100 * float(gains.sum()) / float(videos.sum())
    return Difference(points, low, high, _swapped(gains))


@lru_cache(maxsize=1)  # a table asks for its rows, their pairs and its plots
def _drawn(num_groups: int) -> np.ndarray:
    return np.random.default_rng(0).integers(num_groups, size=(DRAWS, num_groups))


def _within(values: np.ndarray) -> list[float]:
    return [float(value) for value in np.percentile(values, (2.5, 97.5))]


def _swapped(gains: np.ndarray) -> float:
    """Share of the 2^G signs of the gains with a sum at least as far from 0 as theirs; exact."""
    shares, largest = np.ones(1), int(np.abs(gains).sum())
    for gain in np.abs(gains[gains != 0]):
        step = np.zeros(2 * int(gain) + 1)
        step[[0, -1]] += 0.5
        shares = np.convolve(shares, step)
    sums = np.arange(-largest, largest + 1)
    return float(shares[np.abs(sums) >= abs(int(gains.sum()))].sum())


def pooled(
    lines: Sequence[Mapping[str, Sequence[int]]],
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Add up `by_group` of several seeds: groups, correct (G,), videos (G,).

    >>> pooled([{"0": [1, 2], "1": [3, 3]}, {"0": [2, 2], "1": [3, 3]}])[1].tolist()
    [3, 6]
    """
    groups = tuple(sorted(lines[0], key=int))
    counts = np.array([[line[group] for group in groups] for line in lines]).sum(0)
    return groups, counts[:, 0], counts[:, 1]
