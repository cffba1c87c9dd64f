"""Progress of a matrix, for the terminal: its accuracies so far, and the time that is left."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from vidadapt.apps.study.matrix import Cell
from vidadapt.console import duration

TO_COME, FAILED = ".", "!"


def overview(cells: Sequence[Cell], lines: Mapping[Cell, Mapping[str, Any] | None]) -> list[str]:
    """Rows of variants, columns of frames, in each place the seeds' top-1 in per cent.

    "." is a cell to come, "!" a failed one. Of a cross-validation, or of several tasks, it is
    the mean over the folds or tasks that are done, and how many they are.

    Args:
        cells: of the whole matrix, a variant's seeds in order.
        lines: what is finished, with `top1`; None is to come.

    >>> cells = [Cell(v, t, s, None, {}) for v in ("linear", "vpt") for t in (2, 8) for s in (0, 1)]
    >>> done = dict(zip(cells, [{"top1": 41.23}, {"top1": 9.5}, {"top1": 60.0}], strict=False))
    >>> print("\\n".join(overview(cells, done | {cells[4]: {"top1": None}})))
    top-1 %  2 frames  8 frames
    linear   41.2 9.5  60.0 .
    vpt      ! .       . .
    >>> folds = [Cell("vpt", 8, 0, None, {}, f"fold{n}") for n in (1, 2, 3)]
    >>> overview(folds, dict(zip(folds, [{"top1": 50.0}, {"top1": 60.0}, None])))[1]
    'vpt      55.0 (2/3)'
    """
    parts: dict[Cell, list[Cell]] = {}
    for cell in cells:
        parts.setdefault(cell.whole, []).append(cell)
    texts: dict[str, dict[int, list[str]]] = {}
    for whole, of_folds in parts.items():
        of_variant = texts.setdefault(whole.variant, {})
        text = _text([lines.get(cell) for cell in of_folds])
        of_variant.setdefault(whole.frames, []).append(text)
    frames = sorted({cell.frames for cell in cells})
    rows = [["top-1 %", *(f"{t} frames" for t in frames)]]
    rows += [[name, *(" ".join(own.get(t, [])) for t in frames)] for name, own in texts.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _text(found: Sequence[Mapping[str, Any] | None]) -> str:
    done = [line for line in found if line is not None]
    if not done:
        return TO_COME
    known = [line["top1"] for line in done if line.get("top1") is not None]
    if len(known) < len(done):
        return FAILED
    folds = f" ({len(done)}/{len(found)})" if len(found) > 1 else ""
    return f"{statistics.fmean(known):.1f}{folds}"


def time_left(frames: Sequence[int], seconds: Mapping[int, Sequence[float]], what: str) -> str:
    """The end of a line about what was done or begins; empty where nothing is left or known."""
    left = seconds_left(frames, seconds)
    return f", about {duration(left)} left {what}" if left else ""


def seconds_left(frames: Sequence[int], seconds: Mapping[int, Sequence[float]]) -> float | None:
    """Seconds that the cells still to be done take, or None while nothing was measured.

    A cell takes the mean of the finished ones with its number of frames; without one, the mean at
    the nearest number, in proportion to the frames.

    Args:
        frames: the number of frames of every cell to be done.
        seconds: of finished cells, by number of frames.

    >>> seconds_left([2, 2, 8], {2: [10.0, 20.0]}), seconds_left([4], {})
    (90.0, None)
    """
    means = {t: statistics.fmean(values) for t, values in seconds.items() if values}
    if not means:
        return None
    # The smaller one of two that are equally near.
    nearest = {t: min((abs(other - t), other) for other in means)[1] for t in set(frames)}
    return sum(means[nearest[t]] * t / nearest[t] for t in frames)
