"""Join the cells of all folds of a cross-validation into one, which has a line in the results."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from vidadapt.apps.study.cells import Work
from vidadapt.apps.study.matrix import Cell
from vidadapt.config import Config
from vidadapt.evaluation import in_percent
from vidadapt.files import write_json
from vidadapt.serving import join_scores

OF_A_FOLD = ("top1", "num_videos", "dev_top1", "best_epoch", "base_lr", "grid")


def cell_of_folds(
    work: Work,
    whole: Cell,
    cfg: Config,
    folds: Path,
    found: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the result of all folds as `Work.work_on` returns that of one.

    Its accuracies are exact: every video of the cross-validation once. Other figures are means over
    the folds; environment and config are those of the first.

    Args:
        cfg: of any fold.
        folds: folder that vidadapt prepare --folds wrote.
        found: of `work_on` and `chosen_by`, by fold.
    """
    line = {"cell": whole.name, "seed": whole.seed}
    if problem := problem_of(found):
        return {**line, "problem": problem}
    out = work.folder / whole.name / "eval"
    out.mkdir(parents=True, exist_ok=True)
    files = [work.folder / one["cell"] / "eval" / "scores.npz" for one in found.values()]
    tested = join_scores(folds, files, cfg.eval.fusion, out)
    write_json(out / "metrics.json", tested)
    first = next(iter(found.values()))
    keys = ("mean_over_folds", "std_over_folds", "interval", "by_group")
    return {
        **same_in_all(found.values()),
        **means(found.values()),
        **line,
        **{key: tested[key] for key in (*in_percent(), "num_videos", "views")},
        "unreadable": len(tested["unreadable"]),
        "manifests": {"test": tested["manifest"]},
        "cross_validation": {
            **{key: tested[key] for key in keys},
            "folds": {
                name: {key: one.get(key) for key in OF_A_FOLD} for name, one in found.items()
            },
        },
        "environment": first["environment"],
        "config": first["config"],
    }


def problem_of(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Say what failed in which part; empty: nothing did."""
    failed = {name: one["problem"] for name, one in found.items() if one.get("problem")}
    return "; ".join(f"{name}: {why}" for name, why in failed.items())


def same_in_all(found: Collection[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is the same in all parts, and None of the rest."""
    first, *others = found
    return {
        key: value if all(one.get(key) == value for one in others) else None
        for key, value in first.items()
    }


def means(found: Collection[Mapping[str, Any]]) -> dict[str, Any]:
    """Return means over the parts of what is a figure of each."""
    figures = ("dev_top1", "evaluation_seconds_per_video", "run_epoch_seconds")
    of_all = {key: [one[key] for one in found] for key in (*figures, "curve")}
    own: dict[str, Any] = {key: mean(of_all[key]) for key in figures}
    spreads = [one["run_epoch_spread_percent"] for one in found]
    known = [spread for spread in spreads if spread is not None]  # runs side by side have none
    own["run_epoch_spread_percent"] = max(known) if len(known) == len(spreads) else None
    own["curve"] = [
        {key: mean([point[key] for point in points]) for key in ("epoch", "loss", "dev_top1")}
        for points in zip(*of_all["curve"], strict=False)  # early stopping may end one sooner
    ]
    if all(one.get("grid") for one in found):
        grids = [one["grid"] for one in found]
        own["grid"] = {rate: mean([grid[rate] for grid in grids]) for rate in grids[0]}
    return own


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; None where one is not known."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None
