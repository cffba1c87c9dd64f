"""A probe that has converged, beside the trained one of the study on real actions.

    docs/real_actions/commands.sh REAL probe

The study trains its linear probe as every other method: 15 epochs of a few steps. Is it behind
because a frozen backbone knows no more, or because so few steps do not teach it? Here a logistic
regression (scikit-learn's, L2) is brought to its optimum on the same frozen features, of the same
clips, the mean over a video's views, standardised by the fold's training videos. The folds are the
study's; C is one of `STRENGTHS`, the best on the fold's development list, of equal ones the
smallest. This check was added after the first results, so it has no part in the claims.

    python -m benchmarks.real_probe docs/real_actions --lists LISTS --features FEATURES

LISTS holds a folder of folds for each set, FEATURES what `vidadapt features --pool mean --format
safetensors` wrote, as SET_MODE_FRAMES: weizmann_inflate_8. Writes probe.json and probe.md.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.real_claims import SETS
from vidadapt.apps.report import markdown_table
from vidadapt.apps.study.folds import counts_of, paired
from vidadapt.apps.study.results import read_results
from vidadapt.evaluation.folds import interval, pooled
from vidadapt.files import write_json, write_text
from vidadapt.lists.folds import fold_names, group_numbers, read_folds
from vidadapt.lists.prepared import read_prepared
from vidadapt.lists.reading import read_label_names, read_list

MODES, FRAMES = ("inflate", "frames"), (2, 4, 8)
STRENGTHS = (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
TRAINED = ("linear", "adaptformer")  # variants that the probe is compared with
HEADINGS = ("set", "mode", "frames", "top-1 %", "95 % interval", *(f"minus {v}" for v in TRAINED))
TEXT = """# A linear probe that has converged

Written by `docs/real_actions/commands.sh REAL probe`: logistic regression on the frozen features of
the same clips and folds, with C from {} by each fold's development list. `inflate`: attention over
the frames together; `frames`: each frame alone, averaged. The last columns: points more than the
trained variants (inflated, at the same number of frames) with a bootstrap interval over groups;
those that have several seeds count with all of them.

"""


def features_of(folder: Path) -> dict[str, np.ndarray]:
    """Read path -> features (D,) float64, the mean over a video's views."""
    table = load_file(folder / "features.safetensors")
    with (folder / "videos.csv").open(newline="", encoding="utf-8") as file:
        names = [row["path"] for row in csv.DictReader(file)]
    rows = table["features"].astype(np.float64)
    return {name: rows[table["video"] == place].mean(0) for place, name in enumerate(names)}


def probed(
    features: Mapping[str, np.ndarray], lists: Mapping[str, Sequence[tuple[str, int]]]
) -> tuple[float, dict[str, bool]]:
    """Choose C on the development list; return it, and path -> right of the test list.

    Args:
        lists: `train`, `dev` and `test`: path, label.
    """
    values = {name: np.stack([features[path] for path, _ in own]) for name, own in lists.items()}
    labels = {name: np.array([label for _, label in own]) for name, own in lists.items()}
    probes = {}
    for strength in STRENGTHS:
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000))
        probes[strength] = probe.fit(values["train"], labels["train"])
    scores = {key: probe.score(values["dev"], labels["dev"]) for key, probe in probes.items()}
    best = max(STRENGTHS, key=lambda strength: scores[strength])
    right = probes[best].predict(values["test"]) == labels["test"]
    return best, {path: bool(ok) for (path, _), ok in zip(lists["test"], right, strict=True)}


def read_lists(fold: Path) -> dict[str, list[tuple[str, int]]]:
    """Read path and label of the three lists of a prepared folder."""
    prepared = read_prepared(fold)
    classes = len(read_label_names(fold / str(prepared.label_names)))
    lists = {
        name: read_list(fold / file, prepared.root, classes)
        for name, file in prepared.lists.items()
    }
    return {
        name: list(zip(own.paths(), own.labels.tolist(), strict=True))
        for name, own in lists.items()
    }


def cross_validated(features: Mapping[str, np.ndarray], folds: Path) -> dict[str, Any]:
    """Probe every fold: `by_group`, as the study's results have it, and C by fold."""
    videos = read_folds(folds)
    numbers = group_numbers(videos)
    by_group: dict[str, list[int]] = {}
    chosen = {}
    for name in fold_names(videos):
        chosen[name], right = probed(features, read_lists(folds / name))
        for path, ok in right.items():
            counts = by_group.setdefault(str(numbers[path]), [0, 0])
            counts[0] += ok
            counts[1] += 1
    return {"by_group": by_group, "C": chosen}


def compared(found: Mapping[str, Any], of_variant: Mapping[int, Any]) -> str:
    """Say the difference of the probe to all seeds of a variant; empty: it was not run."""
    said = paired(dict.fromkeys(of_variant, found["by_group"]), of_variant)
    return "" if said is None else f"{said.points:+.1f} ({said.low:+.1f} to {said.high:+.1f})"


def main(argv: Sequence[str] | None = None) -> None:
    """Write probe.json and probe.md of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lists", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True)
    args = parser.parse_args(argv)
    found, rows = {}, []
    for name in SETS:
        results = args.folder / name / "results.jsonl"
        trained = counts_of(read_results(results)) if results.exists() else {}
        for mode, frames in product(MODES, FRAMES):
            key = f"{name}_{mode}_{frames}"
            one = cross_validated(features_of(args.features / key), args.lists / name)
            _, correct, videos = pooled([one["by_group"]])
            one["top1"] = 100 * int(correct.sum()) / int(videos.sum())
            one["interval"] = interval(correct, videos)
            found[key] = one
            low, high = one["interval"]
            differences = (compared(one, trained.get((frames, each), {})) for each in TRAINED)
            about = (f"{one['top1']:.1f}", f"{low:.1f} to {high:.1f}")
            rows.append((name, mode, str(frames), *about, *differences))
            print(*rows[-1], flush=True)
    write_json(args.folder / "probe.json", found)
    strengths = ", ".join(f"{strength:g}" for strength in STRENGTHS)
    table = markdown_table(HEADINGS, rows)
    write_text(args.folder / "probe.md", TEXT.format(strengths) + table + "\n")


if __name__ == "__main__":
    main()
