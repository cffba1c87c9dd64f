"""Run a matrix: measure, train and evaluate what is not there yet; results, table and plots."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidadapt import config, data, methods, runs
from vidadapt.apps.study import cells, cost
from vidadapt.apps.study.cell_of_folds import cell_of_folds
from vidadapt.apps.study.matrix import Cell, Matrix, read_matrix
from vidadapt.apps.study.matrix_options import MatrixOptions, check_options
from vidadapt.apps.study.overview import overview, time_left
from vidadapt.apps.study.results import ResultsError, of_earlier_calls, read_results, write_results
from vidadapt.apps.study.side_by_side_cells import train_side_by_side
from vidadapt.apps.study.tool_calls import CellFailed, prepare
from vidadapt.config import Config, ConfigError, parse_train, yaml_files
from vidadapt.console import duration
from vidadapt.evaluation import METRICS
from vidadapt.files import held, write_json, write_text
from vidadapt.launching import LISTED
from vidadapt.lists import with_lists

RESULTS = "results.jsonl"


def run_matrix(asked: MatrixOptions) -> int:
    """Train and measure what is not there yet; the exit status: 1 if a cell failed.

    If the data cannot be prepared, or a training run of the grid fails, that is the exit status of
    the tool that failed.

    Raises:
        ConfigError: what was asked for is impossible, or the folder holds something else.
        Held: another call works on the folder.
    """
    check_options(asked)
    if asked.config is None:
        assert asked.report is not None
        summarise(asked.report)
        return 0
    matrix = read_matrix(asked.config, asked.sweep, asked.plugins)
    matrix = matrix.chosen(asked.methods, methods.METHODS)
    runs.check_writable("--out", asked.out)
    try:
        with held(asked.out / RESULTS, "--out"):
            before = earlier_lines(asked.out)
            prepare(matrix.prepare)
            if asked.folds is not None:
                matrix = matrix.over_folds(asked.folds)
            configs = checked(matrix, asked)
            work = cells.Work(asked.out / "cells", asked.processes)
            if asked.cost_only:
                refuse_trained(before, matrix, asked.frames)
            else:
                refuse_other_settings(matrix, asked, work)
            costs = measured(matrix, configs, asked)
            lines = list(costs.values())
            if not asked.cost_only:
                lines = trained(matrix, configs, costs, asked, work, before)
            kept = of_earlier_calls(before, lines)
            write_results(asked.out / RESULTS, [*kept, *lines])
            summarise(asked.out)
    except CellFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status
    if kept:
        print("of earlier calls:", ", ".join(line["cell"] for line in kept))
    failed = [line["cell"] for line in lines if line["problem"]]
    if failed:
        print(f"failed: {', '.join(failed)}; the same command tries them again", file=sys.stderr)
    return LISTED if failed else 0


def summarise(out: Path) -> None:
    """Write table.md, table.csv and plots/ from `out`/results.jsonl alone, and say where.

    Raises:
        ResultsError: results.jsonl cannot be used, naming its line.
    """
    # Not above: the processes that are measured import this module, too.
    from vidadapt.apps.study.folds import pairs_csv
    from vidadapt.apps.study.plots import draw
    from vidadapt.apps.study.table import csv_text, markdown

    lines = read_results(out / RESULTS)
    table = markdown(lines)
    write_text(out / "table.md", table)
    write_text(out / "table.csv", csv_text(lines))
    if pairs := pairs_csv(lines):
        write_text(out / "pairs.csv", pairs)
    drawn = draw(lines, out / "plots")
    print(table)
    names = (RESULTS, "table.md", "table.csv", *(["pairs.csv"] if pairs else []))
    written = [*(out / name for name in names), *drawn]
    print("written:", ", ".join(map(str, written)))


def checked(matrix: Matrix, asked: MatrixOptions) -> dict[tuple[str, int], Config]:
    """The configuration of every variant and number of frames, at the first fold; all are possible.

    Raises:
        ConfigError: one that is not, naming its variant; nothing was trained then.
    """
    found = {}
    for name in matrix.variants:
        for frames in asked.all_frames:
            try:
                of_folds = configurations(matrix, matrix.cell(name, frames, asked.seeds[0]))
                for cfg in of_folds:
                    _check_possible(cfg, asked)
                cost.counts(of_folds[0])
            except ValueError as error:
                raise ConfigError(f"{name} at {frames} frames: {error}") from error
            found[name, frames] = of_folds[0]
    return found


def _check_possible(cfg: Config, asked: MatrixOptions) -> None:
    for rate in asked.rates or [cfg.train.base_lr]:
        config.check(replace(cfg, train=replace(cfg.train, base_lr=rate)), asked.processes)
    for split in ("train", "dev", "test"):
        path = getattr(cfg.data, f"{split}_list")
        if path is not None and not Path(path).is_file():
            raise ConfigError(f"data.{split}_list: {path}: no such file")
    data.require_one_label(cfg.data, "vidadapt bench_frames")
    if cfg.data.test_list is None and cfg.data.dev_list is None:
        raise ConfigError("data.test_list: is not set; nothing could be evaluated")
    if not asked.cost_only and not cfg.model.weights:
        raise ConfigError(
            "model.weights: is not set; give a file, `random` to train without pre-trained "
            "weights, or ask for --cost_only"
        )
    if asked.rates and cfg.data.dev_list is None:
        raise ConfigError("data.dev_list: --rates chooses by it; give one")


def configurations(matrix: Matrix, cell: Cell) -> list[Config]:
    """The cell's settings in each fold, as vidadapt train would read them.

    They are parsed once: 0.2 s, which for 13 variants, three numbers of frames and nine folds would
    be a minute.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(yaml_files.as_yaml(cell.settings), encoding="utf-8")
        words = ["--config", str(file), "--run_dir", cell.name]
        cfg, options = parse_train(words, methods.METHODS)
    if options.grid is not None:
        raise ConfigError("grid: has no place in a benchmark; give --rates, or leave it out")
    lists: list[str | None] = [*matrix.folds.values()] or [cfg.data.lists]
    return [replace(cfg, data=with_lists(replace(cfg.data, lists=each))) for each in lists]


