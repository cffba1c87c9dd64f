"""Run a matrix: measure, train and evaluate what is not there yet; results, table and plots."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from vidadapt import config, methods, runs
from vidadapt.apps.study import cells, cost
from vidadapt.apps.study.matrix import Cell, Matrix, read_matrix
from vidadapt.apps.study.overview import overview, time_left
from vidadapt.apps.study.results import ResultsError, of_earlier_calls, read_results, write_results
from vidadapt.apps.study.side_by_side_cells import train_side_by_side
from vidadapt.apps.study.tool_calls import CellFailed, prepare
from vidadapt.config import Config, ConfigError, Within, parse_train, yaml_files
from vidadapt.console import duration
from vidadapt.files import held, write_json, write_text
from vidadapt.launching import LISTED
from vidadapt.lists import with_lists

RESULTS = "results.jsonl"


@dataclass(frozen=True)
class MatrixOptions:
    """Options of vidadapt bench_frames.

    Attributes:
        config: YAML of a training run; see below.
        report: only write table and plots of the results.jsonl in this folder anew.
        sweep: YAML with other `variants`.
        methods: variants or methods; default: all variants.
        frames: numbers of frames.
        seeds: seeds of training.
        rates: grid over train.base_lr: every variant gets the one with the best top-1 on the
            development list, at --rates_at frames and the first seed; of equal ones the first.
            Those of a method that keeps the lower layers as they are train side by side.
        rates_at: number of frames; default: the last of --frames.
        processes: train and evaluate under torchrun with so many, batch_size clips each.
        steps: timed steps of a cost.
        cost_only: measure costs, train nothing.
        out: folder to write.
        plugins: modules to import first, separated by commas, in every cell, too; they may add
            methods, backbones, data sets and metrics.
    """

    config: Path | None = None
    report: Path | None = None
    sweep: Path | None = None
    methods: Sequence[str] | None = None
    frames: Sequence[int] = (2, 4, 8)
    seeds: Sequence[int] = (0,)
    rates: Sequence[float] | None = None
    rates_at: int | None = None
    processes: Annotated[int, Within("[1, inf)")] = 1
    steps: Annotated[int, Within("[2, inf)")] = 10
    cost_only: bool = False
    out: Path = Path("runs/frames")
    plugins: str | None = None

    @property
    def grid_frames(self) -> int:
        """The number of frames at which the grid over rates is run."""
        return self.rates_at or self.frames[-1]

    @property
    def all_frames(self) -> list[int]:
        """The numbers of frames of all cells, those of the grid included."""
        return list(dict.fromkeys([*self.frames, self.grid_frames]))


def run_matrix(asked: MatrixOptions) -> int:
    """Train and measure what is not there yet; the exit status: 1 if a cell failed.

    If the data cannot be prepared, or a training run of the grid fails, that is the exit status of
    the tool that failed.

    Raises:
        ConfigError: what was asked for is impossible, or the folder holds something else.
        Held: another call works on the folder.
    """
    _check_options(asked)
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
    from vidadapt.apps.study.plots import draw
    from vidadapt.apps.study.table import csv_text, markdown

    lines = read_results(out / RESULTS)
    table = markdown(lines)
    write_text(out / "table.md", table)
    write_text(out / "table.csv", csv_text(lines))
    drawn = draw(lines, out / "plots")
    print(table)
    written = [*(out / name for name in (RESULTS, "table.md", "table.csv")), *drawn]
    print("written:", ", ".join(map(str, written)))


def _check_options(asked: MatrixOptions) -> None:
    if (asked.config is None) == (asked.report is None):
        raise ConfigError("give one of --config FILE and --report DIR")
    if asked.rates_at is not None and not asked.rates:
        raise ConfigError("--rates_at: is about --rates; give some")
    for name in ("frames", "seeds", "rates", "methods"):
        values = getattr(asked, name) or []
        # Six digits of a rate name its folder.
        named = {f"{value:g}" if isinstance(value, float) else value for value in values}
        if len(named) < len(values):
            raise ConfigError(f"--{name}: each once, got {' '.join(map(str, values))}")


def checked(matrix: Matrix, asked: MatrixOptions) -> dict[tuple[str, int], Config]:
    """The configuration of every variant and number of frames, known to be possible.

    Raises:
        ConfigError: one that is not, naming its variant; nothing was trained then.
    """
    found = {}
    for name in matrix.variants:
        for frames in asked.all_frames:
            try:
                cfg = configuration(matrix.cell(name, frames, asked.seeds[0]))
                _check_possible(cfg, asked)
                cost.counts(cfg)
            except ValueError as error:
                raise ConfigError(f"{name} at {frames} frames: {error}") from error
            found[name, frames] = cfg
    return found


def _check_possible(cfg: Config, asked: MatrixOptions) -> None:
    for rate in asked.rates or [cfg.train.base_lr]:
        config.check(replace(cfg, train=replace(cfg.train, base_lr=rate)), asked.processes)
    for split in ("train", "dev", "test"):
        path = getattr(cfg.data, f"{split}_list")
        if path is not None and not Path(path).is_file():
            raise ConfigError(f"data.{split}_list: {path}: no such file")
    if cfg.data.test_list is None and cfg.data.dev_list is None:
        raise ConfigError("data.test_list: is not set; nothing could be evaluated")
    if not asked.cost_only and not cfg.model.weights:
        raise ConfigError(
            "model.weights: is not set; give a file, `random` to train without pre-trained "
            "weights, or ask for --cost_only"
        )
    if asked.rates and cfg.data.dev_list is None:
        raise ConfigError("data.dev_list: --rates chooses by it; give one")


def configuration(cell: Cell) -> Config:
    """The cell's settings as vidadapt train would read them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(yaml_files.as_yaml(cell.settings), encoding="utf-8")
        words = ["--config", str(file), "--run_dir", cell.name]
        cfg, options = parse_train(words, methods.METHODS)
    if options.grid is not None:
        raise ConfigError("grid: has no place in a benchmark; give --rates, or leave it out")
    return replace(cfg, data=with_lists(cfg.data))


