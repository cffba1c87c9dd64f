"""Curves of training runs over their epochs, as shapes that the page draws in SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vidadapt.apps.report.run_files import Run
from vidadapt.console import printable

WIDTH, HEIGHT = 320, 210  # of a chart, in units of its drawing
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 10, 30  # of its plot, from the edges
TICKS = 5
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One figure of one run.

    Attributes:
        name: of run and figure.
        colour: number of its colour.
        dashed: it is of training, beside a development list's.
        points: (epoch, value), at least one.
    """

    name: str
    colour: int
    dashed: bool
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Chart:
    """Lines on common axes.

    Attributes:
        unit: of the values, for the axis.
        x_range, y_range: of the plot, values at its edges; never empty.
        x_ticks, y_ticks: values that the axes name.
    """

    title: str
    unit: str
    lines: tuple[Line, ...]
    x_range: Point
    y_range: Point
    x_ticks: tuple[float, ...]
    y_ticks: tuple[float, ...]

    def x(self, value: float) -> float:
        """Place of an epoch in the drawing, from the left."""
        low, high = self.x_range
        return round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 2)

    def y(self, value: float) -> float:
        """Place of a value in the drawing, from the top."""
        low, high = self.y_range
        return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 2)

    def path(self, line: Line) -> str:
        """The line as an SVG path."""
        return "M" + " L".join(f"{self.x(x):g} {self.y(y):g}" for x, y in line.points)

    @property
    def rows(self) -> list[tuple[float, list[float | None]]]:
        """Each epoch with the value of each line; None, where it has none."""
        values = [dict(line.points) for line in self.lines]
        epochs = sorted({x for line in self.lines for x, _ in line.points})
        return [(epoch, [value.get(epoch) for value in values]) for epoch in epochs]

    @property
    def data(self) -> dict[str, Any]:
        """Give names of the lines; and of each row its epoch, place and values."""
        rows = [[epoch, self.x(epoch), values] for epoch, values in self.rows]
        return {"names": [printable(line.name) for line in self.lines], "rows": rows}


# Title, unit, keys of log.jsonl with their names. Of dev and test, a run validates on one.
CHARTS = (
    (
        "Loss",
        "nats",
        {"train_loss": "train", "dev_loss": "dev", "test_loss": "test"},
    ),
    (
        "Top-1 accuracy",
        "%",
        {"train_top1": "train", "dev_top1": "dev", "test_top1": "test"},
    ),
    ("Mean average precision", "%", {"dev_map": "dev", "test_map": "test"}),
    (
        "Mean class accuracy",
        "%",
        {"dev_mean_class_accuracy": "dev", "test_mean_class_accuracy": "test"},
    ),
    ("Learning rate", "", {"lr": ""}),
    ("Speed of training", "clips/s", {"clips_per_second": ""}),
)


def charts_of(runs: Sequence[Run]) -> list[Chart]:
    """Make the charts; what no run has logged is left out."""
    found = []
    for title, unit, keys in CHARTS:
        lines = tuple(
            Line(
                " ".join(filter(None, [run.name if len(runs) > 1 else "", name])) or title,
                number if len(runs) > 1 else place,
                name == "train",
                points,
            )
            for number, run in enumerate(runs)
            for place, (key, name) in enumerate(keys.items())
            if (points := tuple((line["epoch"], line[key]) for line in run.log if key in line))
        )
        if lines:
            found.append(_chart(title, unit, lines))
    return found


def _chart(title: str, unit: str, lines: tuple[Line, ...]) -> Chart:
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    # From 0, where that costs little of the height: speeds and accuracies are then comparable.
    low = 0.0 if 0 < min(ys) < 0.6 * max(ys) else min(ys)
    x_ticks = ticks(min(xs), max(xs), whole=True)
    y_ticks = ticks(low, max(ys), whole=False)
    x_range = (min(xs), max(xs)) if min(xs) < max(xs) else (min(xs) - 0.5, max(xs) + 0.5)
    y_range = (min(y_ticks[0], low), max(y_ticks[-1], max(ys)))
    within = tuple(tick for tick in x_ticks if x_range[0] <= tick <= x_range[1])
    return Chart(title, unit, lines, x_range, y_range, within, y_ticks)


def ticks(low: float, high: float, *, whole: bool) -> tuple[float, ...]:
    """Return round numbers, two or more, from `low` or below it to `high` or above it.

    >>> ticks(1, 12, whole=True), ticks(0, 0.93, whole=False)
    ((0.0, 3.0, 6.0, 9.0, 12.0), (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    """
    from matplotlib.ticker import MaxNLocator

    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    locator = MaxNLocator(nbins=TICKS, integer=whole, steps=[1, 2, 2.5, 3, 5, 10])
    return tuple(float(f"{tick:.6g}") for tick in locator.tick_values(low, high))
