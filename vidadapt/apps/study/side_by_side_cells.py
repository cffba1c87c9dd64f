"""Cells that differ in their learning rate alone, trained in one call where their method can."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vidadapt import data, runs, training
from vidadapt.apps.study.cells import Work
from vidadapt.apps.study.matrix import Cell
from vidadapt.apps.study.tool_calls import CellFailed, call_tool
from vidadapt.config import Config, ConfigError, GridOptions, yaml_files
from vidadapt.features import NothingFrozen, cut_in_two
from vidadapt.files import write_text


def can_train_side_by_side(cfg: Config, rates: Sequence[float], processes: int) -> bool:
    """Check whether runs of these rates can be a grid, see `vidadapt train --grid.base_lr`."""
    try:
        training.check_grid(cfg, GridOptions(base_lr=list(rates)), processes)
        plan = data.resolve(cfg.data, cfg.eval)
        model, _, _ = runs.adapted_model(cfg, plan, load_backbone=False)
        cut_in_two(model, cfg.method["name"])
    except (ConfigError, NothingFrozen):
        return False
    return True


def train_side_by_side(work: Work, cells: Sequence[Cell], cfg: Config) -> set[Cell]:
    """Train the cells of which nothing is there yet; each gets the run folder that it has alone.

    A grid that was interrupted goes on. What is not trained here is left to be trained alone.

    Args:
        cells: of one variant, number of frames and seed.
        cfg: configuration of one of them.

    Returns:
        The cells of which it is known now that they diverge.

    Raises:
        CellFailed: training ended with an error that is about no single rate.
    """
    left = [cell for cell in cells if not (work.folder / cell.name / "run").exists()]
    rates = [cell.base_lr for cell in left if cell.base_lr is not None]
    if not left:
        return set()
    first = replace(left[0], base_lr=None)
    folder = work.folder / f"{first.name}_grid"
    if len(left) < 2 and not folder.exists():
        return set()
    if not can_train_side_by_side(cfg, rates, work.processes):
        return set()
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", yaml_files.as_yaml(left[0].settings))
    root = folder / "run"
    words = ["--config", folder / "config.yaml", "--run_dir", root, "--resume"]
    words += ["--grid.base_lr", json.dumps(rates)]
    try:
        call_tool("train", words, work.processes, folder, root)
    except CellFailed as error:
        if error.kind != "diverged":
            raise
    grid = training.read_grid(root)
    assert grid is not None
    ended = {one["base_lr"]: one for one in grid["runs"]}
    for cell in left:
        _move(root / ended[cell.base_lr]["run"], folder, work.folder / cell.name, cell)
    if not any(path.is_dir() for path in root.iterdir()):
        shutil.rmtree(folder)
    return {cell for cell in left if ended[cell.base_lr]["diverged"] is not None}


def _move(run: Path, folder: Path, to: Path, cell: Cell) -> None:
    """Move a run of the grid into its cell, whose files are as if it had been trained there."""
    to.mkdir(parents=True, exist_ok=True)
    write_text(to / "config.yaml", yaml_files.as_yaml(cell.settings))
    with (to / "output.txt").open("ab") as file:
        file.write((folder / "output.txt").read_bytes())
    content = yaml_files.read_yaml(run / "config.yaml", "run_dir")
    write_text(run / "config.yaml", yaml_files.as_yaml({**content, "run_dir": str(to / "run")}))
    run.rename(to / "run")
