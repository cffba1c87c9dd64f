"""Results as a Markdown table for people and as a CSV for programs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any

import pandas as pd

from vidadapt.apps.report import figure, markdown_table
from vidadapt.apps.study.caption import SHARED, caption, differing_keys, remarks
from vidadapt.apps.study.folds import pairs_table
from vidadapt.apps.study.results import LISTS, OBJECTS, Line
from vidadapt.apps.study.rows import distinct, interval_of, over_groups, rows_of
from vidadapt.apps.study.tasks import group_columns, tasks_table
from vidadapt.evaluation import in_percent

MARK = " †"
TIMINGS = ("data_spread_percent", "step_spread_percent")
NOTES = {  # heading: its meaning, said where there is the column
    "top-1 %": "Accuracies: per cent of videos, mean ± sample standard deviation over the seeds",
    "95 % interval": "95 % interval: of top-1 of all folds' videos together, bootstrap over groups",
    "over folds": "over folds: mean and sample standard deviation of the folds' top-1",
    "mean class %": "mean class: mean over the classes of per cent of their videos",
    "trainable": "trainable: parameters with head and fc_norm; % of all",
    "file MB": "file: the adapter of one task; MB is 10^6 bytes",
    "training GFLOP": "GFLOP: of one clip, a multiply-add being 2; training: forward and backward",
    "step ms": "step: median of a training step, in brackets (slowest - fastest) / median",
    "peak MB": "peak: memory of a step with its model; on a CPU, what the process grew by",
    "of matmul %": "of matmul: training FLOPs by time, against a large matrix product's",
    "data %": "data: decoding and transforms, of the sum of their time and the step's",
    "clips/s": "clips/s, s/epoch: projected from step and data time, the longer of the two where "
    "clips are loaded beside the steps, else their sum",
    "run s/epoch": "run s/epoch: median of the training's own epochs, whatever else was running",
    "eval ms/video": "eval: all views of a video, measured once a cell",
}


def markdown(lines: Sequence[Line]) -> str:
    """Caption, accuracies by number of frames where there are several, the table, and remarks.

    A row is a variant at a number of frames. Columns without any figure are left out.

    Args:
        lines: as `results.read_results` gives them.
    """
    shown = {heading: texts for heading, texts in _columns(lines).items() if any(texts)}
    full = markdown_table(list(shown), list(zip(*shown.values(), strict=True)))
    notes = [note for heading, note in NOTES.items() if heading in shown]
    parts = [caption(lines), _by_frames(lines), full, ". ".join(notes) + "." if notes else ""]
    parts += [tasks_table(lines), pairs_table(lines)]
    return "\n\n".join(part for part in [*parts, *remarks(lines)] if part) + "\n"


def csv_text(lines: Sequence[Line]) -> str:
    """One row a line with all its flat values, and `options` as JSON. Null is empty.

    Figures are written with all their digits, truths as `true` and `false`.
    """
    cells = pd.DataFrame(lines, dtype=object).drop(columns=[*LISTS, *OBJECTS])
    cells = cells.map(lambda value: json.dumps(value) if isinstance(value, bool) else value)
    cells["options"] = [json.dumps(line["options"], ensure_ascii=False) for line in lines]
    return cells.to_csv(index=False, lineterminator="\n")


def _columns(lines: Sequence[Line]) -> dict[str, list[str]]:
    """Heading -> a text for each row; empty where it is not known."""
    rows = rows_of(lines)
    frames, variants = zip(*rows.groups, strict=True)
    named = {"variant": list(variants)}
    if any(line["variant"] != line["method"] for line in lines):
        named["method"] = rows["method"].first().to_list()
    total = len(distinct(lines, "seed"))
    seeds = [str(n) if n == total else f"{n} of {total}" for n in rows["top1"].count()]
    return {
        **named,
        "frames": list(map(str, frames)),
        "seeds": seeds if total else [],
        **{SHARED[key][-1]: _values(rows[key]) for key in differing_keys(lines)},
        **{f"{metric.title} %": _accuracies(rows[key]) for key, metric in in_percent().items()},
        **_over_folds(rows, lines),
        **group_columns(rows, lines),
        "trainable": _values(rows["trainable"], ",.0f"),
        "%": _values(rows["share_percent"], ".3f"),
        "file MB": _values(rows["adapter_bytes"], ".3f", 1e-6),
        "forward GFLOP": _medians(rows, "forward_flops_per_clip", 1e-9),
        "training GFLOP": _medians(rows, "training_flops_per_clip", 1e-9),
        "step ms": _steps(rows),
        "peak MB": _medians(rows, "peak_memory_bytes", 1e-6),
        "of matmul %": _medians(rows, "matmul_share", 100, "step_spread_percent"),
        "data %": _medians(rows, "data_share", 100, *TIMINGS),
        "clips/s": _medians(rows, "clips_per_second", 1, *TIMINGS),
        "s/epoch": _medians(rows, "epoch_seconds", 1, *TIMINGS),
        "run s/epoch": _medians(rows, "run_epoch_seconds", 1, "run_epoch_spread_percent"),
        "eval ms/video": _medians(rows, "evaluation_seconds_per_video", 1000),
    }


def _over_folds(rows: Any, lines: Sequence[Line]) -> dict[str, list[str]]:
    """Of a cross-validation: the interval of top-1, and mean and deviation over the folds."""
    intervals, folds = [], []
    for place in rows.groups:
        own = [lines[number] for number in rows.indices[place]]
        within, whole = interval_of(own), over_groups(own)
        intervals.append("" if within is None else f"{within[0]:.1f} to {within[1]:.1f}")
        values = [
            [line["cross_validation"][f"{key}_over_folds"] for line in whole]
            for key in ("mean", "std")
        ]
        mean, spread = (statistics.fmean(of) if of else None for of in values)
        folds.append("" if mean is None else f"{mean:.1f} ± {spread:.1f}")
    return {"95 % interval": intervals, "over folds": folds}


def _by_frames(lines: Sequence[Line]) -> str:
    """Top-1 with a column for each number of frames; empty where there is but one."""
    rows = rows_of(lines)
    texts = pd.Series(_accuracies(rows["top1"]), index=rows.size().index)
    table = texts.unstack("frames", fill_value="")
    if table.shape[1] < 2 or not any(texts):
        return ""
    headings = ["top-1 %", *(f"{frames} frames" for frames in table.columns)]
    return markdown_table(headings, list(table.itertuples()))


def _accuracies(values: Any) -> list[str]:
    """Mean and sample standard deviation of each row."""
    pairs = zip(values.mean(), values.std(), strict=True)
    return [
        "" if pd.isna(mean) else f"{mean:.2f}" + ("" if pd.isna(spread) else f" ± {spread:.2f}")
        for mean, spread in pairs
    ]


def _values(values: Any, style: str = "", scale: float = 1) -> list[str]:
    """The one value of all seeds of a row; values that differ are all given."""
    return [
        ", ".join(f"{v * scale:{style}}" if style else str(v) for v in own.dropna().unique())
        for _, own in values
    ]


def _medians(rows: Any, key: str, scale: float, *spreads: str) -> list[str]:
    """Figures with three digits; a mark where one of the spreads of a cell is too large."""
    marks = _marks(rows, *spreads)
    medians = zip(rows[key].median(), marks, strict=True)
    return ["" if pd.isna(value) else figure(value * scale) + mark for value, mark in medians]


def _marks(rows: Any, *spreads: str) -> list[str]:
    return [
        MARK if any(key in (noisy or ()) for noisy in own for key in spreads) else ""
        for _, own in rows["noisy"]
    ]


def _steps(rows: Any) -> list[str]:
    """Time of a step, its spread in brackets."""
    spreads = rows["step_spread_percent"].median()
    within = ["" if pd.isna(spread) else f" ({spread:.0f} %)" for spread in spreads]
    medians = zip(rows["step_seconds"].median(), within, _marks(rows, TIMINGS[1]), strict=True)
    return ["" if pd.isna(s) else figure(1000 * s) + text + mark for s, text, mark in medians]
