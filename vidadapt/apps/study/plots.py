"""Plots of a benchmark, PNG and SVG.

frames      top-1 against frames, the range of the seeds as bars (AdaptFormer's Figure 7)
variants    top-1 of each variant, in its place where there is one number of frames
parameters  top-1 against trainable parameters (Figures 1 and 4)
seconds     top-1 against seconds per epoch
memory      top-1 against peak memory of a step
curves      training loss and development top-1 against epoch (Figure 5)
cost        step time, memory and data share, where no cell has an accuracy
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vidadapt.apps.study.panels import (
    INK,
    Style,
    Track,
    frames_axis,
    legend,
    new_figure,
    number_points,
    scaled,
    styles_of,
    tidy,
)
from vidadapt.apps.study.results import Line
from vidadapt.apps.study.rows import Row, frames_of, rows_of, variants_of
from vidadapt.files.writing import replaced

DPI = 150
ENDINGS: dict[str, dict[str, Any]] = {
    "png": {"dpi": DPI},
    "svg": {"metadata": {"Date": None}},  # the same bytes at every time
}
TOP1 = "top-1 (%)"
_RANGE = "mean and range of {} seeds"


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
        for ending, options in ENDINGS.items():
            path = folder / f"{name}.{ending}"
            if figure is None:
                path.unlink(missing_ok=True)
                continue
            with (
                replaced(path) as partial,
                matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}),
            ):
                figure.savefig(partial, format=ending, **options)
            written.append(path)
    return written


def frames(lines: Sequence[Line]) -> Figure | None:
    """Top-1 against the frames of a clip."""
    rows, numbers = _with_accuracy(lines), frames_of(lines)
    if not rows or len(numbers) < 2:
        return None
    styles = _styles(lines, rows)
    figure = new_figure("Top-1 against frames", _note(lines, _RANGE), (7.2, 4.6))
    panel = figure.subplots()
    _against_frames(panel, rows, numbers, styles, lambda row: row.mean("top1"), ranges=True)
    tidy(panel, "clip length (frames)", TOP1)
    legend(figure, styles)
    return figure


def variants(lines: Sequence[Line]) -> Figure | None:
    """Top-1 of each variant, from the top down, at the one number of frames."""
    rows, numbers = _with_accuracy(lines), frames_of(lines)
    if not rows or len(numbers) > 1:
        return None
    styles = _styles(lines, rows)
    size = (7.2, 1.5 + 0.27 * len(rows))
    figure = new_figure(f"Top-1 at {numbers[0]} frames", _note(lines, _RANGE), size)
    panel = figure.subplots()
    _from_top(panel, rows, styles, lambda row: row.mean("top1"), ranges=True)
    tidy(panel, TOP1, "")
    panel.set_ylabel("variant", fontsize=10)
    return figure


def parameters(lines: Sequence[Line]) -> Figure | None:
    """Top-1 against trainable parameters."""
    title = "Top-1 against trainable parameters"
    return _scatter(lines, title, "trainable", 1, "trainable parameters (number)", log=True)


def seconds(lines: Sequence[Line]) -> Figure | None:
    """Top-1 against the time of an epoch."""
    title = "Top-1 against time per epoch"
    return _scatter(lines, title, "epoch_seconds", 1, "projected time per epoch (s)", log=False)


def memory(lines: Sequence[Line]) -> Figure | None:
    """Top-1 against the peak memory of a step."""
    title = "Top-1 against memory"
    label = "peak memory of a training step (MB)"
    return _scatter(lines, title, "peak_memory_bytes", 1e-6, label, log=False)


def curves(lines: Sequence[Line]) -> Figure | None:
    """Loss and development top-1 against epoch: each seed thin, the seeds' mean with markers."""
    rows = [row for row in rows_of(lines) if any(cell["curve"] for cell in row.cells)]
    if not rows:
        return None
    styles = _styles(lines, rows)
    numbers = sorted({row.frames for row in rows})
    wanted = {"loss": "training loss (nats)", "dev_top1": "development top-1 (%)"}
    drawn = [key for key in wanted if any(_curve(row, key) for row in rows)]
    size = (2.2 + max(5.0, 3.0 * len(numbers)), 0.9 + 2.5 * len(drawn))
    figure = new_figure("Training curves", _note(lines, "thick: mean of {} seeds"), size)
    panels = figure.subplots(len(drawn), len(numbers), squeeze=False, sharex=True, sharey="row")
    for key, across in zip(drawn, panels, strict=True):
        for number, panel in zip(numbers, across, strict=True):
            for row in (row for row in rows if row.frames == number):
                _draw_curve(panel, row, key, styles)
            tidy(panel, "epoch (number)" if key == drawn[-1] else "", "")
            panel.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
            if key == drawn[0]:
                panel.set_title(f"{number} frames", fontsize=10, color=INK)
        across[0].set_ylabel(wanted[key], fontsize=10)
        if key == "loss":
            scaled(across[0], "y", [v for row in rows for _, v in _curve(row, key)])
    legend(figure, styles)
    return figure


