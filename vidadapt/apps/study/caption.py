"""What must be said beside a table of results: what all cells share, and what is to be minded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from vidadapt.apps.study.benchmark import NOISY_PERCENT
from vidadapt.apps.study.results import Line
from vidadapt.apps.study.rows import frames_of, rows_of, seeds_of, variants_of

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


def caption(lines: Sequence[Line]) -> str:
    """What every cell shares, and what of that differs and therefore has a column.

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


def distinct(lines: Iterable[Line], key: str) -> list[object]:
    """The known values under a key, each once, in their order."""
    return list(dict.fromkeys(line[key] for line in lines if line[key] is not None))


def differing_keys(lines: Sequence[Line]) -> list[str]:
    """Keys of `SHARED` with several values."""
    return [key for key in SHARED if len(distinct(lines, key)) > 1]


def remarks(lines: Sequence[Line]) -> list[str]:
    """What a reader must know before using the figures; one a paragraph."""
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
    unreadable = max((line["unreadable"] or 0 for line in lines), default=0)
    if unreadable:
        said.append(f"Up to {unreadable} videos could not be read; they count as wrong.")
    noisy = sum(1 for row in rows_of(lines) if any(cell["noisy"] for cell in row.cells))
    if noisy:
        said.append(
            f"† in {noisy} of {len(rows_of(lines))} rows: a timing spreads by more than "
            f"{NOISY_PERCENT} %, (slowest - fastest) / median; something else may have used the "
            "machine."
        )
    failed = [line for line in lines if line["problem"]]
    if failed:
        listed = [f"- {line['cell']}: {' '.join(line['problem'].split())}" for line in failed]
        said.append("\n".join([f"Failed cells ({len(failed)}):", "", *listed]))
    return said


def _unfinished(lines: Sequence[Line]) -> list[str]:
    """How many of variants x frames x seeds are not there."""
    seeds = seeds_of(lines)
    if not seeds:
        return []
    finished = {
        (line["variant"], line["frames"], line["seed"])
        for line in lines
        if line["top1"] is not None
    }
    places = [(v, t) for t in frames_of(lines) for v in variants_of(lines)]
    lacking = [place for place in places if any((*place, seed) not in finished for seed in seeds)]
    if not lacking:
        return []
    total, done = len(places) * len(seeds), len(finished)
    failed = sum(1 for line in lines if line["problem"])
    names = ", ".join(f"{variant} at {frames} frames" for variant, frames in lacking)
    return [
        f"{done} of {total} cells have accuracies: {failed} failed, {total - done - failed} "
        f"not run. Without all of {len(seeds)} seeds: {names}."
    ]


def _unequal(lines: Sequence[Line]) -> list[str]:
    """Lists or software that differ between cells, whose accuracies are then no fair comparison."""
    said = []
    contents = {
        json.dumps(line["manifests"], sort_keys=True) for line in lines if line["manifests"]
    }
    if len(contents) > 1:
        said.append("The video lists are not the same in all cells (`manifests` in results.jsonl).")
    found: dict[str, set[str]] = {}
    for line in lines:
        environment = line["environment"] or {}
        about = {**(environment.get("packages") or {}), "python": environment.get("python")}
        about |= {key: environment.get(key) for key in ("platform", "git_commit")}
        for key, value in about.items():
            if value is not None:
                found.setdefault(key, set()).add(value)
    several = [f"{key}: {', '.join(sorted(v))}" for key, v in found.items() if len(v) > 1]
    if several:
        said.append(f"The cells were not all made with the same software: {'; '.join(several)}.")
    return said
