"""Check that a matrix is possible, before anything is measured or trained."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidadapt import config, data, methods
from vidadapt.apps.study import cells, cost
from vidadapt.apps.study.matrix import Cell, Matrix
from vidadapt.apps.study.matrix_options import MatrixOptions
from vidadapt.config import Config, ConfigError, parse_train, yaml_files
from vidadapt.lists import with_lists


def checked(matrix: Matrix, asked: MatrixOptions) -> dict[tuple[str, int], Config]:
    """The configuration of every variant and number of frames, at the first part; all are possible.

    Raises:
        ConfigError: one that is not, naming its variant; nothing was trained then.
    """
    found = {}
    for name in matrix.variants:
        for frames in asked.all_frames:
            try:
                cell = matrix.cell(name, frames, asked.seeds[0])
                of_parts = configurations(cell, [*matrix.parts.values()])
                for cfg in of_parts:
                    _check_possible(cfg, asked)
                for cfg in configurations(cell, [*matrix.finals.values()]) if matrix.finals else ():
                    config.check(cfg, asked.processes)
                    _check_lists(cfg)
                cost.counts(of_parts[0])
            except ValueError as error:
                raise ConfigError(f"{name} at {frames} frames: {error}") from error
            found[name, frames] = of_parts[0]
    return found


def _check_possible(cfg: Config, asked: MatrixOptions) -> None:
    for rate in asked.rates or [cfg.train.base_lr]:
        config.check(replace(cfg, train=replace(cfg.train, base_lr=rate)), asked.processes)
    _check_lists(cfg)
    if not asked.cost_only and not cfg.model.weights:
        raise ConfigError(
            "model.weights: is not set; give a file, `random` to train without pre-trained "
            "weights, or ask for --cost_only"
        )
    if asked.rates and cfg.data.dev_list is None:
        raise ConfigError("data.dev_list: --rates chooses by it; give one")


def _check_lists(cfg: Config) -> None:
    for split in ("train", "dev", "test"):
        path = getattr(cfg.data, f"{split}_list")
        if path is not None and not Path(path).is_file():
            raise ConfigError(f"data.{split}_list: {path}: no such file")
    data.require_one_label(cfg.data, "vidadapt bench_frames")
    if cfg.data.test_list is None and cfg.data.dev_list is None:
        raise ConfigError("data.test_list: is not set; nothing could be evaluated")


def configurations(cell: Cell, lists: Sequence[str]) -> list[Config]:
    """The cell's settings with each folder of lists, as vidadapt train would read them.

    Without any, it is the cell's own configuration. They are parsed once: 0.2 s, which for 13
    variants, three numbers of frames and nine folds would be a minute.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(yaml_files.as_yaml(cell.settings), encoding="utf-8")
        words = ["--config", str(file), "--run_dir", cell.name]
        cfg, options = parse_train(words, methods.METHODS)
    if options.grid is not None:
        raise ConfigError("grid: has no place in a benchmark; give --rates, or leave it out")
    every: list[str | None] = [*lists] or [cfg.data.lists]
    return [replace(cfg, data=with_lists(replace(cfg.data, lists=each))) for each in every]


def refuse_other_settings(matrix: Matrix, asked: MatrixOptions, work: cells.Work) -> None:
    """Check that what the folder holds of these cells was made with the same settings.

    Raises:
        ConfigError: it was not; nothing was written then.
    """
    rates: Sequence[float | None] = asked.rates or [None]
    for rate in rates:
        of_all = {(name, part): rate for name in matrix.variants for part in matrix.part_names}
        for cell in matrix.cells(asked.all_frames, asked.seeds, of_all):
            work.finished(cell)


def refuse_trained(
    before: Sequence[Mapping[str, Any]], matrix: Matrix, frames: Sequence[int]
) -> None:
    """Check that no cost takes the place of accuracies.

    Raises:
        ConfigError: cells of the same variant and number of frames were trained.
    """
    for line in before:
        again = line["variant"] in matrix.variants and line["frames"] in frames
        if again and line["seed"] is not None:
            raise ConfigError(
                f"--cost_only: {line['cell']} was trained here, and the table holds its cost; "
                "choose another --out"
            )
