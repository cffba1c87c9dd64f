"""The picture of several models' features: one panel each, one marker for each class."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vidadapt.apps.report.figures import GREY, INK, PLAIN, named, new_figure, write_figure

# Ten shapes; classes 11 to 20 have them hollow.
SHAPES = ("o", "s", "^", "v", "D", "P", "X", "*", "<", ">")
# Paul Tol's muted scheme for colour-blind readers (https://personal.sron.nl/~pault/), its pale grey
# replaced by black, so that neighbours differ in lightness, too.
COLOURS = (
    *("#332288", "#88CCEE", "#117733", "#DDCC77", "#882255", "#44AA99", "#CC6677", "#999933"),
    *("#AA4499", "#000000"),
)
MOST_CLASSES = 2 * len(SHAPES)
COLUMNS, SIDE = 3, 4.6  # panels beside each other; inches of one
NAME_WIDTH, NAME_LINES = 38, 2  # of a class in the legend, in characters and lines


@dataclass(frozen=True)
class Panel:
    """One model.

    Attributes:
        places: (N, 2) in the plane.
        labels: (N,) which class each video is of.
        title: of the caption.
        caption: its other lines.
    """

    places: np.ndarray
    labels: np.ndarray
    title: str
    caption: tuple[str, ...]


def write_pictures(
    panels: Sequence[Panel], classes: Sequence[tuple[int, str]], note: str, out: Path
) -> list[Path]:
    """Write OUT/tsne.png (150 dpi) and OUT/tsne.svg, each replaced at once.

    Args:
        classes: (label, name) in the legend's order, at most `MOST_CLASSES`.
        note: line below everything.
    """
    return write_figure(drawn(panels, classes, note), out / "tsne.png", out / "tsne.svg")


def drawn(panels: Sequence[Panel], classes: Sequence[tuple[int, str]], note: str) -> Figure:
    """The figure: panels in rows of up to three, the legend to their right, the note below."""
    rows = math.ceil(len(panels) / COLUMNS)
    columns = math.ceil(len(panels) / rows)
    size = (columns * SIDE + 3.8, rows * (SIDE + 0.9) + 0.4)
    figure = new_figure(size, w_pad=0.1, h_pad=0.1, wspace=0.04, hspace=0.06)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw(axes, panel, classes)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    handles = [
        Line2D([], [], linestyle="", markersize=8, **_marker(place))
        for place, _ in enumerate(classes)
    ]
    names, style = named([short_name(name) for _, name in classes])
    legend = figure.legend(
        handles,
        names,
        loc="outside right upper",
        frameon=False,
        fontsize=9,
        labelspacing=0.7,
        handletextpad=0.4,
    )
    for text in legend.get_texts():
        text.set(**style)
    below = figure.supxlabel(note, ha="left", fontsize=8.5, color=GREY, **PLAIN)
    figure.draw_without_rendering()  # which lays the panels out
    below.set_x(grid[0, 0].get_position().x0)
    return figure


def _draw(axes: Axes, panel: Panel, classes: Sequence[tuple[int, str]]) -> None:
    for place, (label, _) in enumerate(classes):
        rows = panel.labels == label
        size = float(np.clip(130 / math.sqrt(len(panel.labels)), 3.0, 8.0))
        marker = _marker(place)
        larger = 1.3 if marker["marker"] == "*" else 1.0  # whose rays are thin
        axes.plot(*panel.places[rows].T, linestyle="", markersize=size * larger, **marker)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_box_aspect(1)
    axes.margins(0.03)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color="#b8bcc2", linewidth=0.8)
    [title], style = named([panel.title])
    below: dict[str, Any] = {"transform": axes.transAxes, "va": "top", "color": INK, **style}
    axes.text(0, -0.025, title, fontsize=12, fontweight="bold", **below)
    axes.text(0, -0.085, "\n".join(panel.caption), fontsize=9.5, linespacing=1.4, **below)


def _marker(place: int) -> dict[str, Any]:
    """Shape and colour of the class at a place of the legend."""
    turn, number = divmod(place, len(SHAPES))
    # The same shape, hollow, has another colour, too.
    colour = COLOURS[(number + 5 * turn) % len(COLOURS)]
    filled = {"markerfacecolor": colour, "markeredgecolor": "white", "markeredgewidth": 0.4}
    hollow = {"markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": 1.1}
    return {"marker": SHAPES[number], **(hollow if turn else filled)}


def short_name(name: str) -> str:
    """A class name in at most two lines of 38 characters; what is too long loses its middle.

    >>> short_name("moving something up")
    'moving something up'
    >>> print(short_name("something approaching while it turns counter-clockwise"))
    something approaching while it turns
    counter-clockwise
    >>> name = "Failing to put something into something: it does not fit in there at all"
    >>> print(short_name(name))
    Failing to put something into …
    it does not fit in there at all
    """
    lines = textwrap.wrap(name, NAME_WIDTH)
    if len(lines) <= NAME_LINES:
        return "\n".join(lines)
    first = textwrap.wrap(name, NAME_WIDTH - 2)[0]
    end = name[-NAME_WIDTH:]
    if not name[-NAME_WIDTH - 1].isspace():
        end = end.partition(" ")[2] or end
    return f"{first} …\n{end.strip()}"
