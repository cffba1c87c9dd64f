"""Parts of the plots of a study: styles of variants, axes, legends, numbers beside points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter, NullLocator

from vidadapt.apps.report.figures import GREY, INK, RULE, new_figure

# Of Okabe and Ito, which colour-blind readers tell apart; without yellow, faint on white.
COLOURS = ("#000000", "#e69f00", "#0072b2", "#009e73", "#d55e00", "#56b4e9", "#cc79a7")
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
    """Neighbours differ in hue, marker, dashes and filling; in black and white in all but hue."""
    return {
        variant: Style(
            COLOURS[number % len(COLOURS)],
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


def legend(
    figure: Figure,
    styles: Mapping[str, Style],
    lines: bool = True,
    sizes: Mapping[int, float] | None = None,
) -> None:
    """The variants, to the right of all panels.

    Args:
        lines: whether the plot joins a variant's points.
        sizes: of markers in points, by the number of frames that they are for.
    """
    handles = [
        Line2D([], [], **style.line(**({} if lines else {"linestyle": "none"})))
        for style in styles.values()
    ]
    texts = list(styles)
    for number, size in (sizes or {}).items():
        grey: dict[str, Any] = {
            "color": GREY,
            "marker": "o",
            "linestyle": "none",
            "markersize": size,
        }
        handles.append(Line2D([], [], **grey))
        texts.append(f"{number} frames")
    figure.legend(
        handles,
        texts,
        loc="outside right upper",
        fontsize=9,
        frameon=False,
        handlelength=3.4 if lines else 1.5,
        ncols=math.ceil(len(texts) / LEGEND_ROWS),
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
