"""Run a matrix: measure, train and evaluate what is not there yet; results, table and plots."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidadapt import methods, runs
from vidadapt.apps.study import cells, cost
from vidadapt.apps.study.cell_of_folds import cell_of_folds
from vidadapt.apps.study.cell_of_tasks import cell_of_tasks
from vidadapt.apps.study.matrix import Cell, Matrix, read_matrix
from vidadapt.apps.study.matrix_checks import checked, refuse_other_settings, refuse_trained
from vidadapt.apps.study.matrix_options import MatrixOptions, check_options
from vidadapt.apps.study.overview import overview, time_left
from vidadapt.apps.study.results import ResultsError, of_earlier_calls, read_results, write_results
from vidadapt.apps.study.side_by_side_cells import train_side_by_side
from vidadapt.apps.study.tool_calls import CellFailed, begin_tools, prepare
from vidadapt.config import Config, ConfigError, yaml_files
from vidadapt.console import duration
from vidadapt.evaluation import METRICS
from vidadapt.files import held, write_json, write_text
from vidadapt.launching import LISTED
from vidadapt.lists import ListError, TaskLists, read_tasks

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
            if asked.tasks is not None:
                matrix = matrix.over_tasks(tasks_of(asked.tasks))
            configs = checked(matrix, asked)
            machine = cost.this_machine()
            work = cells.Work(asked.out / "cells", asked.processes, machine)
            if asked.cost_only:
                refuse_trained(before, matrix, asked.frames)
            else:
                refuse_other_settings(matrix, asked, work)
                begin_tools()
            costs = measured(matrix, configs, asked, machine)
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
    from vidadapt.apps.study.tasks import tasks_csv

    lines = read_results(out / RESULTS)
    table = markdown(lines)
    write_text(out / "table.md", table)
    write_text(out / "table.csv", csv_text(lines))
    more = {"pairs.csv": pairs_csv(lines), "tasks.csv": tasks_csv(lines)}
    for name, text in more.items():
        if text:
            write_text(out / name, text)
    drawn = draw(lines, out / "plots")
    print(table)
    names = (RESULTS, "table.md", "table.csv", *(name for name, text in more.items() if text))
    written = [*(out / name for name in names), *drawn]
    print("written:", ", ".join(map(str, written)))


def tasks_of(folder: Path) -> dict[str, TaskLists]:
    """Read the tasks of --tasks.

    Raises:
        ConfigError: there are none, or one cannot be used.
    """
    try:
        return read_tasks(folder)
    except ListError as error:
        raise ConfigError(f"--tasks: {error}") from error


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


def measured(
    matrix: Matrix,
    configs: Mapping[tuple[str, int], Config],
    asked: MatrixOptions,
    machine: cost.Machine,
) -> dict[tuple[str, int], dict[str, Any]]:
    """The cost of every variant and number of frames, measured now or by an earlier call.

    Raises:
        ConfigError: an earlier call measured on another kind of device, or in another precision;
            nothing was measured now.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    wanted = [(name, frames) for frames in asked.frames for name in matrix.variants]
    files = {place: asked.out / "costs" / "{}_{}f.json".format(*place) for place in wanted}
    about = {
        place: {
            "settings": matrix.cell(*place, asked.seeds[0]).settings,
            "processes": asked.processes,
            "steps": asked.steps,
        }
        for place in wanted
    }
    kept = {place: _kept(files[place], about[place], machine) for place in wanted}
    for number, (name, frames) in enumerate(wanted, start=1):
        line = kept[name, frames]
        if line is None:
            began = time.monotonic()
            cfg = configs[name, frames]
            line = cost.cell_cost(cfg, processes=asked.processes, steps=asked.steps)
            file = files[name, frames]
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, {**about[name, frames], "line": line})
            print(
                f"cost {number}/{len(wanted)} {name}, {frames} frames: step "
                f"{1000 * line['step_seconds']:.0f} ms, {duration(time.monotonic() - began)}",
                flush=True,
            )
        found[name, frames] = cells.cost_line(name, frames, line, asked.processes)
    return found


def _kept(file: Path, about: Mapping[str, Any], machine: cost.Machine) -> dict[str, Any] | None:
    """Return the cost that an earlier call measured; None: there is none of these settings."""
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    if before is None or _of_any_seed(before) != _of_any_seed(about):
        return None
    line: dict[str, Any] = before["line"]
    here = (machine.device, machine.precision(about["settings"]))
    if (line["device"], line["precision"]) != here:
        raise ConfigError(
            "--out: {} was measured on a {} in {}, and this machine trains on a {} in {}; go on "
            "on one like that, choose another --out, or delete that file".format(
                file, line["device"], line["precision"], *here
            )
        )
    return line


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
    of_parts: dict[Cell, dict[str, dict[str, Any]]] = {}
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
        found |= cells.chosen_by(cell, grids.get((cell.variant, cell.part)))
        known[cell] = found
        parts = of_parts.setdefault(cell.whole, {})
        parts[cell.part] = found
        if len(parts) == len(matrix.part_names):
            if asked.folds is not None:
                found = cell_of_folds(work, cell.whole, cfg, asked.folds, parts)
            if asked.tasks is not None:
                found = cell_of_tasks(work, cell.whole, tasks_of(asked.tasks), parts)
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
    """The best development accuracy (`train.select`) by rate, of every variant in every part.

    Empty without --rates.
    """
    found: dict[tuple[str, str], dict[float, float]] = {}
    frames, rates = asked.grid_frames, asked.rates or ()
    places = {
        (name, part): [matrix.cell(name, frames, asked.seeds[0], rate, part) for rate in rates]
        for name in matrix.variants
        for part in matrix.part_names
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
