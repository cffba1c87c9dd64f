"""The report of training runs and evaluations: one HTML file, with the runs side by side."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidadapt.apps.report import curves
from vidadapt.apps.report.evaluated import Details, Evaluated, Mistake
from vidadapt.apps.report.page import render_page
from vidadapt.apps.report.run_files import Run, located, read_run
from vidadapt.apps.report.run_tables import (
    all_settings,
    changed_settings,
    different_settings,
    groups_of,
    metrics_shown,
    notes_of,
    result_columns,
    result_row,
)
from vidadapt.apps.report.thumbnails import Thumbnail, thumbnails
from vidadapt.config import DataConfig
from vidadapt.console import printable
from vidadapt.processes import LostProcess
from vidadapt.serving import names_of

REPORT = "report.html"
MOST_RUNS = 12  # as many colours as the page has
MISTAKES = 12  # wrong videos of an evaluation that are shown
MOST_PICTURES = 60  # of a page; about 20 kB each


def write_report(folders: Sequence[Path], out: Path | None, *, pictures: bool = True) -> Path:
    """Write the report of some runs.

    Args:
        folders: of training runs, or of evaluations outside of a run's folder.
        out: the page; None: report.html in the folder, if there is one run.
        pictures: show thumbnails of wrong videos, which are parts of the data set.

    Returns:
        The page.

    Raises:
        ValueError, OSError: a folder or a file in it cannot be used; names it.
        WriteError: the disk refused the page.
    """
    if not 0 < len(folders) <= MOST_RUNS:
        raise ValueError(f"RUN: one page shows 1 to {MOST_RUNS} runs, got {len(folders)}")
    if out is None and len(folders) > 1:
        raise ValueError("--out: is needed for several runs; give the HTML file to write")
    path = folders[0] / REPORT if out is None else out
    names = names_of(folders, "RUN")
    runs = [read_run(folder, name) for folder, name in zip(folders, names, strict=True)]
    render_page("run.html.j2", path, **page_values(runs, pictures=pictures))
    return path


def page_values(runs: Sequence[Run], *, pictures: bool) -> dict[str, Any]:
    """Make the values of the template."""
    several = len(runs) > 1
    evaluations = [
        (number, place, run, one)
        for number, run in enumerate(runs)
        for place, one in enumerate(run.evaluations)
    ]
    each = max(1, MOST_PICTURES // max(1, len(evaluations)))
    shown = min(MISTAKES, each) if pictures else 0
    sections, results = [], []
    figures = metrics_shown(one for _, _, _, one in evaluations)
    for number, place, run, one in evaluations:
        id = f"e{number}-{place}"
        name = f"{run.name}: {one.folder.name}" if several else one.folder.name
        sections.append({"id": id, "title": name, **_section(run, one, shown)})
        results.append((run.name, id, result_row(one, figures)))
    return {
        "title": _title(runs),
        "subtitle": f"{', '.join(str(run.folder) for run in runs)}; "
        + time.strftime("written on %Y-%m-%d at %H:%M"),
        "names": [run.name for run in runs],
        "notes": notes_of(runs),
        "size": curves,
        "charts": curves.charts_of(runs),
        "columns": result_columns(figures),
        "results": results,
        "different": different_settings(runs) if several else {},
        "groups": groups_of(runs),
        "changed": changed_settings(runs),
        "every": all_settings(runs),
        "evaluations": sections,
        "run_files": {run.name: run.files for run in runs if run.files},
    }


def _title(runs: Sequence[Run]) -> str:
    if len(runs) > 1:
        return f"{len(runs)} runs side by side"
    return f"Training run {runs[0].name}" if runs[0].settings else f"Evaluation {runs[0].name}"


def _section(run: Run, one: Evaluated, num_pictures: int) -> dict[str, Any]:
    """Values of one evaluation."""
    of, details = one.results, one.details
    unreadable = [f"{each['path']}: {each['error']}" for each in of.get("unreadable", ())]
    warnings = of.get("warnings")
    files = {
        "Unreadable videos, counted as wrong": unreadable,
        "Warnings": [str(line) for line in warnings] if isinstance(warnings, list) else [],
    }
    found: dict[str, Any] = {
        "protocol": f"{of.get('num_videos')} videos of {of.get('list')}, checkpoint "
        f"{of.get('checkpoint')}, {of.get('views')}, {of.get('fusion')} averaged; manifest "
        f"{str(of.get('manifest'))[:12]}, precision {of.get('precision')}",
        "classes": one.classes,
        "by_class": "Average precision" if "map" in of else "Accuracy",
        "files": {title: lines for title, lines in files.items() if lines},
        "matrix": None if details is None else _matrix(one, details),
    }
    if details is None:
        return found
    shown = details.mistakes[: num_pictures or MISTAKES]
    made, without = _pictures(run, one, shown) if num_pictures else ({}, "")
    return {
        **found,
        "pairs": details.pairs,
        "num_pairs": details.num_pairs,
        "ece": 100 * details.calibration.ece,
        "bins": _bins(details),
        "num_wrong": len(details.mistakes),
        "mistakes": [_mistake(row, made.get(row.path)) for row in shown],
        "without": without,
    }


def _matrix(one: Evaluated, details: Details) -> dict[str, Any]:
    """The confusion matrix as the page's script takes it: only cells with videos."""
    rows, columns = np.nonzero(details.matrix)
    cells = np.stack([rows, columns, details.matrix[rows, columns]], axis=1)
    return {
        "names": [printable(row.name) for row in one.classes],
        "videos": [row.num_videos for row in one.classes],
        "accuracy": [row.accuracy for row in one.classes],
        "cells": cells.tolist(),
    }


def _bins(details: Details) -> list[dict[str, float]]:
    """The bins of the calibration, shares in per cent."""
    of = details.calibration
    width = 100 / len(of.counts)
    columns = zip(of.counts.tolist(), of.confidence.tolist(), of.accuracy.tolist(), strict=True)
    return [
        {
            "number": number,
            "low": number * width,
            "high": (number + 1) * width,
            "count": count,
            "confidence": 100 * confidence,
            "accuracy": 100 * accuracy,
        }
        for number, (count, confidence, accuracy) in enumerate(columns)
    ]


def _mistake(row: Mistake, made: Thumbnail | None) -> dict[str, Any]:
    picture = made if made is not None and not made.error else None
    return {**vars(row), "picture": picture, "error": "" if made is None else made.error}


def _pictures(
    run: Run, one: Evaluated, mistakes: Sequence[Mistake]
) -> tuple[Mapping[str, Thumbnail], str]:
    """Thumbnails by list path, or why there are none at all."""
    if one.root is None:
        return {}, "No folder of videos is known, so that they are not shown."
    home = Path(str(run.environment.get("working_directory") or "."))
    options = {key.removeprefix("data."): value for key, value in run.settings.items()}
    known = {key: options[key] for key in vars(DataConfig()) if key in options}
    settings = DataConfig(**known)
    listed = located(home, str(one.results.get("list")))
    try:
        return thumbnails(listed, one.root, [row.path for row in mistakes], settings), ""
    except (OSError, ValueError, LostProcess) as error:
        return {}, f"The videos are not shown: {error}."
