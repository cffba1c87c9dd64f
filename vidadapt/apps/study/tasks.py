"""Means over tasks and over groups of tasks, for the tables of a benchmark."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import pandas as pd

from vidadapt.apps.report import markdown_table
from vidadapt.apps.study.results import Line
from vidadapt.apps.study.rows import distinct
from vidadapt.evaluation import in_percent

OVER_GROUPS = "mean of groups %"


def over_tasks(lines: Sequence[Line]) -> list[Line]:
    """The lines that are of several tasks, with accuracies."""
    return [line for line in lines if line["tasks"] and line["top1"] is not None]


def mean_and_spread(values: Sequence[float | None]) -> str:
    """Mean, and sample standard deviation of several values; empty where one is not known.

    >>> mean_and_spread([50.0]), mean_and_spread([50.0, 60.0]), mean_and_spread([50.0, None])
    ('50.00', '55.00 ± 7.07', '')
    """
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return ""
    spread = f" ± {statistics.stdev(known):.2f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.2f}{spread}"


def group_columns(rows: Any, lines: Sequence[Line]) -> dict[str, list[str]]:
    """Top-1 of each group and the mean of these, by heading: a text for each row of `rows_of`."""
    found = over_tasks(lines)
    groups = dict.fromkeys(name for line in found for name in line["tasks"]["groups"])
    columns: dict[str, list[str]] = {f"{name} %": [] for name in groups}
    if any(line["tasks"]["mean_over_groups"] is not None for line in found):
        columns[OVER_GROUPS] = []
    for place in rows.groups:
        own = over_tasks([lines[number] for number in rows.indices[place]])
        for name in groups:
            values = [line["tasks"]["groups"].get(name) for line in own]
            columns[f"{name} %"].append(mean_and_spread(values))
        if OVER_GROUPS in columns:
            values = [line["tasks"]["mean_over_groups"] for line in own]
            columns[OVER_GROUPS].append(mean_and_spread(values))
    return columns


def tasks_table(lines: Sequence[Line]) -> str:
    """Top-1 of each task, a column a variant, as Markdown, and what it is; empty without tasks."""
    found = over_tasks(lines)
    if not found:
        return ""
    of_tasks = {name: of["group"] for line in found for name, of in line["tasks"]["tasks"].items()}
    by_place: dict[tuple[str, int], list[Line]] = {}
    for line in found:
        by_place.setdefault((line["variant"], line["frames"]), []).append(line)
    several = len(distinct(found, "frames")) > 1
    headings = [f"{name}, {frames} frames" if several else name for name, frames in by_place]
    rows = []
    for name, group in of_tasks.items():
        tops = [
            [(line["tasks"]["tasks"].get(name) or {}).get("top1") for line in own]
            for own in by_place.values()
        ]
        rows.append([name, group or "", *map(mean_and_spread, tops)])
    table = markdown_table(["top-1 % of task", "group", *headings], rows)
    return f"{table}\n\n{_about(of_tasks)}"


def _about(of_tasks: dict[str, str | None]) -> str:
    """Say what is a mean of what."""
    groups = [group for group in of_tasks.values() if group is not None]
    counted = ", ".join(f"{name} {groups.count(name)}" for name in dict.fromkeys(groups))
    said = f"Accuracies above are means over {len(of_tasks)} tasks, each counted the same"
    said += (
        f" (tasks by group: {counted}); {OVER_GROUPS[:-2]}: the groups' means" if counted else ""
    )
    return (
        f"{said}. Trainable parameters: their mean over the tasks. Other costs: of the first task, "
        f"{next(iter(of_tasks))}."
    )


def tasks_csv(lines: Sequence[Line]) -> str:
    """A row for each line and task, with all digits, for programs; empty without tasks."""
    keys = ("group", *in_percent(), "num_videos", "base_lr", "trainable")
    rows = [
        {
            "variant": line["variant"],
            "frames": line["frames"],
            "seed": line["seed"],
            "task": name,
            **{key: of[key] for key in keys},
        }
        for line in over_tasks(lines)
        for name, of in line["tasks"]["tasks"].items()
    ]
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n") if rows else ""
