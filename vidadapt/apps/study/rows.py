"""Lines of results.jsonl as tables of pandas: cells, and rows of a variant over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from vidadapt.apps.study.results import FIGURES, Line
from vidadapt.evaluation import interval, pooled


def cells_of(lines: Sequence[Line]) -> pd.DataFrame:
    """A row a line with the line's keys as columns; `variant` is ordered by its first lines.

    `FIGURES` are floats, NaN where one is not known; everything else is as the lines hold it.
    """
    cells = pd.DataFrame(lines, dtype=object)
    names = cells["variant"].unique()
    cells["variant"] = pd.Categorical(cells["variant"], names, ordered=True)
    return cells.astype(dict.fromkeys(FIGURES, float))


def rows_of(lines: Sequence[Line]) -> Any:
    """The cells grouped by number of frames, then by variant: one a seed, or one for the cost."""
    return cells_of(lines).groupby(["frames", "variant"], observed=True)


def summary_of(lines: Sequence[Line]) -> pd.DataFrame:
    """A row for each variant and number of frames: the medians over the seeds of all `FIGURES`.

    Of top1 it has the mean, and beside it `lowest`, `highest` and `seeds`, how many have one. Of a
    cross-validation the lowest and highest are the 95 % interval over groups.
    `step_ms_per_clip` is the time of a step for each clip.
    """
    cells = cells_of(lines)
    cells["step_ms_per_clip"] = 1000 * cells["step_seconds"] / cells["batch_size"].astype(float)
    rows = cells.groupby(["frames", "variant"], observed=True)
    found = rows[[*FIGURES, "step_ms_per_clip"]].median()
    found[["top1", "lowest", "highest", "seeds"]] = rows["top1"].agg(
        ["mean", "min", "max", "count"]
    )
    for place, own in rows.indices.items():
        within = interval_of([lines[number] for number in own])
        if within is not None:
            found.loc[place, ["lowest", "highest"]] = within
    return found.reset_index()


def distinct(lines: Sequence[Line], key: str) -> list[Any]:
    """The known values under a key, each once, in their order."""
    return list(dict.fromkeys(line[key] for line in lines if line[key] is not None))


def over_groups(lines: Sequence[Line]) -> list[Line]:
    """The lines that are of a whole cross-validation."""
    return [line for line in lines if line["cross_validation"] and line["top1"] is not None]


def interval_of(lines: Sequence[Line]) -> list[float] | None:
    """The 95 % interval of a row's top-1, its seeds together; None without a cross-validation."""
    counts = [line["cross_validation"]["by_group"] for line in over_groups(lines)]
    if not counts or any(own.keys() != counts[0].keys() for own in counts):
        return None
    _, correct, videos = pooled(counts)
    return interval(correct, videos)
