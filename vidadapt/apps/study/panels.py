"""Parts of the plots of a study: styles of variants, axes, legends, numbers beside points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter, NullLocator

from vidadapt.apps.report.figures import GREY, INK, RULE, new_figure

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.6)),
    (0, (1.2, 1.2)),
    (0, (6, 1.6, 1.2, 1.6)),
    (0, (3, 1.2, 1, 1.2, 1, 1.2)),
)
SIZES = {"*": 9.5, "D": 5.5, "P": 7.0, "X": 7.0}  # points, where the shape asks for it
WIDE = 8  # largest by smallest from which an axis is logarithmic
LEGEND_ROWS = 20

Box = tuple[float, float, float, float]  # middle x, y, half width, half height; points


@dataclass(frozen=True)
class Style:
    """The look of a variant in every plot: up to 60 differ in marker or dashes."""

    colour: str
    marker: str
    dashes: Any
    filled: bool

    def line(self, **changed: Any) -> dict[str, Any]:
        """Keywords for `Axes.plot`."""
        return {
            "color": self.colour,
            "linestyle": self.dashes,
            "linewidth": 1.5,
            "marker": self.marker,
            "markersize": SIZES.get(self.marker, 6.0),
            "markerfacecolor": self.colour if self.filled else "white",
            "markeredgecolor": self.colour,
            "markeredgewidth": 1.3,
            **changed,
        }


def styles_of(variants: Sequence[str]) -> dict[str, Style]:
    """From dark to light by matplotlib's plasma, whose lightness also tells in black and white."""
    last = max(1, len(variants) - 1)
    return {
        variant: Style(
            to_hex(colormaps["plasma"](0.82 * number / last)),
            MARKERS[number % len(MARKERS)],
            DASHES[number % len(DASHES)],
            number % 2 == 0,
        )
        for number, variant in enumerate(variants)
    }


def titled_figure(title: str, note: str, size: tuple[float, float]) -> Figure:
    """A figure with a title and a note below, in small letters; `size` in inches."""
    figure = new_figure(size, w_pad=0.08, h_pad=0.06)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    figure.supxlabel(note, x=0.01, ha="left", fontsize=7.5, color=GREY)
    return figure


def tidy(panel: Axes, x_label: str, y_label: str) -> None:
    """Labels and a light grid."""
    panel.set_xlabel(x_label, fontsize=10)
    panel.set_ylabel(y_label, fontsize=10)
    panel.tick_params(labelsize=9)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(color=RULE, linewidth=0.7)
    panel.set_axisbelow(True)


def legend(figure: Figure, styles: Mapping[str, Style], lines: bool = True) -> None:
    """The variants, to the right of all panels.

    Args:
        lines: whether the plot joins a variant's points.
    """
    handles = [
        Line2D([], [], **style.line(**({} if lines else {"linestyle": "none"})))
        for style in styles.values()
    ]
    figure.legend(
        handles,
        list(styles),
        loc="outside right upper",
        fontsize=9,
        frameon=False,
        handlelength=3.4 if lines else 1.5,
        ncols=math.ceil(len(styles) / LEGEND_ROWS),
    )


def frames_axis(panel: Axes, frames: Sequence[int]) -> None:
    """An x axis logarithmic to base 2, with a tick at each number of frames."""
    panel.set_xscale("log", base=2)
    panel.set_xticks(list(frames), [str(number) for number in frames])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlim(frames[0] / 2**0.3, frames[-1] * 2**0.3)


def scaled(
    panel: Axes, which: Literal["x", "y"], values: Sequence[float], *, always_log: bool = False
) -> None:
    """Plain numbers; a logarithmic axis where values span widely, with ticks at 1, 2, 5."""
    low, high = min(values), max(values)
    axis = panel.xaxis if which == "x" else panel.yaxis
    plain = FuncFormatter(lambda value, _: f"{value:,g}")
    axis.set_major_formatter(plain)
    if low <= 0 or not (always_log or high / low >= WIDE):
        return
    room = 1.25 if high / low >= 4 else 2.0  # below there might be a single tick
    limits = low / room, high * room
    if which == "x":
        panel.set_xscale("log")
        panel.set_xlim(*limits)
    else:
        panel.set_yscale("log")
        panel.set_ylim(*limits)
    axis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 2e3 else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(EngFormatter(sep=" ") if high >= 1e5 else plain)
    axis.set_minor_formatter(NullFormatter())


@dataclass(frozen=True)
class Track:
    """Points that a line joins, in data units.

    Attributes:
        bars: y of the ends of each point's error bar.
        texts: what is written beside each point.
    """

    x: Sequence[float]
    y: Sequence[float]
    bars: Sequence[tuple[float, float]]
    texts: Sequence[str]
    colour: str


def number_points(panel: Axes, tracks: Sequence[Track]) -> None:
    """Write the texts beside their points, where they cover least of what is drawn."""
    figure = panel.figure
    figure.draw_without_rendering()  # type: ignore[union-attr] # axes have their final places after it

    def placed(x: Sequence[float], y: Sequence[float]) -> np.ndarray:
        return panel.transData.transform(list(zip(x, y, strict=True))) * 72 / figure.dpi

    places = [placed(track.x, track.y) for track in tracks]
    taken: list[Box] = [(x, y, 5.0, 5.0) for points in places for x, y in points]
    for track, points in zip(tracks, places, strict=True):
        for x, bar in zip(track.x, track.bars, strict=True):
            taken += _along(*placed([x, x], bar))
        for start, end in pairwise(points):
            taken += _along(start, end)
    for track, points in zip(tracks, places, strict=True):
        for x, y, text, (left, bottom) in zip(track.x, track.y, track.texts, points, strict=True):
            half = 2.4 * len(text) + 0.5, 4.0
            best, box = min(
                ((shift, (left + shift[0], bottom + shift[1], *half)) for shift in _offsets(text)),
                key=lambda candidate: sum(_overlap(candidate[1], other) for other in taken),
            )
            taken.append(box)
            panel.annotate(
                text,
                (x, y),
                best,
                textcoords="offset points",
                fontsize=7.5,
                color=_darker(track.colour),
                ha="center",
                va="center",
            )


def _along(start: np.ndarray, end: np.ndarray) -> list[Box]:
    """Small boxes on a straight line."""
    steps = int(np.hypot(*(end - start)) / 3)
    return [(x, y, 1.0, 1.0) for x, y in np.linspace(start, end, steps + 1)]


def _darker(colour: str) -> tuple[float, ...]:
    """Legible as text on white."""
    return tuple(0.65 * part for part in to_rgb(colour))


def _offsets(text: str) -> list[tuple[float, float]]:
    """Places for the middle of a text, in points from its subject; the best first."""
    side = 6.5 + 2.4 * len(text)
    near = [(side, 0.0), (0.0, 9.5), (0.0, -9.5), (-side, 0.0)]
    return [*near, (side, 7.0), (side, -7.0), (-side, 7.0), (-side, -7.0)]


def _overlap(one: Box, other: Box) -> float:
    """Common area of two boxes.

    >>> _overlap((0, 0, 1, 1), (1, 0, 1, 1)), _overlap((0, 0, 1, 1), (5, 0, 1, 1))
    (2, 0)
    """
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0] - one[2], other[0] - other[2])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1] - one[3], other[1] - other[3])
    return max(width, 0) * max(height, 0)
