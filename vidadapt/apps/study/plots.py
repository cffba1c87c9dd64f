"""Plots of a study, PNG and SVG.

frames      top-1 against frames, the range of the seeds as bars (AdaptFormer's Figure 7)
variants    top-1 of each variant, where there is one number of frames
parameters  top-1 against trainable parameters (Figures 1 and 4)
seconds     top-1 against seconds per epoch
memory      top-1 against peak memory of a step
curves      training loss and development top-1 against epoch (Figure 5)
cost        step time, memory and data share, where no cell has an accuracy
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vidadapt.apps.report.figures import INK, write_figure
from vidadapt.apps.study.panels import (
    Style,
    frames_axis,
    legend,
    scaled,
    styles_of,
    tidy,
    titled_figure,
)
from vidadapt.apps.study.results import Line
from vidadapt.apps.study.rows import distinct, over_groups, summary_of

TOP1 = "top-1 (%)"
SIDE_BY_SIDE = 0.015  # of the axis between two bars
RANGE = "mean and range of {} seeds"
INTERVAL = "bars: 95 % intervals over {} groups"
COSTS = {  # label: column of the summary, scale
    "step time (ms per clip)": ("step_ms_per_clip", 1.0),
    "peak memory of a step (MB)": ("peak_memory_bytes", 1e-6),
    "data's share of the time (%)": ("data_share", 100.0),
}
CURVES = {"loss": "training loss (nats)", "dev_top1": "development top-1 (%)"}


def draw(lines: Sequence[Line], folder: Path) -> list[Path]:
    """Write every plot whose data are known; delete those of an earlier call that are not.

    Args:
        lines: as `results.read_results` gives them.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, make in PLOTS.items():
        figure = make(lines)
        paths = [folder / f"{name}.{ending}" for ending in ("png", "svg")]
        if figure is not None:
            written += write_figure(figure, *paths)
        else:
            for path in paths:
                path.unlink(missing_ok=True)
    return written


def frames(lines: Sequence[Line]) -> Figure | None:
    """Top-1 against the frames of a clip."""
    rows = summary_of(lines).dropna(subset="top1")
    if rows.empty or len(distinct(lines, "frames")) < 2:
        return None
    styles = _styles(lines, rows)
    figure = titled_figure("Top-1 against frames", _note(lines, RANGE), (7.2, 4.6))
    panel = figure.subplots()
    _against_frames(panel, rows, "top1", styles)
    frames_axis(panel, sorted(distinct(lines, "frames")))
    tidy(panel, "clip length (frames)", TOP1)
    legend(figure, styles)
    return figure


def variants(lines: Sequence[Line]) -> Figure | None:
    """Top-1 of each variant, from the top down, at the one number of frames."""
    rows = summary_of(lines).dropna(subset="top1")
    if rows.empty or len(distinct(lines, "frames")) > 1:
        return None
    size = (7.2, 1.5 + 0.27 * len(rows))
    title = f"Top-1 at {_frames(rows['frames'].iloc[0])}"
    figure = titled_figure(title, _note(lines, RANGE), size)
    panel = figure.subplots()
    _from_top(panel, rows, "top1", _styles(lines, rows))
    tidy(panel, TOP1, "")
    panel.set_ylabel("variant", fontsize=10)
    return figure


def curves(lines: Sequence[Line]) -> Figure | None:
    """Loss and development top-1 against epoch: each seed thin, the seeds' mean with markers."""
    points = pd.DataFrame(
        {**{key: line[key] for key in ("variant", "frames", "cell")}, **point}
        for line in lines
        for point in line["curve"] or ()
    )
    if points.empty:
        return None
    points = points.astype(dict.fromkeys(CURVES, float))
    styles = _styles(lines, points)
    numbers = sorted(points["frames"].unique())
    drawn = [key for key in CURVES if points[key].notna().any()]
    size = (2.2 + max(5.0, 3.0 * len(numbers)), 0.9 + 2.5 * len(drawn))
    figure = titled_figure("Training curves", _note(lines, "thick: mean of {} seeds"), size)
    panels = figure.subplots(len(drawn), len(numbers), squeeze=False, sharex=True, sharey="row")
    for key, across in zip(drawn, panels, strict=True):
        known = points.dropna(subset=key)
        for number, panel in zip(numbers, across, strict=True):
            for name in styles:
                own = known[(known["variant"] == name) & (known["frames"] == number)]
                _draw_curve(panel, own, key, name, styles)
            tidy(panel, "epoch (number)" if key == drawn[-1] else "", "")
            panel.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
            if key == drawn[0]:
                panel.set_title(_frames(number), fontsize=10, color=INK)
        across[0].set_ylabel(CURVES[key], fontsize=10)
        if key == "loss":
            scaled(across[0], "y", list(known[key]))
    legend(figure, styles)
    return figure


