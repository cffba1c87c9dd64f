"""Paired differences between the variants of a cross-validation, for its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pandas as pd

from vidadapt.apps.report import markdown_table
from vidadapt.apps.study.results import Line
from vidadapt.apps.study.rows import distinct, over_groups
from vidadapt.evaluation import Difference, difference, pooled

HEADINGS = ("frames", "variant", "minus", "points", "95 % interval", "p")
NOTE = (
    "Differences of the pooled top-1 on the same videos and seeds. Interval: bootstrap over "
    "groups. p: of no difference, two-sided, over all ways to swap the two methods within groups; "
    "of {} comparisons, {:.2g} would have p < 0.05 by chance."
)


@dataclass(frozen=True)
class Pair:
    """Two variants compared at one number of frames: `variant` minus `other`."""

    frames: int
    variant: str
    other: str
    found: Difference


def counts_of(lines: Sequence[Line]) -> dict[tuple[int, str], dict[int, Any]]:
    """Return `by_group` by seed, of each number of frames and variant that has some."""
    found: dict[tuple[int, str], dict[int, Any]] = {}
    for line in over_groups(lines):
        own = found.setdefault((line["frames"], line["variant"]), {})
        own[line["seed"]] = line["cross_validation"]["by_group"]
    return found


def paired(one: Mapping[int, Any], other: Mapping[int, Any]) -> Difference | None:
    """Compare two of `counts_of` on the seeds that both have; None: no seed, or other groups."""
    seeds = sorted(one.keys() & other.keys())
    if not seeds or any(one[seed].keys() != other[seed].keys() for seed in seeds):
        return None
    _, correct, videos = pooled([one[seed] for seed in seeds])
    _, of_other, _ = pooled([other[seed] for seed in seeds])
    return difference(correct, of_other, videos)


def pairs(lines: Sequence[Line]) -> list[Pair]:
    """Every two variants at each number of frames, on the seeds that both have."""
    known, found = counts_of(lines), []
    for frames in sorted({place[0] for place in known}):
        variants = [name for name in distinct(lines, "variant") if (frames, name) in known]
        for other, variant in combinations(variants, 2):
            said = paired(known[frames, variant], known[frames, other])
            if said is not None:
                found.append(Pair(frames, variant, other, said))
    return found


def pairs_table(lines: Sequence[Line]) -> str:
    """Differences to the first variant, as Markdown; empty without a cross-validation."""
    found = pairs(lines)
    first = [pair for pair in found if pair.other == distinct(lines, "variant")[0]]
    if not first:
        return ""
    rows = [
        (
            str(pair.frames),
            pair.variant,
            pair.other,
            f"{pair.found.points:+.2f}",
            f"{pair.found.low:+.2f} to {pair.found.high:+.2f}",
            f"{pair.found.p:.2g}",
        )
        for pair in first
    ]
    note = NOTE.format(len(first), 0.05 * len(first))
    return f"{markdown_table(list(HEADINGS), rows)}\n\n{note}"


def pairs_csv(lines: Sequence[Line]) -> str:
    """Every pair with all digits, for programs; empty without a cross-validation."""
    rows = [
        {
            "frames": pair.frames,
            "variant": pair.variant,
            "minus": pair.other,
            "points": pair.found.points,
            "low": pair.found.low,
            "high": pair.found.high,
            "p": pair.found.p,
        }
        for pair in pairs(lines)
    ]
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n") if rows else ""
