"""Markdown of benchmarks: the targets, and a whole day's results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vidadapt.apps.report import figure, markdown_table
from vidadapt.console import duration


def targets_table(targets: Sequence[Mapping[str, Any]]) -> str:
    """Each target (as `Target.as_dict` writes it) beside what was measured.

    >>> print(targets_table(
    ...     [{"name": "a : b", "goal": 2.0, "sense": ">=", "measured": 1.5, "met": False}]
    ... ))
    | target |   goal | measured |        |
    |--------|-------:|---------:|-------:|
    | a : b  | >= 2.0 |     1.50 | missed |
    """
    rows = [
        [
            target["name"],
            f"{target['sense']} {target['goal']}",
            figure(target["measured"]),
            "met" if target["met"] else "missed",
        ]
        for target in targets
    ]
    return markdown_table(["target", "goal", "measured", ""], rows)


def rows_table(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[str, str]], first: str
) -> str:
    """Rows by their names; what a row does not have is left empty.

    Args:
        columns: heading -> (key, format).
        first: heading of the names.

    >>> print(rows_table([{"name": "a", "ms": 1.26}, {"name": "b"}], {"ms": ("ms", ".1f")}, "what"))
    | what |  ms |
    |------|----:|
    | a    | 1.3 |
    | b    |     |
    """

    def cell(row: Mapping[str, Any], heading: str) -> str:
        key, style = columns[heading]
        return "" if row.get(key) is None else f"{row[key]:{style}}"

    shown = [[row["name"], *(cell(row, heading) for heading in columns)] for row in rows]
    return markdown_table([first, *columns], shown)


def day_report(day: Mapping[str, Any]) -> str:
    """What `run.py` keeps of a day in JSON: summary with the targets, then the tables."""
    targets = day["targets"]
    failed = {name: table for name, table in day["tables"].items() if table["problem"] is not None}
    lines = [f"# Benchmarks of {day['date']}", "", _machine(day["environment"]), ""]
    if targets:
        met = sum(target["met"] for target in targets)
        lines += [f"{met} of {len(targets)} targets met.", "", targets_table(targets), ""]
    lines += [f"No result: **{name}**, {table['problem']}\n" for name, table in failed.items()]
    for name, table in day["tables"].items():
        if name not in failed:
            took = duration(table["seconds"])
            lines += [f"## {name}", "", table["markdown"].strip(), "", f"Took {took}.", ""]
    return "\n".join(lines)


def _machine(environment: Mapping[str, Any]) -> str:
    """One sentence of where the figures come from."""
    packages = ", ".join(f"{name} {v}" for name, v in environment["packages"].items() if v)
    instructions = ", ".join(environment["instructions"]) or "no bf16 instructions"
    return (
        f"{environment['cpu']}, {environment['cores']} cores ({instructions}), Python "
        f"{environment['python']}; {packages}. Ratios are of contenders that took turns in one "
        "run; absolute figures are this machine's."
    )
