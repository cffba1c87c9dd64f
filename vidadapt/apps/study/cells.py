"""One cell of a matrix: train, evaluate, and make one line of what came out.

    <cell>/config.yaml   its settings, as vidadapt train takes them
    <cell>/run/          the training's run folder
    <cell>/eval/         metrics.json and scores.npz of the evaluation
    <cell>/output.txt    what both commands printed
    <cell>/cell.json     what its line of results.jsonl has beside the cost: the cell is finished

A cell of a grid over learning rates has a run alone unless its rate is chosen. A cell of all folds
of a cross-validation has an evaluation alone, joined from those of its folds; one of all tasks has
tasks.json alone.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidadapt.apps.study.benchmark import NOISY_PERCENT, spread_percent
from vidadapt.apps.study.cost import Machine
from vidadapt.apps.study.matrix import Cell
from vidadapt.apps.study.tool_calls import CellFailed, call_tool
from vidadapt.config import Config, ConfigError, plugins, yaml_files
from vidadapt.console import differing
from vidadapt.evaluation import in_percent
from vidadapt.files import write_json, write_text
from vidadapt.runs import all_settings

FINISHED = "cell.json"

# What only a trained cell knows, beside the metrics.
TRAINED = (
    *("seed", "num_videos", "unreadable", "views"),
    *("dev_top1", "best_epoch", "evaluation_seconds_per_video", "curve", "grid", "manifests"),
    *("run_epoch_seconds", "run_epoch_spread_percent", "environment", "config"),
    *("cross_validation", "tasks"),
)


@dataclass(frozen=True)
class Work:
    """The folder of the cells, and the processes that work on one.

    Attributes:
        folder: of all cells.
        processes: of a training run and of an evaluation.
        machine: that they compute on.
    """

    folder: Path
    processes: int
    machine: Machine

    def finished(self, cell: Cell) -> dict[str, Any] | None:
        """Read the result of a cell that an earlier call finished; None: there is none.

        Raises:
            ConfigError: it, or its begun training run, had other settings, another number of
                processes, of which the global batch is made, or another precision, which
                `train.precision: auto` chose there; naming what differs.
        """
        folder = self.folder / cell.name
        environment = folder / "run" / "environment.json"
        if environment.exists():
            there = json.loads(environment.read_text(encoding="utf-8"))
            before = there["processes"]
            if before != self.processes:
                raise ConfigError(
                    f"--processes: {folder} was trained by {before}, now asked for "
                    f"{self.processes}; ask for {before}, choose another --out, or delete that "
                    "folder"
                )
            here = self.machine.precision(cell.settings)
            before = there.get("precision", here)  # older runs do not say
            if before != here:
                raise ConfigError(
                    f"--out: {folder} was trained in {before}, and this machine trains in {here}; "
                    f"go on where train.precision auto is {before}, choose another --out, or "
                    "delete that folder"
                )
        written = folder / "config.yaml"
        if written.exists():
            before = all_settings(yaml_files.read_yaml(written, "--out"))
            changed = differing(before, all_settings(cell.settings))
            if changed:
                raise ConfigError(
                    f"--out: {folder} was made with other settings ({'; '.join(changed)}); "
                    "restore them, choose another --out, or delete that folder"
                )
        line = folder / FINISHED
        return json.loads(line.read_text(encoding="utf-8")) if line.exists() else None

    def work_on(self, cell: Cell, cfg: Config) -> dict[str, Any]:
        """Train and evaluate, and return the results. Where something fails, `problem` says what.

        Args:
            cfg: the cell's configuration; which seed, rate and lists it has does not matter.
        """
        folder = self.folder / cell.name
        found = {"cell": cell.name, "seed": cell.seed}
        try:
            summary = self._train(cell, cfg.train.epochs)
            tested = self._evaluate(cell, "dev" if cfg.data.test_list is None else "test")
        except CellFailed as error:
            return {**found, "problem": str(error)}
        log = (folder / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
        environment = (folder / "run" / "environment.json").read_text(encoding="utf-8")
        found |= {
            **_of_training(summary, [json.loads(text) for text in log]),
            **_of_evaluation(tested),
            "environment": json.loads(environment),
            "config": yaml_files.load(folder / "run" / "config.yaml"),
        }
        write_json(folder / FINISHED, found)
        return found

    def is_trained(self, cell: Cell) -> bool:
        """Check whether its training run has ended well."""
        return self._summary(cell).exists()

    def dev_accuracy(self, cell: Cell) -> float:
        """Train, and return the accuracy of the best epoch on the development list.

        It is that of `train.select`, in per cent; 0 where the loss diverged.

        Raises:
            CellFailed: training ended with another error, which says nothing about the rate.
        """
        self.finished(cell)
        try:
            summary = self._train(cell, None)
        except CellFailed as error:
            if error.kind != "diverged":
                raise
            print(f"{cell.name}: {error}", flush=True)
            return 0.0
        # A run of an older version has selected by top-1.
        return float(summary["best"][f"dev_{summary.get('select', 'top1')}"])

    def _train(self, cell: Cell, epochs: int | None) -> dict[str, Any]:
        folder, summary = self.folder / cell.name, self._summary(cell)
        if not summary.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / "config.yaml", yaml_files.as_yaml(cell.settings))
            words = ["--config", folder / "config.yaml", "--run_dir", folder / "run", "--resume"]
            call_tool("train", words, self.processes, folder, folder / "run", epochs)
        return json.loads(summary.read_text(encoding="utf-8"))

    def _evaluate(self, cell: Cell, split: str) -> dict[str, Any]:
        folder = self.folder / cell.name
        metrics = folder / "eval" / "metrics.json"
        if not metrics.exists():
            words = ["--run_dir", folder / "run", "--split", split, "--out", metrics.parent]
            if named := cell.settings.get("plugins"):
                words += [plugins.OPTION, ",".join(named)]
            call_tool("evaluate", words, self.processes, folder, metrics.parent)
        return json.loads(metrics.read_text(encoding="utf-8"))

    def _summary(self, cell: Cell) -> Path:
        return self.folder / cell.name / "run" / "summary.json"


def cost_line(variant: str, frames: int, cost: Mapping[str, Any], processes: int) -> dict[str, Any]:
    """The line of a cost alone: `cost.cell_cost` with every other key null."""
    return {
        "cell": f"{variant}_{frames}f",
        "variant": variant,
        "processes": processes,
        **dict.fromkeys((*TRAINED, *in_percent())),
        **cost,
        "problem": None,
    }


def whole_line(cost: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's line: its results, and the cost of its variant and number of frames.

    Args:
        cost: of `cost_line`.
        found: of `Work.work_on`.
    """
    line = {**cost, **found}
    spreads = ("step_spread_percent", "data_spread_percent", "run_epoch_spread_percent")
    return line | {"noisy": [key for key in spreads if (line[key] or 0) > NOISY_PERCENT]}


