"""Results as a Markdown table for people and as a CSV for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from vidadapt.apps.report import figure, markdown_table
from vidadapt.apps.study.caption import SHARED, caption, differing_keys, distinct, remarks
from vidadapt.apps.study.results import LISTS, OBJECTS, Line
from vidadapt.apps.study.rows import Row, frames_of, rows_of, seeds_of, variants_of
from vidadapt.evaluation import IN_PERCENT

MARK = " †"
TIMINGS = ("data_spread_percent", "step_spread_percent")
NOTES = {  # heading: what it means, said where the column stands
    "top-1 %": "Accuracies: per cent of videos, mean ± sample standard deviation over the seeds",
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
    rows = rows_of(lines)
    columns = _columns(lines)
    texts = {heading: [make(row) for row in rows] for heading, make in columns.items()}
    shown = {heading: cells for heading, cells in texts.items() if any(cells)}
    full = markdown_table(list(shown), list(zip(*shown.values(), strict=True)))
    notes = [note for heading, note in NOTES.items() if heading in shown]
    parts = [caption(lines), *_by_frames(lines), full, *([". ".join(notes) + "."] if notes else [])]
    return "\n\n".join(part for part in [*parts, *remarks(lines)] if part) + "\n"


def csv_text(lines: Sequence[Line]) -> str:
    """One row a line with all its flat values, and `options` as JSON. Null is empty.

    Figures are written with all their digits, truths as `true` and `false`.
    """
    nested = {*LISTS, *OBJECTS}
    keys = list(dict.fromkeys(key for line in lines for key in line if key not in nested))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*keys, "options"])
    for line in lines:
        values = [_plain(line.get(key)) for key in keys]
        writer.writerow([*values, json.dumps(line["options"], ensure_ascii=False)])
    return file.getvalue()


def _plain(value: Any) -> str:
    """A flat value of a CSV.

    >>> _plain(None), _plain(True), _plain(0.1), _plain("cpu")
    ('', 'true', '0.1', 'cpu')
    """
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _columns(lines: Sequence[Line]) -> dict[str, Callable[[Row], str]]:
    """Heading -> a row's text; empty where it is not known."""
    seeds = len(seeds_of(lines))
    named = {"variant": lambda row: row.variant}
    if any(line["variant"] != line["method"] for line in lines):
        named["method"] = lambda row: row.method
    return {
        **named,
        "frames": lambda row: str(row.frames),
        "seeds": lambda row: _seeds(row, seeds),
        **{SHARED[key][-1]: _values(key) for key in differing_keys(lines)},
        **{f"{metric.title} %": _in_percent(name) for name, metric in IN_PERCENT.items()},
        "trainable": _values("trainable", ",.0f"),
        "%": _values("share_percent", ".3f"),
        "file MB": _values("adapter_bytes", ".3f", 1e-6),
        "forward GFLOP": _measured("forward_flops_per_clip", 1e-9),
        "training GFLOP": _measured("training_flops_per_clip", 1e-9),
        "step ms": _step,
        "peak MB": _measured("peak_memory_bytes", 1e-6),
        "of matmul %": _measured("matmul_share", 100, "step_spread_percent"),
        "data %": _measured("data_share", 100, *TIMINGS),
        "clips/s": _measured("clips_per_second", 1, *TIMINGS),
        "s/epoch": _measured("epoch_seconds", 1, *TIMINGS),
        "run s/epoch": _measured("run_epoch_seconds", 1, "run_epoch_spread_percent"),
        "eval ms/video": _measured("evaluation_seconds_per_video", 1000),
    }


def _by_frames(lines: Sequence[Line]) -> list[str]:
    """Top-1 with a column for each number of frames; nothing where there is but one."""
    frames = frames_of(lines)
    if len(frames) < 2 or all(line["top1"] is None for line in lines):
        return []
    texts = {(row.variant, row.frames): _accuracy(row, "top1") for row in rows_of(lines)}
    rows = [[name, *(texts.get((name, t), "") for t in frames)] for name in variants_of(lines)]
    return [markdown_table(["top-1 %", *(f"{t} frames" for t in frames)], rows)]


def _seeds(row: Row, total: int) -> str:
    if total == 0:
        return ""
    done = len(row.known("top1"))
    return str(done) if done == total else f"{done} of {total}"


def _in_percent(key: str) -> Callable[[Row], str]:
    return lambda row: _accuracy(row, key)


def _accuracy(row: Row, key: str) -> str:
    mean, deviation = row.mean(key), row.deviation(key)
    if mean is None:
        return ""
    return f"{mean:.2f}" if deviation is None else f"{mean:.2f} ± {deviation:.2f}"


def _values(key: str, style: str = "", scale: float = 1) -> Callable[[Row], str]:
    """A column of what is the same for all seeds of a row; values that differ stand in a row."""

    def text(row: Row) -> str:
        return ", ".join(
            f"{value * scale:{style}}" if isinstance(value, int | float) and style else str(value)
            for value in distinct(row.cells, key)
        )

    return text


def _measured(key: str, scale: float, *spreads: str) -> Callable[[Row], str]:
    """A column of figures; a mark where one of the spreads is too large."""

    def text(row: Row) -> str:
        value = row.median(key)
        if value is None:
            return ""
        return figure(value * scale) + (MARK if row.noisy(*spreads) else "")

    return text


def _step(row: Row) -> str:
    seconds, spread = row.median("step_seconds"), row.median("step_spread_percent")
    if seconds is None:
        return ""
    within = "" if spread is None else f" ({spread:.0f} %)"
    return figure(1000 * seconds) + within + (MARK if row.noisy("step_spread_percent") else "")