def refuse_other_settings(matrix: Matrix, asked: MatrixOptions, work: cells.Work) -> None:
    """Check that what the folder holds of these cells was made with the same settings.

    Raises:
        ConfigError: it was not; nothing was written then.
    """
    rates: Sequence[float | None] = asked.rates or [None]
    for rate in rates:
        of_all = dict.fromkeys(matrix.variants, rate)
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
    chosen = {name: max(by_rate, key=lambda r: by_rate[r]) for name, by_rate in grids.items()}
    listed = matrix.cells(asked.frames, asked.seeds, chosen)
    lines: dict[Cell, dict[str, Any]] = {}
    seconds: dict[int, list[float]] = {}
    known = {cell: work.finished(cell) for cell in listed}
    for number, cell in enumerate(listed, start=1):
        of_all_seeds = cell.variant, cell.frames
        found = known[cell]
        if found is not None:
            found |= cells.chosen_by(cell, grids.get(cell.variant))
            lines[cell] = cells.whole_line(costs[of_all_seeds], found)
            continue
        began = time.monotonic()
        left = [later.frames for later in listed[number - 1 :] if known[later] is None]
        eta = time_left(left, seconds, "for all")
        print(f"cell {number}/{len(listed)} {cell.name} begins{eta}", flush=True)
        found = work.work_on(cell, configs[of_all_seeds], grids.get(cell.variant))
        lines[cell] = cells.whole_line(costs[of_all_seeds], found)
        if not lines[cell]["problem"]:
            seconds.setdefault(cell.frames, []).append(time.monotonic() - began)
        now = list(lines.values())
        write_results(asked.out / RESULTS, [*of_earlier_calls(before, now), *now])
        print("\n".join(overview(listed, lines)), flush=True)
    return list(lines.values())


def grid(
    matrix: Matrix,
    asked: MatrixOptions,
    work: cells.Work,
    configs: Mapping[tuple[str, int], Config],
) -> dict[str, dict[float, float]]:
    """The best top-1 on the development list of every variant by rate; empty without --rates."""
    found: dict[str, dict[float, float]] = {}
    frames = asked.grid_frames
    listed = [
        (name, rate, matrix.cell(name, frames, asked.seeds[0], rate))
        for name in matrix.variants
        for rate in asked.rates or ()
    ]
    left = [cell for _, _, cell in listed if not work.is_trained(cell)]
    seconds: dict[int, list[float]] = {frames: []}
    for number, (name, rate, cell) in enumerate(listed, start=1):
        began = time.monotonic()
        if name not in found:
            together = [each for variant, _, each in listed if variant == name]
            diverged = train_side_by_side(work, together, configs[name, frames])
        top1 = 0.0 if cell in diverged else work.dev_top1(cell)
        took = time.monotonic() - began
        found.setdefault(name, {})[rate] = top1
        if cell in left:
            left.remove(cell)
            seconds[frames].append(took)
        eta = time_left([frames] * len(left), seconds, "for the grid")
        print(
            f"grid {number}/{len(listed)} {cell.name}: dev top-1 {top1:.2f}, {duration(took)}{eta}",
            flush=True,
        )
    return found