def cost(lines: Sequence[Line]) -> Figure | None:
    """Step time, memory and data share, where no cell has an accuracy."""
    rows, numbers = summary_of(lines), sorted(distinct(lines, "frames"))
    for label, (key, scale) in COSTS.items():
        rows[label] = scale * rows[key]
    drawn = [label for label in COSTS if rows[label].notna().any()]
    if rows["top1"].notna().any() or not drawn:
        return None
    styles, several = _styles(lines, rows), len(numbers) > 1
    at = "" if several else f" at {_frames(numbers[0])}"
    size = (1.9 + 3.2 * len(drawn), 4.3 if several else 1.5 + 0.27 * len(rows))
    figure = titled_figure(f"Cost of training{at}", _note(lines), size)
    panels = figure.subplots(1, len(drawn), squeeze=False, sharey=not several)[0]
    for panel, label in zip(panels, drawn, strict=True):
        known = list(rows[label].dropna())
        if several:
            _against_frames(panel, rows, label, styles)
            frames_axis(panel, numbers)
            tidy(panel, "clip length (frames)", label)
        else:
            _from_top(panel, rows, label, styles)
            tidy(panel, label, "variant" if panel is panels[0] else "")
        (panel.set_ylim if several else panel.set_xlim)(0, 1.08 * max(known) or 1)
        if not label.endswith("(%)"):
            scaled(panel, "y" if several else "x", known)
    if several:
        legend(figure, styles)
    return figure


def _styles(lines: Sequence[Line], rows: pd.DataFrame) -> dict[str, Style]:
    """The styles of the variants drawn; a variant looks the same in every plot."""
    drawn = set(rows["variant"])
    styles = styles_of(distinct(lines, "variant"))
    return {name: style for name, style in styles.items() if name in drawn}


def _frames(number: int) -> str:
    return "1 frame" if number == 1 else f"{number} frames"


def _note(lines: Sequence[Line], seeds: str = "", more: str = "") -> str:
    """Say in short what all cells share, and what the plot shows.

    Args:
        seeds: how several seeds, {} of them, are drawn.
    """
    forms = {
        "crop_size": "crops of {} pixels",
        "num_classes": "{} classes",
        "num_videos": "{} videos",
    }
    said = [
        forms.get(key, "{}").format(values[0])
        for key in ("backbone", "crop_size", "num_classes", "num_videos", "device", "precision")
        if len(values := distinct(lines, key)) == 1
    ]
    groups = {len(line["cross_validation"]["by_group"]) for line in over_groups(lines)}
    if seeds == RANGE and groups:
        seeds, more = "", "; ".join(filter(None, [INTERVAL.format(min(groups)), more]))
    run = set(summary_of(lines)["seeds"]) - {0}
    most = max(run, default=0)
    drawn = seeds.format(most if len(run) == 1 else f"up to {most}") if most > 1 else ""
    return "; ".join(filter(None, [", ".join(said), drawn, more]))


def _draw_ranges(
    panel: Axes, x: pd.Series, y: pd.Series, rows: pd.DataFrame, which: str, colour: str
) -> None:
    """Bars from the lowest to the highest: over seeds, or the interval of a cross-validation.

    Args:
        x, y: where the rows' points are.
        which: `xerr` or `yerr`: the axis of top-1.
    """
    several = (rows["seeds"] > 1) | (rows["lowest"] < rows["highest"])
    own = rows[several]
    # The mean of equal values may be rounded to just beside them.
    bars = [
        (own["top1"] - own["lowest"]).clip(lower=0),
        (own["highest"] - own["top1"]).clip(lower=0),
    ]
    style: dict[str, Any] = {which: bars, "ecolor": colour, "capsize": 2.5, "lw": 1.1}
    panel.errorbar(x[several], y[several], fmt="none", **style)


def _against_frames(panel: Axes, rows: pd.DataFrame, key: str, styles: dict[str, Style]) -> None:
    """A line a variant, moved sideways a little so that bars and markers are apart."""
    step = min(0.025, 0.25 / len(styles))  # octaves
    for place, (name, style) in enumerate(styles.items()):
        own = rows[(rows["variant"] == name) & rows[key].notna()]
        across = own["frames"].astype(float) * 2 ** (step * (place - (len(styles) - 1) / 2))
        panel.plot(across, own[key], **style.line())
        if key == "top1":
            _draw_ranges(panel, across, own["top1"], own, "yerr", style.colour)


