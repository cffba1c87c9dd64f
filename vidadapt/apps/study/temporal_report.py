"""The results of `temporal.sensitivity` as Markdown and as a picture, from the JSON alone."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from vidadapt.apps.report import markdown_table
from vidadapt.apps.report.figures import named, new_figure, write_figure
from vidadapt.apps.study.temporal import ALPHA, CHANGED, ORDERS, RULES, lost, p_words
from vidadapt.evaluation import in_percent

TITLES = {
    "in_order": "in order",
    "reversed": "reversed",
    "shuffled": "shuffled",
    "one_frame": "one frame",
}
MOST_CLASSES = 40  # of more, those that lose most and least are drawn, half of each
# Told apart by shape; drawn in this order, from wide and open to small, so that marks at one place
# are all seen. Colours of Okabe and Ito.
MARKS: dict[str, dict[str, Any]] = {
    "one_frame": {"marker": "s", "markersize": 9, "color": "#5a5a5a", "markerfacecolor": "#e4e4e4"},
    "in_order": {"marker": "o", "markersize": 7, "color": "black"},
    "reversed": {"marker": "<", "markersize": 7, "color": "#d55e00", "markerfacecolor": "none"},
    "shuffled": {"marker": "x", "markersize": 5, "color": "#0072b2", "markeredgewidth": 1.8},
}
PANELS_A_ROW = 5


def markdown(report: dict[str, Any]) -> str:
    """The report of vidadapt temporal as text: verdicts, accuracies, classes, rules."""
    models = report["models"]
    parts = ["# Temporal sensitivity", _about(report), *map(_safe, report["verdicts"])]
    parts += ["## Accuracy in four orders of the frames", _overall(models)]
    for model in models:
        parts += [f"## Classes: {_safe(model['name'])}", _CLASSES, _classes(model)]
    if len(models) > 1:
        parts += ["## What the order is worth, by class", _SIDE_BY_SIDE, _side_by_side(models)]
    parts += ["## How to read this", *RULES]
    for model in models:
        if model["unreadable"]:
            listed = [_safe(f"- {e['path']}: {e['error']}") for e in model["unreadable"]]
            title = f"## Unreadable, counted as wrong in every order: {_safe(model['name'])}"
            parts += [title, "\n".join(listed)]
    return "\n\n".join(parts) + "\n"


_CLASSES = (
    "Top-1 in per cent of the class's videos. Lost: points from in order to the worse of reversed "
    "and shuffled, by which the classes are sorted. A star marks a difference from in order that "
    "is more than chance."
)
_SIDE_BY_SIDE = (
    "Points of top-1 lost from in order to the worse of reversed and shuffled; a star where one of "
    "the two is more than chance. Sorted by the mean over the models."
)


def _about(report: dict[str, Any]) -> str:
    models = report["models"]
    frames = sorted({model["num_frames"] for model in models})
    views = sorted({model["views"] for model in models})
    return (
        f"{models[0]['num_videos']} videos of {report['list']}, {' or '.join(views)} of "
        f"{' or '.join(map(str, frames))} frames; seed {report['seed']}."
    )


def _overall(models: Sequence[dict[str, Any]]) -> str:
    rows = []
    for model in models:
        for order in ORDERS:
            one = model["orders"][order]
            cells = [f"{one[key]:.2f}" for key in in_percent()]
            if order in CHANGED:
                paired = model["paired"][order]
                cells += [
                    f"{model['differences'][order]['top1']:+.2f}",
                    str(paired["right_to_wrong"]),
                    str(paired["wrong_to_right"]),
                    p_words(paired["p_holm"]),
                    f"{100 * paired['other_prediction'] / model['num_videos']:.1f} %",
                ]
            else:
                cells += [""] * 5
            rows.append([f"{_safe(model['name'])}, {TITLES[order]}", *cells])
    titles = [metric.title for metric in in_percent().values()]
    headings = ["frames", *titles, "top-1 against in order"]
    headings += ["right to wrong", "wrong to right", "sign test, Holm", "predicted otherwise"]
    return markdown_table(headings, rows)


def _classes(model: dict[str, Any]) -> str:
    headings = ["class", "videos", *TITLES.values(), "lost", "reversed, most taken for"]
    rows = []
    for one in model["classes"]:
        stars = {o: "*" for o in CHANGED if one["paired"][o]["p_holm"] < ALPHA}
        top1 = [f"{one['top1'][order]:.1f}{stars.get(order, '')}" for order in ORDERS]
        other = one["reversed_as"]
        as_what = "" if other is None else f"{_safe(other['name'])} ({other['share']:.0f} %)"
        rows.append(
            [_safe(one["name"]), str(one["num_videos"]), *top1, f"{one['lost']:.1f}", as_what]
        )
    return markdown_table(headings, rows)


def _side_by_side(models: Sequence[dict[str, Any]]) -> str:
    rows = []
    found = [{one["label"]: one for one in model["classes"]} for model in models]
    for label in class_order(models):
        cells = [_safe(found[0][label]["name"]), str(found[0][label]["num_videos"])]
        for by_label in found:
            one = by_label[label]
            star = lost(one["paired"]["reversed"], one["paired"]["shuffled"])
            cells.append(f"{one['lost']:.1f}{'*' if star else ''}")
        rows.append(cells)
    return markdown_table(["class", "videos", *(_safe(model["name"]) for model in models)], rows)


def _safe(text: str) -> str:
    """Text that Markdown shows as it is, where it would see a column's end or a tag."""
    return re.sub(r"\||<(?=[A-Za-z/!?])", r"\\\g<0>", text)


