"""A picture of what a check found: what the videos are like, and how many can be read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from vidadapt.files.writing import replaced
from vidadapt.lists.index import VideoFacts

BLUE, ORANGE, RED, GREY = "#4878a8", "#e0963c", "#c0443c", "#6a6e74"
SHOWN = 8  # distinct sizes, rates or classes that get a bar of their own; more: a histogram
PLAIN: dict[str, Any] = {"parse_math": False}  # a name may hold dollar signs
TITLE: dict[str, Any] = {"fontsize": 14, "loc": "left", "pad": 10}


def write_picture(
    path: Path,
    title: str,
    rows: Sequence[VideoFacts],
    labels: Sequence[int],
    label_names: Sequence[str] | None,
) -> None:
    """PNG, 1800 x 1950 pixels: lengths, durations, sizes, frame rates, classes, what is readable.

    Args:
        title: what the rows are of.
        rows, labels: one a video.
        label_names: in label order, if known.
    """
    spaced = ConstrainedLayoutEngine(h_pad=0.15, w_pad=0.12)
    figure = Figure(figsize=(12, 13), dpi=150, layout=spaced)
    FigureCanvasAgg(figure)
    figure.suptitle(f"{title}: {len(rows):,} videos", fontsize=18, fontweight="bold", **PLAIN)
    panels = figure.subplots(3, 2)
    for panel in panels.flat:
        panel.tick_params(labelsize=11)
        panel.spines[["top", "right"]].set_visible(False)
    readable = [row for row in rows if row.num_frames]
    _histogram(panels[0, 0], [row.num_frames for row in readable], "Length", "frames", 1.0)
    seconds = [row.duration for row in readable if row.duration]
    rates = [row.frame_rate for row in readable if row.frame_rate]
    period = 1 / float(np.median(rates)) if rates else 1.0
    _histogram(panels[0, 1], seconds, "Duration", "seconds", period)
    _sizes(panels[1, 0], [(row.width, row.height) for row in readable if row.width and row.height])
    _rates(panels[1, 1], rates)
    _classes(panels[2, 0], class_counts(labels, label_names), label_names)
    _status(panels[2, 1], rows)
    with replaced(path) as partial:
        figure.savefig(partial, format="png")


def class_counts(labels: Sequence[int], label_names: Sequence[str] | None) -> list[tuple[int, int]]:
    """(videos, label) of every class, ascending; with label names also of those without a video."""
    counts = Counter(labels)
    every = counts.keys() | set(range(len(label_names or ())))
    return sorted((counts[label], label) for label in every)


def class_name(label: int, label_names: Sequence[str] | None) -> str:
    """What a label is called, or "class 3"."""
    known = label_names is not None and label < len(label_names)
    return label_names[label] if label_names is not None and known else f"class {label}"


def _histogram(panel: Axes, values: Sequence[float], title: str, unit: str, grain: float) -> None:
    """About 40 bins, on a logarithmic axis where the largest is far from the median.

    Args:
        grain: step between two values that may occur; bins hold as many of them each.
    """
    panel.set_title(title, **TITLE)
    if not values:
        return _nothing(panel)
    low, middle, high = min(values), float(np.median(values)), max(values)
    panel.set_xlabel(
        f"{unit}   (min {low:,.4g}, median {middle:,.4g}, max {high:,.4g})", fontsize=11
    )
    panel.set_ylabel("videos", fontsize=11)
    bins: np.ndarray
    if high > 10 * middle:
        bins = np.geomspace(max(low, 1e-3), high * 1.001, 41)
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter("{x:,.6g}")
    else:
        step = grain * max(1, math.ceil((high - low) / grain / 40))
        bins = low - grain / 2 + step * np.arange(math.ceil((high - low + grain) / step) + 1)
    panel.hist(values, bins=list(bins), color=BLUE)
    panel.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    panel.yaxis.set_major_formatter("{x:,.6g}")


def _sizes(panel: Axes, sizes: Sequence[tuple[int, int]]) -> None:
    counts = Counter(sizes)
    if len(counts) > SHOWN:
        shorter = [min(size) for size in sizes]
        _histogram(panel, shorter, f"Short side ({len(counts):,} sizes)", "pixels", 1.0)
    else:
        bars = [(f"{w} x {h}", counts[w, h]) for w, h in sorted(counts)]
        _bars(panel, bars, "Frame size, pixels")


def _rates(panel: Axes, rates: Sequence[float]) -> None:
    rounded = [round(rate, 2) for rate in rates]
    counts = Counter(rounded)
    if len(counts) > SHOWN:
        _histogram(panel, rounded, f"Frame rate ({len(counts):,} rates)", "frames per second", 0.01)
    else:
        bars = [(f"{rate:g}", counts[rate]) for rate in sorted(counts)]
        _bars(panel, bars, "Frame rate, frames per second")


def _bars(
    panel: Axes, counts: Sequence[tuple[str, int]], title: str, colours: str | list[str] = BLUE
) -> None:
    """Horizontal bars from top to bottom, each with its name, number and share."""
    panel.set_title(title, **TITLE)
    if not counts:
        return _nothing(panel)
    names, numbers = [name for name, _ in counts], [number for _, number in counts]
    bars = panel.barh(range(len(counts)), numbers, color=colours, height=0.7)
    shares = [f"{n:,} ({100 * n / sum(numbers):.3g} %)" if n else "0" for n in numbers]
    panel.bar_label(bars, shares, padding=4, fontsize=11)
    panel.set_yticks(range(len(counts)), names, **PLAIN)
    panel.set_ylim(max(len(counts), 3) - 0.5, -0.5)  # one bar alone would fill the panel
    panel.set_xlabel("videos", fontsize=11)
    panel.set_xlim(0, max(1, *numbers) * 1.45)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    panel.xaxis.set_major_formatter("{x:,.6g}")


def _classes(panel: Axes, counts: list[tuple[int, int]], label_names: Sequence[str] | None) -> None:
    """Every class a bar, the largest first; all are named, or the extremes and the median."""
    title, falling = f"Class balance ({len(counts):,} classes)", counts[::-1]
    if len(counts) <= SHOWN:
        bars = [(_short(class_name(label, label_names), 24), number) for number, label in falling]
        return _bars(panel, bars, title)
    panel.set_title(title, **TITLE)
    sizes = [number for number, _ in falling]
    panel.bar(range(len(sizes)), sizes, width=1.0 if len(sizes) > 60 else 0.8, color=BLUE)
    panel.set_xlabel("classes, largest first", fontsize=11)
    panel.set_ylabel("videos", fontsize=11)
    panel.set_xticks([])
    panel.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    places = {"max": 0, "median": len(sizes) // 2, "min": len(sizes) - 1}
    lines = []
    for word, place in places.items():
        number, label = falling[place]
        lines.append(f"{word} {number:,}: {_short(class_name(label, label_names), 40)}")
    # Above the bars, which are lower on the right.
    panel.set_ylim(0, max(sizes) * 1.45)
    where: dict[str, Any] = {"transform": panel.transAxes, "ha": "right", "va": "top", **PLAIN}
    panel.text(0.99, 0.98, "\n".join(lines), fontsize=11, linespacing=1.4, **where)


def _short(name: str, length: int) -> str:
    """The name; of a longer one both ends: labels often differ in their last words.

    >>> _short("Pushing something from left to right", 24)
    'Pushing some...t to right'
    """
    half = length // 2
    return name if len(name) <= length else f"{name[:half]}...{name[-(half - 1) :].lstrip()}"


def _status(panel: Axes, rows: Sequence[VideoFacts]) -> None:
    unreadable = sum(1 for row in rows if not row.num_frames)
    cut = sum(1 for row in rows if row.truncated)
    whole = len(rows) - unreadable - cut
    counts = [("whole", whole), ("truncated", cut), ("unreadable", unreadable)]
    _bars(panel, counts, "What can be read", [BLUE, ORANGE, RED])


def _nothing(panel: Axes) -> None:
    panel.text(0.5, 0.5, "no video can be read", ha="center", va="center", color=GREY)
    panel.set_xticks([])
    panel.set_yticks([])