def cost(lines: Sequence[Line]) -> Figure | None:
    """Step time, memory and data share, where no cell has an accuracy."""
    if _with_accuracy(lines):
        return None
    rows, numbers = rows_of(lines), frames_of(lines)
    drawn = {
        label: value for label, value in COSTS.items() if any(value(r) is not None for r in rows)
    }
    if not drawn:
        return None
    styles = _styles(lines, rows)
    several = len(numbers) > 1
    at = "" if several else f" at {numbers[0]} frames"
    height = 4.3 if several else 1.5 + 0.27 * len(rows)
    size = (1.9 + 3.2 * len(drawn), height)
    figure = new_figure(f"Cost of training{at}", _note(lines), size)
    panels = figure.subplots(1, len(drawn), squeeze=False, sharey=not several)[0]
    for panel, (label, value) in zip(panels, drawn.items(), strict=True):
        known = [v for row in rows if (v := value(row)) is not None]
        if several:
            _against_frames(panel, rows, numbers, styles, value, ranges=False)
            tidy(panel, "clip length (frames)", label)
        else:
            _from_top(panel, rows, styles, value, ranges=False)
            tidy(panel, label, "variant" if panel is panels[0] else "")
        (panel.set_ylim if several else panel.set_xlim)(0, 1.08 * max(known) or 1)
        if not label.endswith("(%)"):
            scaled(panel, "y" if several else "x", known)
    if several:
        legend(figure, styles)
    return figure


PLOTS: dict[str, Callable[[Sequence[Line]], Figure | None]] = {
    "frames": frames,
    "variants": variants,
    "parameters": parameters,
    "seconds": seconds,
    "memory": memory,
    "curves": curves,
    "cost": cost,
}


def _step_per_clip(row: Row) -> float | None:
    seconds, clips = row.median("step_seconds"), row.median("batch_size")
    return None if seconds is None or clips is None else 1000 * seconds / clips


def _times(key: str, scale: float) -> Callable[[Row], float | None]:
    def value(row: Row) -> float | None:
        found = row.median(key)
        return None if found is None else found * scale

    return value


COSTS = {
    "step time (ms per clip)": _step_per_clip,
    "peak memory of a step (MB)": _times("peak_memory_bytes", 1e-6),
    "data's share of the time (%)": _times("data_share", 100),
}


def _with_accuracy(lines: Sequence[Line]) -> list[Row]:
    return [row for row in rows_of(lines) if row.known("top1")]


def _styles(lines: Sequence[Line], rows: Sequence[Row]) -> dict[str, Style]:
    """Of the variants drawn; a variant looks the same in every plot."""
    drawn = {row.variant for row in rows}
    return {name: look for name, look in styles_of(variants_of(lines)).items() if name in drawn}


def _note(lines: Sequence[Line], seeds: str = "", *more: str) -> str:
    """What all cells share, in short, and what the plot says.

    Args:
        seeds: how several seeds, {} of them, are drawn.
    """
    shared = {
        key: values.pop()
        for key in ("backbone", "crop_size", "num_classes", "num_videos", "device", "precision")
        if len(values := {line[key] for line in lines if line[key] is not None}) == 1
    }
    forms = {
        "crop_size": "crops of {} pixels",
        "num_classes": "{} classes",
        "num_videos": "{} videos",
    }
    said = ", ".join(forms.get(key, "{}").format(value) for key, value in shared.items())
    run = {len(row.known("top1")) for row in rows_of(lines)} - {0}
    most = max(run, default=0)
    drawn = seeds.format(most if len(run) == 1 else f"up to {most}") if most > 1 else ""
    return "; ".join(filter(None, [said, drawn, *more]))


def _bars(row: Row) -> list[list[float]] | None:
    """Below and above the mean, down to the lowest and up to the highest seed."""
    values, mean = row.known("top1"), row.mean("top1")
    if mean is None or len(values) < 2:
        return None
    # The mean of equal values may be rounded to just beside them.
    return [[max(0.0, mean - min(values))], [max(0.0, max(values) - mean)]]