def _from_top(panel: Axes, rows: pd.DataFrame, key: str, styles: dict[str, Style]) -> None:
    """A point a variant, its name at the left."""
    places = pd.Series(range(len(rows)), index=rows.index)
    for name, style in styles.items():
        own = rows[(rows["variant"] == name) & rows[key].notna()]
        panel.plot(own[key], places[own.index], **style.line(linestyle="none"))
        if key == "top1":
            _draw_ranges(panel, own["top1"], places[own.index], own, "xerr", style.colour)
    panel.set_yticks(range(len(rows)), list(rows["variant"]))
    panel.set_ylim(len(rows) - 0.4, -0.6)


def _scatter(
    lines: Sequence[Line],
    *,
    title: str,
    key: str,
    label: str,
    scale: float = 1,
    counted: bool = False,
) -> Figure | None:
    """Top-1 against a cost; a variant's points are joined, and the larger, the more frames.

    Args:
        counted: the cost is a count over some magnitudes, the same for many points: they are drawn
            on a logarithmic axis, and side by side.
    """
    rows = summary_of(lines).dropna(subset=["top1", key])
    if rows.empty:
        return None
    rows["cost"] = _apart(rows[key]) if counted else scale * rows[key]
    styles, numbers = _styles(lines, rows), rows["frames"].unique()
    several = len(numbers) > 1
    at = "" if several else f" at {_frames(numbers[0])}"
    figure = titled_figure(title + at, _note(lines, RANGE), (7.2, 4.8))
    panel = figure.subplots()
    sizes = {number: 4.0 + 2.5 * place for place, number in enumerate(sorted(numbers))}
    for name, style in styles.items():
        own = rows[rows["variant"] == name]
        panel.plot(own["cost"], own["top1"], **style.line(linewidth=0.9, marker=""))
        for number, point in own.groupby("frames"):
            size = sizes[number] if several else 6.0
            look = style.line(linestyle="none", markersize=size, alpha=0.9)
            panel.plot(point["cost"], point["top1"], **look)
        _draw_ranges(panel, own["cost"], own["top1"], own, "yerr", style.colour)
    tidy(panel, label, TOP1)
    scaled(panel, "x", list(rows["cost"]), always_log=counted)
    legend(figure, styles, lines=several, sizes=sizes if several else None)
    return figure


def _apart(counts: pd.Series) -> pd.Series:
    """Move the counts of neighbours on a logarithmic axis so that their bars are side by side."""
    along = np.log(counts).sort_values(kind="stable")
    step = SIDE_BY_SIDE * max(along.iloc[-1] - along.iloc[0], 1.0)
    together = along.groupby((along.diff() > step).cumsum())
    aside = together.cumcount() - (together.transform("size") - 1) / 2
    return counts * np.exp(step * aside)


def _draw_curve(
    panel: Axes, points: pd.DataFrame, key: str, name: str, styles: dict[str, Style]
) -> None:
    """The known points of a variant at a number of frames, over its seeds."""
    means = points.groupby("epoch")[key].mean()
    cells = points.groupby("cell", sort=False)
    for _, own in cells if len(cells) > 1 else ():
        panel.plot(own["epoch"], own[key], color=styles[name].colour, lw=0.6, alpha=0.35)
    apart = max(1, len(means) // 5)
    first = list(styles).index(name) % apart
    line = styles[name].line(markevery=(first, apart), linewidth=1.3, markersize=5)
    panel.plot(means.index, means, **line)


PLOTS: dict[str, Callable[[Sequence[Line]], Figure | None]] = {
    "frames": frames,
    "variants": variants,
    "parameters": partial(
        _scatter,
        title="Top-1 against trainable parameters",
        key="trainable",
        label="trainable parameters, equal ones side by side (number)",
        counted=True,
    ),
    "seconds": partial(
        _scatter,
        title="Top-1 against time per epoch",
        key="epoch_seconds",
        label="projected time per epoch (s)",
    ),
    "memory": partial(
        _scatter,
        title="Top-1 against memory",
        key="peak_memory_bytes",
        scale=1e-6,
        label="peak memory of a training step (MB)",
    ),
    "curves": curves,
    "cost": cost,
}
