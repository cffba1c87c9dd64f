"""A picture of what a check found: what the videos are like, and how many can be read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidadapt.apps.report.figures import BLUE, GREY, ORANGE, RED, named, new_figure, write_figure
from vidadapt.console import class_name
from vidadapt.video import VideoFacts

if TYPE_CHECKING:  # matplotlib is imported where it is used: it takes half a second
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

SHOWN = 8  # distinct sizes, rates or classes that get a bar of their own; more: a histogram
STYLE: Any = {  # of matplotlib
    "font.size": 11,
    "axes.titlesize": 14,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def write_check_picture(
    path: Path,
    title: str,
    rows: Sequence[VideoFacts],
    labels: Sequence[int],
    label_names: Sequence[str] | None,
) -> None:
    """PNG, 1800 pixels wide: lengths, durations, sizes, frame rates, classes, what is readable.

    What is the same for all videos is said below the title, and has no panel.

    Args:
        title: what the rows are of.
        rows, labels: one a video.
        label_names: in label order, if known.
    """
    from matplotlib import rc_context

    readable = [row for row in rows if row.num_frames]
    lengths = [row.num_frames for row in readable]
    seconds = [row.duration for row in readable if row.duration]
    rates = [round(row.frame_rate, 2) for row in readable if row.frame_rate]
    period = 1 / float(np.median(rates)) if rates else 1.0
    sizes = [(row.width, row.height) for row in readable if row.width and row.height]
    shown: list[tuple[Callable[[Axes], None], Collection[Any], str]] = [
        (partial(_histogram, values=lengths, title="Length", unit="frames", grain=1.0),
         set(lengths), "{} frames"),
        (partial(_histogram, values=seconds, title="Duration", unit="seconds", grain=period),
         {f"{value:.2f}" for value in seconds}, "{} s long"),
        (partial(_sizes, sizes=sizes), {f"{w} x {h}" for w, h in sizes}, "{} pixels"),
        (partial(_rates, rates=rates), {f"{rate:g}" for rate in rates}, "{} frames per second"),
        (partial(_status, rows=rows), {_state(row) for row in rows}, "{} files"),
    ]  # fmt: skip
    same = [form.format(*values) for _, values, form in shown if len(values) == 1]
    panels = [draw for draw, values, _ in shown if len(values) > 1]
    counts = class_counts(labels, label_names)
    panels.append(partial(_classes, counts=counts, label_names=label_names))
    with rc_context(STYLE):
        lines = math.ceil(len(panels) / 2)
        figure = new_figure((12, 1.1 + 4 * lines), h_pad=0.15, w_pad=0.12)
        [heading], style = named([f"{title}: {len(rows):,} videos"])
        figure.suptitle(heading, fontsize=18, fontweight="bold", **style)
        if same:
            figure.supxlabel(f"the same for all: {', '.join(same)}", fontsize=12, color=GREY)
        grid = figure.add_gridspec(lines, 2)
        for number, draw in enumerate(panels):
            last = number == len(panels) - 1 and number % 2 == 0  # alone in its line
            draw(figure.add_subplot(grid[number // 2, :] if last else grid[divmod(number, 2)]))
        write_figure(figure, path)


def class_counts(labels: Sequence[int], label_names: Sequence[str] | None) -> list[tuple[int, int]]:
    """(videos, label) of every class, ascending; with label names also of those without a video."""
    counts = Counter(labels)
    every = counts.keys() | set(range(len(label_names or ())))
    return sorted((counts[label], label) for label in every)


def _histogram(panel: Axes, values: Sequence[float], title: str, unit: str, grain: float) -> None:
    """About 40 bins, on a logarithmic axis where the largest is far from the median.

    Args:
        grain: step between two values that may occur; bins hold as many of them each.
    """
    panel.set_title(title)
    low, middle, high = min(values), float(np.median(values)), max(values)
    panel.set_xlabel(
        f"{unit}   (min {low:,.4g}, median {middle:,.4g}, max {high:,.4g})", fontsize=11
    )
    panel.set_ylabel("videos")
    bins: np.ndarray
    if high > 10 * middle:
        bins = np.geomspace(max(low, 1e-3), high * 1.001, 41)
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter("{x:,.6g}")
    else:
        step = grain * max(1, math.ceil((high - low) / grain / 40))
        bins = low - grain / 2 + step * np.arange(math.ceil((high - low + grain) / step) + 1)
    panel.hist(values, bins=list(bins), color=BLUE)
    _whole_numbers(panel.yaxis, 6)


def _sizes(panel: Axes, sizes: Sequence[tuple[int, int]]) -> None:
    counts = Counter(sizes)
    if len(counts) > SHOWN:
        shorter = [min(size) for size in sizes]
        _histogram(panel, shorter, f"Short side ({len(counts):,} sizes)", "pixels", 1.0)
    else:
        bars = [(f"{w} x {h}", counts[w, h]) for w, h in sorted(counts)]
        _bars(panel, bars, "Frame size, pixels")


def _rates(panel: Axes, rates: Sequence[float]) -> None:
    counts = Counter(rates)
    if len(counts) > SHOWN:
        _histogram(panel, rates, f"Frame rate ({len(counts):,} rates)", "frames per second", 0.01)
    else:
        bars = [(f"{rate:g}", counts[rate]) for rate in sorted(counts)]
        _bars(panel, bars, "Frame rate, frames per second")


def _bars(
    panel: Axes, counts: Sequence[tuple[str, int]], title: str, colours: str | list[str] = BLUE
) -> None:
    """Horizontal bars from top to bottom, each with its name, number and share."""
    panel.set_title(title)
    names, style = named([name for name, _ in counts])
    numbers = [number for _, number in counts]
    bars = panel.barh(range(len(counts)), numbers, color=colours, height=0.7)
    shares = [f"{n:,} ({100 * n / sum(numbers):.3g} %)" if n else "0" for n in numbers]
    panel.bar_label(bars, shares, padding=4)
    panel.set_yticks(range(len(counts)), names, **style)
    panel.set_ylim(max(len(counts), 3) - 0.5, -0.5)  # one bar alone would fill the panel
    panel.set_xlabel("videos")
    panel.set_xlim(0, max(1, *numbers) * 1.45)
    _whole_numbers(panel.xaxis, 5)


def _classes(panel: Axes, counts: list[tuple[int, int]], label_names: Sequence[str] | None) -> None:
    """Every class a bar, the largest first; all are named, or the extremes and the median."""
    title, falling = f"Class balance ({len(counts):,} classes)", counts[::-1]
    if len(counts) <= SHOWN:
        bars = [(_short(class_name(label, label_names), 24), number) for number, label in falling]
        return _bars(panel, bars, title)
    panel.set_title(title)
    sizes = [number for number, _ in falling]
    panel.bar(range(len(sizes)), sizes, width=1.0 if len(sizes) > 60 else 0.8, color=BLUE)
    panel.set_xlabel("classes, largest first")
    panel.set_ylabel("videos")
    panel.set_xticks([])
    _whole_numbers(panel.yaxis, 6)
    places = {"max": 0, "median": len(sizes) // 2, "min": len(sizes) - 1}
    lines = []
    for word, place in places.items():
        number, label = falling[place]
        lines.append(f"{word} {number:,}: {_short(class_name(label, label_names), 40)}")
    # Above the bars, which are lower on the right.
    panel.set_ylim(0, max(sizes) * 1.45)
    lines, style = named(lines)
    where: dict[str, Any] = {"transform": panel.transAxes, "ha": "right", "va": "top", **style}
    panel.text(0.99, 0.98, "\n".join(lines), linespacing=1.4, **where)


def _short(name: str, length: int) -> str:
    """The name; of a longer one both ends: labels often differ in their last words.

    >>> _short("Pushing something from left to right", 24)
    'Pushing some...t to right'
    """
    half = length // 2
    return name if len(name) <= length else f"{name[:half]}...{name[-(half - 1) :].lstrip()}"


def _state(row: VideoFacts) -> str:
    """Name how much of a video can be read."""
    return "unreadable" if not row.num_frames else "truncated" if row.truncated else "whole"


def _status(panel: Axes, rows: Sequence[VideoFacts]) -> None:
    states = Counter(map(_state, rows))
    counts = [(state, states[state]) for state in ("whole", "truncated", "unreadable")]
    _bars(panel, counts, "What can be read", [BLUE, ORANGE, RED])


def _whole_numbers(axis: Axis, most: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, nbins=most))
    axis.set_major_formatter("{x:,.6g}")