def chosen_by(cell: Cell, grid: Mapping[float, float] | None) -> dict[str, Any]:
    """The keys of a line about the grid that chose the cell's rate; none without a grid.

    Args:
        grid: accuracy on the development list by rate, that of `train.select`.
    """
    if grid is None:
        return {}
    return {
        "grid": {f"{rate:g}": found for rate, found in grid.items()},
        "base_lr": cell.base_lr,
    }


def _of_training(summary: Mapping[str, Any], log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    seconds = [entry["train_seconds"] for entry in log[len(log) > 1 :]]  # the first warms up
    best = summary["best"] or {}
    alone = summary.get("side_by_side", 1) == 1  # else the times are those of several runs
    return {
        "epochs": summary["epochs"],
        "manifests": summary["manifests"],
        "trainable": summary["trainable"],
        "total": summary["total"],
        "dev_top1": best.get("dev_top1"),
        "best_epoch": best.get("epoch"),
        "run_epoch_seconds": statistics.median(seconds) if alone else None,
        "run_epoch_spread_percent": spread_percent(seconds) if alone else None,
        "curve": [
            {
                "epoch": entry["epoch"],
                "loss": entry["train_loss"],
                "dev_top1": entry.get("dev_top1"),
            }
            for entry in log
        ],
    }


def _of_evaluation(tested: Mapping[str, Any]) -> dict[str, Any]:
    keys = (*in_percent(), "num_videos", "views")
    return {
        **{key: tested[key] for key in keys},
        "unreadable": len(tested["unreadable"]),
        "evaluation_seconds_per_video": tested["seconds_per_video"],
    }