def _against_frames(
    panel: Axes,
    rows: Sequence[Row],
    numbers: Sequence[int],
    styles: dict[str, Style],
    value: Callable[[Row], float | None],
    ranges: bool,
) -> None:
    """A line a variant, moved sideways a little so that bars and markers stand apart."""
    step = min(0.025, 0.25 / len(styles))  # octaves
    for place, (name, style) in enumerate(styles.items()):
        aside = 2 ** (step * (place - (len(styles) - 1) / 2))
        own = [(row, v) for row in rows if row.variant == name and (v := value(row)) is not None]
        panel.plot([row.frames * aside for row, _ in own], [v for _, v in own], **style.line())
        for row, v in own if ranges else []:
            bars = _bars(row)
            panel.errorbar(
                row.frames * aside, v, bars, fmt="none", ecolor=style.colour, capsize=2.5, lw=1.1
            )
    frames_axis(panel, numbers)


def _from_top(
    panel: Axes,
    rows: Sequence[Row],
    styles: dict[str, Style],
    value: Callable[[Row], float | None],
    ranges: bool,
) -> None:
    """A point a variant, its name at the left."""
    for place, row in enumerate(rows):
        v, style = value(row), styles[row.variant]
        if v is None:
            continue
        panel.plot([v], [place], **style.line(linestyle="none"))
        if ranges and (bars := _bars(row)):
            panel.errorbar(
                v, place, xerr=bars, fmt="none", ecolor=style.colour, capsize=2.5, lw=1.1
            )
    panel.set_yticks(range(len(rows)), [row.variant for row in rows])
    panel.set_ylim(len(rows) - 0.4, -0.6)


def _scatter(
    lines: Sequence[Line], title: str, key: str, scale: float, label: str, *, log: bool
) -> Figure | None:
    """Top-1 against a cost; a variant's points are joined in the order of their frames."""
    rows = [row for row in _with_accuracy(lines) if row.known(key)]
    if not rows:
        return None
    styles = _styles(lines, rows)
    numbers = sorted({row.frames for row in rows})
    several = len(numbers) > 1
    at = "" if several else f" at {numbers[0]} frames"
    beside = "beside the points: frames" if several else ""
    figure = new_figure(title + at, _note(lines, _RANGE, beside), (7.2, 4.8))
    panel = figure.subplots()
    tracks, every = [], []
    for name, style in styles.items():
        own = [row for row in rows if row.variant == name]
        across = [scale * (row.median(key) or 0) for row in own]
        up = [row.mean("top1") or 0 for row in own]
        panel.plot(across, up, **style.line(linewidth=0.9, alpha=0.95))
        for row, x, y in zip(own, across, up, strict=True):
            bars = _bars(row)
            panel.errorbar(x, y, bars, fmt="none", ecolor=style.colour, capsize=2.5, lw=1.1)
        seeds = [row.known("top1") for row in own]
        ends = [(min(values), max(values)) for values in seeds]
        texts = [str(row.frames) for row in own]
        tracks.append(Track(across, up, ends, texts, style.colour))
        every += across
    tidy(panel, label, TOP1)
    scaled(panel, "x", every, always_log=log)
    legend(figure, styles, lines=several)
    if several:
        number_points(panel, tracks)
    return figure


def _curve(row: Row, key: str) -> list[tuple[int, float]]:
    """Every known point (epoch, value) of every seed."""
    return [
        (point["epoch"], point[key])
        for cell in row.cells
        for point in cell["curve"] or ()
        if point[key] is not None
    ]


def _draw_curve(panel: Axes, row: Row, key: str, styles: dict[str, Style]) -> None:
    style = styles[row.variant]
    by_epoch: dict[int, list[float]] = {}
    for epoch, value in _curve(row, key):
        by_epoch.setdefault(epoch, []).append(value)
    epochs = sorted(by_epoch)
    means = [sum(by_epoch[epoch]) / len(by_epoch[epoch]) for epoch in epochs]
    if len(row.cells) > 1:
        for cell in row.cells:
            own = [(p["epoch"], p[key]) for p in cell["curve"] or () if p[key] is not None]
            panel.plot(
                [e for e, _ in own], [v for _, v in own], color=style.colour, lw=0.6, alpha=0.35
            )
    apart = max(1, len(epochs) // 5)
    first = list(styles).index(row.variant) % apart
    panel.plot(epochs, means, **style.line(markevery=(first, apart), linewidth=1.3, markersize=5))