def refuse_other_settings(matrix: Matrix, asked: MatrixOptions, work: cells.Work) -> None:
    """Check that what the folder holds of these cells was made with the same settings.

    Raises:
        ConfigError: it was not; nothing was written then.
    """
    rates: Sequence[float | None] = asked.rates or [None]
    for rate in rates:
        of_all = {(name, fold): rate for name in matrix.variants for fold in matrix.fold_names}
        for cell in matrix.cells(asked.all_frames, asked.seeds, of_all):
            work.finished(cell)


def earlier_lines(out: Path) -> list[dict[str, Any]]:
    """Lines of results.jsonl about cells and costs that the folder still holds.

    Raises:
        ConfigError: the file cannot be used.
    """
    if not (out / RESULTS).exists():
        return []
    try:
        lines = read_results(out / RESULTS)
    except ResultsError as error:
        raise ConfigError(
            f"{error}. Delete the file: finished cells are kept, and are written into it again "
            "when they are asked for"
        ) from error
    return [
        line
        for line in lines
        if (out / "cells" / line["cell"]).exists()
        or (out / "costs" / f"{line['cell']}.json").exists()
    ]


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


def measured(
    matrix: Matrix, configs: Mapping[tuple[str, int], Config], asked: MatrixOptions
) -> dict[tuple[str, int], dict[str, Any]]:
    """The cost of every variant and number of frames, measured now or by an earlier call."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    wanted = [(name, frames) for frames in asked.frames for name in matrix.variants]
    for number, (name, frames) in enumerate(wanted, start=1):
        settings = matrix.cell(name, frames, asked.seeds[0]).settings
        file = asked.out / "costs" / f"{name}_{frames}f.json"
        about = {"settings": settings, "processes": asked.processes, "steps": asked.steps}
        before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        if before is not None and _of_any_seed(before) == _of_any_seed(about):
            line = before["line"]
        else:
            began = time.monotonic()
            cfg = configs[name, frames]
            line = cost.cell_cost(cfg, processes=asked.processes, steps=asked.steps)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, {**about, "line": line})
            print(
                f"cost {number}/{len(wanted)} {name}, {frames} frames: step "
                f"{1000 * line['step_seconds']:.0f} ms, {duration(time.monotonic() - began)}",
                flush=True,
            )
        found[name, frames] = cells.cost_line(name, frames, line, asked.processes)
    return found


def _of_any_seed(about: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a cost depends on; all seeds have one cost."""
    flat = yaml_files.flattened({key: about[key] for key in ("settings", "processes", "steps")})
    return {key: value for key, value in flat.items() if key != "settings.train.seed"}


