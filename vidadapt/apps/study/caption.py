"""Texts beside a table of results: what all cells share, and remarks for its readers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from vidadapt.apps.study.benchmark import NOISY_PERCENT
from vidadapt.apps.study.results import Line
from vidadapt.apps.study.rows import cells_of, distinct, rows_of

# What cells usually share, as said of one and of several, and as a column's heading if they do not.
SHARED = {
    "backbone": ("{}", "{}", "backbone"),
    "crop_size": ("crops of {0} x {0} pixels", "crops of {0} x {0} pixels", "crop"),
    "num_classes": ("{} class", "{} classes", "classes"),
    "num_videos": ("{} video evaluated", "{} videos evaluated", "videos"),
    "views": ("{}", "{}", "views"),
    "device": ("{}", "{}", "device"),
    "precision": ("{}", "{}", "precision"),
    "processes": ("{} process", "{} processes", "processes"),
    "threads": ("{} thread", "{} threads", "threads"),
    "batch_size": ("batches of {} clip", "batches of {} clips", "batch"),
    "epochs": ("{} epoch", "{} epochs", "epochs"),
    "base_lr": ("base_lr {}", "base_lr {}", "base_lr"),
}
OTHER_SOFTWARE = ("python", "platform", "git_commit")


def caption(lines: Sequence[Line]) -> str:
    """Say what every cell shares, and what of that differs and therefore has a column.

    What no cell knows is left out.
    """
    same = [
        (one if values[0] == 1 else several).format(values[0])
        for key, (one, several, _) in SHARED.items()
        if len(values := distinct(lines, key)) == 1
    ]
    text = "; ".join(same) + "." if same else ""
    differing = [SHARED[key][-1] for key in differing_keys(lines)]
    if differing:
        text += f" Not the same in all cells, so each has a column: {', '.join(differing)}."
    return text.strip()


def differing_keys(lines: Sequence[Line]) -> list[str]:
    """Keys of `SHARED` with several values."""
    return [key for key in SHARED if len(distinct(lines, key)) > 1]


def remarks(lines: Sequence[Line]) -> list[str]:
    """List what a reader must know before using the figures, a paragraph each."""
    said = [*_unfinished(lines), *_unequal(lines)]
    if any(line["manifests"] and "test" not in line["manifests"] for line in lines):
        said.append(
            "Without a test list, accuracies are of the development list, which chose the best "
            "epoch: they are too good."
        )
    rates = sorted({float(rate) for line in lines for rate in line["grid"] or ()})
    if len(rates) > 1:
        tried = ", ".join(f"{rate:g}" for rate in rates)
        said.append(f"base_lr: of {tried}, the best on the development list at one seed.")
    recipes = [(line["config"] or {}).get("train") or {} for line in lines]
    if any(recipe.get("select") == "mean_class_accuracy" for recipe in recipes):
        said.append(
            "Epochs and base_lr are chosen by the mean class accuracy on the development list "
            "where train.select asks for it."
        )
    unreadable = max((line["unreadable"] or 0 for line in lines), default=0)
    if unreadable:
        said.append(f"Up to {unreadable} videos could not be read; they count as wrong.")
    noisy = [any(own) for _, own in rows_of(lines)["noisy"]]
    if any(noisy):
        said.append(
            f"† in {sum(noisy)} of {len(noisy)} rows: a timing spreads by more than "
            f"{NOISY_PERCENT} %, (slowest - fastest) / median; something else may have used the "
            "machine."
        )
    failed = [line for line in lines if line["problem"]]
    if failed:
        listed = [f"- {line['cell']}: {' '.join(line['problem'].split())}" for line in failed]
        said.append("\n".join([f"Failed cells ({len(failed)}):", "", *listed]))
    return said


def _unfinished(lines: Sequence[Line]) -> list[str]:
    """Say how many of variants x frames x seeds are missing, and which rows lack some."""
    seeds = len(distinct(lines, "seed"))
    if not seeds:
        return []
    cells = cells_of(lines)
    places: list[Any] = [sorted(cells["frames"].unique()), cells["variant"].cat.categories]
    rows = cells[cells["top1"].notna()].groupby(["frames", "variant"], observed=True)
    done = rows["seed"].nunique().reindex(pd.MultiIndex.from_product(places), fill_value=0)
    total, finished = len(done) * seeds, done.sum()
    if finished == total:
        return []
    failed = sum(1 for line in lines if line["problem"])
    lacking = [f"{variant} at {frames} frames" for frames, variant in done.index[done < seeds]]
    return [
        f"{finished} of {total} cells have accuracies: {failed} failed, "
        f"{total - finished - failed} not run. Without all of {seeds} seeds: {', '.join(lacking)}."
    ]


def _unequal(lines: Sequence[Line]) -> list[str]:
    """Lists or software that differ between cells, whose accuracies are then no fair comparison."""
    said = []
    contents = {
        json.dumps(line["manifests"], sort_keys=True) for line in lines if line["manifests"]
    }
    if len(contents) > 1:
        said.append("The video lists are not the same in all cells (`manifests` in results.jsonl).")
    environments = [line["environment"] or {} for line in lines]
    software = pd.DataFrame(
        {**(one.get("packages") or {}), **{key: one.get(key) for key in OTHER_SOFTWARE}}
        for one in environments
    )
    found = {key: sorted(software[key].dropna().unique()) for key in software}
    several = [f"{key}: {', '.join(values)}" for key, values in found.items() if len(values) > 1]
    if several:
        said.append(f"The cells were not all made with the same software: {'; '.join(several)}.")
    return said