def class_order(models: Sequence[dict[str, Any]]) -> list[int]:
    """Labels by the points lost when reversed or shuffled, mean over the models, most first."""
    sums: dict[int, float] = {}
    for model in models:
        for one in model["classes"]:
            sums[one["label"]] = sums.get(one["label"], 0.0) + one["lost"]
    return sorted(sums, key=lambda label: (-sums[label], label))


def write_pictures(report: dict[str, Any], folder: Path) -> list[Path]:
    """temporal.png and temporal.svg in a folder: for each class the top-1 in the four orders.

    One panel a model, named by its method where no two have the same. Of more than `MOST_CLASSES`
    classes, those that lose most and those that lose least are drawn, and it says so.
    """
    models = report["models"]
    labels = class_order(models)
    hidden = max(0, len(labels) - MOST_CLASSES)
    half = MOST_CLASSES // 2
    shown = labels if not hidden else labels[:half] + labels[-half:]
    panel_rows = -(-len(models) // PANELS_A_ROW)
    columns = -(-len(models) // panel_rows)
    names = {one["label"]: one["name"] for one in models[0]["classes"]}
    methods = [model.get("method", model["name"]) for model in models]
    distinct = len(set(methods)) == len(methods)
    titles = methods if distinct else [model["name"] for model in models]
    ticks = [f"all {len(labels)} classes", *(textwrap.fill(names[label], 46) for label in shown)]
    places = [0.0, *(1.4 + i + (0.8 if hidden and i >= half else 0) for i in range(len(shown)))]
    height = 0.3 * (places[-1] + 1) + 0.6
    figure = new_figure((4.0 + 2.7 * columns, height * panel_rows + 1.3))
    panels = figure.subplots(panel_rows, columns, sharex=True, sharey=True, squeeze=False)
    for number, panel in enumerate(panels.flat):
        if number < len(models):
            _panel(panel, models[number], shown, places)
            [title], style = named([textwrap.fill(titles[number], 34)])
            panel.set_title(title, fontsize=10, **style)
        else:
            panel.set_axis_off()
    ticks, style = named(ticks)
    for row in panels:
        row[0].set_yticks(places, ticks, fontsize=8, **style)
        row[0].set_ylim(places[-1] + 0.7, -0.7)
    if hidden:
        for panel in panels.flat[: len(models)]:
            panel.axhline((places[half] + places[half + 1]) / 2, color="0.6", dashes=(1, 2))
    drawn = dict(zip(*panels.flat[0].get_legend_handles_labels()[::-1], strict=True))
    order = [*TITLES.values(), "chance"]
    figure.legend(
        [drawn[title] for title in order],
        ["frames in order", "reversed", "shuffled", "one frame, repeated", "chance"],
        loc="outside upper center",
        ncols=5,
        frameon=False,
    )
    said = f" The {half} that lose most and the {half} that lose least of {len(labels)}."
    figure.supxlabel(
        "videos of the class that are recognised (top-1, %)\nOn top the classes that lose most "
        f"when their frames are reversed or shuffled.{said if hidden else ''}",
        fontsize=9,
    )
    return write_figure(figure, folder / "temporal.png", folder / "temporal.svg")


def _panel(
    panel: Axes, model: dict[str, Any], shown: Sequence[int], places: Sequence[float]
) -> None:
    found = {one["label"]: one["top1"] for one in model["classes"]}
    overall = {order: model["orders"][order]["top1"] for order in ORDERS}
    rows = [overall, *(found[label] for label in shown)]
    ends = [min(row.values()) for row in rows], [max(row.values()) for row in rows]
    panel.hlines(places, *ends, color="0.75", linewidth=1.5, zorder=1)
    for order, look in MARKS.items():
        values = [row[order] for row in rows]
        panel.plot(values, places, linestyle="", label=TITLES[order], clip_on=False, **look)
    chance = 100 / len(model["orders"]["in_order"]["per_class"])
    panel.axvline(chance, color="0.4", linewidth=1, linestyle=":", label="chance", zorder=0)
    panel.set_xlim(0, 100)
    panel.grid(axis="x", color="0.92", zorder=0)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8, labelbottom=True)