def trained(
    matrix: Matrix,
    configs: Mapping[tuple[str, int], Config],
    costs: Mapping[tuple[str, int], dict[str, Any]],
    asked: MatrixOptions,
    work: cells.Work,
    before: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Every cell's line; what fails costs only its own cell.

    Args:
        before: lines of earlier calls, which stay in results.jsonl until their cells are done.
    """
    grids = grid(matrix, asked, work, configs)
    chosen = {place: max(by_rate, key=lambda r: by_rate[r]) for place, by_rate in grids.items()}
    listed = matrix.cells(asked.frames, asked.seeds, chosen)
    of_folds: dict[Cell, dict[str, dict[str, Any]]] = {}
    lines: dict[Cell, dict[str, Any]] = {}
    seconds: dict[int, list[float]] = {}
    known = {cell: work.finished(cell) for cell in listed}
    for number, cell in enumerate(listed, start=1):
        cfg, found = configs[cell.variant, cell.frames], known[cell]
        new = found is None
        if found is None:
            began = time.monotonic()
            left = [later.frames for later in listed[number - 1 :] if known[later] is None]
            eta = time_left(left, seconds, "for all")
            print(f"cell {number}/{len(listed)} {cell.name} begins{eta}", flush=True)
            found = work.work_on(cell, cfg)
            if not found.get("problem"):
                seconds.setdefault(cell.frames, []).append(time.monotonic() - began)
        found |= cells.chosen_by(cell, grids.get((cell.variant, cell.fold)))
        known[cell] = found
        parts = of_folds.setdefault(cell.whole, {})
        parts[cell.fold] = found
        if len(parts) == len(matrix.fold_names):
            if asked.folds is not None:
                found = cell_of_folds(work, cell.whole, cfg, asked.folds, parts)
            lines[cell.whole] = cells.whole_line(costs[cell.variant, cell.frames], found)
        if new:
            now = list(lines.values())
            write_results(asked.out / RESULTS, [*of_earlier_calls(before, now), *now])
            print("\n".join(overview(listed, known)), flush=True)
    return list(lines.values())


def grid(
    matrix: Matrix,
    asked: MatrixOptions,
    work: cells.Work,
    configs: Mapping[tuple[str, int], Config],
) -> dict[tuple[str, str], dict[float, float]]:
    """The best development accuracy (`train.select`) by rate, of every variant in every fold.

    Empty without --rates.
    """
    found: dict[tuple[str, str], dict[float, float]] = {}
    frames, rates = asked.grid_frames, asked.rates or ()
    places = {
        (name, fold): [matrix.cell(name, frames, asked.seeds[0], rate, fold) for rate in rates]
        for name in matrix.variants
        for fold in matrix.fold_names
    }
    total = len(places) * len(rates)
    left = [cell for cells in places.values() for cell in cells if not work.is_trained(cell)]
    seconds: list[float] = []
    for place, together in places.items() if rates else ():
        began = time.monotonic()
        diverged = train_side_by_side(work, together, configs[place[0], frames])
        trained = [cell for cell in together if cell in diverged or work.is_trained(cell)]
        new = [cell for cell in left if cell in trained]
        seconds += [(time.monotonic() - began) / len(new)] * len(new) if new else []
        left = [cell for cell in left if cell not in trained]
        for rate, cell in zip(rates, together, strict=True):
            began = time.monotonic()
            accuracy = 0.0 if cell in diverged else work.dev_accuracy(cell)
            if cell in left:
                left.remove(cell)
                seconds.append(time.monotonic() - began)
            took = f", {duration(seconds[-1])}" if cell not in trained or cell in new else ""
            found.setdefault(place, {})[rate] = accuracy
            number = sum(map(len, found.values()))
            eta = time_left([frames] * len(left), {frames: seconds}, "for the grid")
            title = METRICS[configs[place[0], frames].train.select].title
            said = f"dev {title} {accuracy:.2f}{took}{eta}"
            print(f"grid {number}/{total} {cell.name}: {said}", flush=True)
    return found
