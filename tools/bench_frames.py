"""Benchmark methods over numbers of frames: accuracies and full cost, a table and plots."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidadapt import config, launching, methods, runs
from vidadapt.apps.study import cells, cost, plan
from vidadapt.apps.study.cells import CellFailed
from vidadapt.apps.study.overview import overview, seconds_left
from vidadapt.apps.study.plan import Benchmark, Cell
from vidadapt.apps.study.report import write_report
from vidadapt.apps.study.results import ResultsError, of_earlier_calls, read_results, write_results
from vidadapt.config import Config, ConfigError, command_line, yaml_files
from vidadapt.console.progress import duration
from vidadapt.launching.failures import LISTED
from vidadapt.lists.prepared import with_lists

RESULTS = "results.jsonl"
EPILOG = """\
A configuration is tools/train.py's YAML. It may hold `variants`, which names overrides of it, and
`prepare`, words for tools/prepare.py that make its videos; configs/demo.yaml has both. A sweep is a
YAML with `variants` alone: configs/sweeps/. For videos of your own, copy a configuration and set
`data.lists` (tools/prepare.py makes them) or `data.train_list` in it. Every cell (variant, frames,
seed) is an ordinary tools/train.py and tools/evaluate.py; interrupted, the same command goes on:
finished cells are kept, a begun one continues after its last epoch. The exit status is 1 if a cell
failed (others: docs/failures.md).

examples:
  python tools/bench_frames.py --config configs/demo.yaml --frames 2 4 8 \\
    --methods linear vpt adaptformer --seeds 0
  python tools/bench_frames.py --config configs/demo.yaml --frames 8 --out runs/bottleneck \\
    --sweep configs/sweeps/bottleneck.yaml
  python tools/bench_frames.py --config mine.yaml --frames 2 4 8 --cost-only --out runs/cost \\
    --methods linear vpt adaptformer arc losa full
  python tools/bench_frames.py --report runs/frames
"""


def main(argv: list[str] | None = None) -> int:
    """Benchmark as the arguments say; the exit status: 1 if a cell failed."""
    args = parse(argv)
    try:
        return benchmark(args)
    except CellFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return error.status


def benchmark(args: argparse.Namespace) -> int:
    """Train and measure what is not there yet; the exit status.

    Raises:
        CellFailed: the data cannot be prepared, or a training of the grid over rates failed.
    """
    if args.report is not None:
        summarise(args.report)
        return 0
    asked = plan.read_benchmark(args.config, args.sweep)
    variants = plan.choose(asked, args.methods, methods.METHODS)
    runs.check_writable("--out", args.out)
    with cells.only_one(args.out) as lock:
        before = earlier_lines(args)
        if asked.prepare:
            cells.prepare(asked.prepare, lock)
        configs = checked(asked, variants, args)
        work = cells.Work(args.out / "cells", args.processes, lock)
        if args.cost_only:
            refuse_trained(before, variants, args.frames)
        else:
            refuse_other_settings(asked, variants, args, work)
        costs = measured(asked, variants, configs, args)
        if args.cost_only:
            lines = list(costs.values())
        else:
            lines = trained(asked, variants, configs, costs, args, work, before)
        kept = of_earlier_calls(before, lines)
        write_results(args.out / RESULTS, [*kept, *lines])
        summarise(args.out)
        if kept:
            print("of earlier calls:", ", ".join(line["cell"] for line in kept))
    failed = [line["cell"] for line in lines if line["problem"]]
    if failed:
        print(f"failed: {', '.join(failed)}; the same command tries them again", file=sys.stderr)
    return LISTED if failed else 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EPILOG
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, metavar="FILE", help="YAML of a training; see below")
    what.add_argument(
        "--report", type=Path, metavar="DIR", help="write table and plots of DIR/results.jsonl anew"
    )
    parser.add_argument("--sweep", type=Path, metavar="FILE", help="YAML with other `variants`")
    parser.add_argument(
        "--methods", nargs="+", metavar="NAME", help="variants or methods; default: all variants"
    )
    parser.add_argument("--frames", nargs="+", type=int, default=[2, 4, 8], metavar="T")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED")
    parser.add_argument(
        "--rates",
        nargs="+",
        type=float,
        metavar="RATE",
        help="grid over train.base_lr: every variant gets the one with the best top-1 on the "
        "development list, at --rates-at frames and the first seed; of equal ones the first",
    )
    parser.add_argument("--rates-at", type=int, metavar="T", help="default: the last of --frames")
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="train and evaluate under torchrun with N processes, batch_size clips each",
    )
    parser.add_argument(
        "--steps", type=int, default=10, help="timed steps of a cost (default: %(default)s)"
    )
    parser.add_argument("--cost-only", action="store_true", help="measure costs, train nothing")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/frames"), metavar="DIR", help="default: %(default)s"
    )
    args = parser.parse_args(argv)
    for name, least in {"processes": 1, "steps": 2}.items():
        if getattr(args, name) < least:
            parser.error(f"--{name}: expected {least} or more, got {getattr(args, name)}")
    for name in ("frames", "seeds", "rates", "methods"):
        values = getattr(args, name) or []
        # Six digits of a rate name its folder.
        named = {f"{value:g}" if isinstance(value, float) else value for value in values}
        if len(named) < len(values):
            parser.error(f"--{name}: each once, got {' '.join(map(str, values))}")
    if args.rates_at is not None and not args.rates:
        parser.error("--rates-at: is about --rates; give some")
    return args


def checked(
    benchmark: Benchmark, variants: Mapping[str, plan.Overrides], args: argparse.Namespace
) -> dict[tuple[str, int], Config]:
    """The configuration of every variant and number of frames, known to be possible.

    Raises:
        ConfigError: one that is not, naming its variant; nothing was trained then.
    """
    found = {}
    for name, overrides in variants.items():
        for frames in dict.fromkeys([*args.frames, rates_at(args)]):
            cell = plan.cell_of(benchmark.base, name, overrides, frames, args.seeds[0], None)
            try:
                cfg = configuration(cell)
                for rate in args.rates or [cfg.train.base_lr]:
                    recipe = replace(cfg.train, base_lr=rate)
                    config.check(replace(cfg, train=recipe), args.processes)
                for split in ("train", "dev", "test"):
                    path = getattr(cfg.data, f"{split}_list")
                    if path is not None and not Path(path).is_file():
                        raise ConfigError(f"data.{split}_list: {path}: no such file")
                if cfg.data.test_list is None and cfg.data.dev_list is None:
                    raise ConfigError("data.test_list: is not set; nothing could be evaluated")
                if not args.cost_only and not cfg.model.weights:
                    raise ConfigError(
                        "model.weights: is not set; give a file, `random` to train without "
                        "pre-trained weights, or ask for --cost-only"
                    )
                if args.rates and cfg.data.dev_list is None:
                    raise ConfigError("data.dev_list: --rates chooses by it; give one")
                cost.counts(cfg)
            except ValueError as error:
                raise ConfigError(f"{name} at {frames} frames: {error}") from error
            found[name, frames] = cfg
    return found


def refuse_other_settings(
    benchmark: Benchmark,
    variants: Mapping[str, plan.Overrides],
    args: argparse.Namespace,
    work: cells.Work,
) -> None:
    """See that what the folder holds of these cells was made as it would be now.

    Raises:
        ConfigError: it was not; nothing was written then.
    """
    frames = dict.fromkeys([*args.frames, rates_at(args)])
    for rate in args.rates or [None]:
        rates = dict.fromkeys(variants, rate)
        for cell in plan.cells_of(benchmark.base, variants, [*frames], args.seeds, rates):
            work.finished(cell)


def earlier_lines(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What results.jsonl says of the cells and costs that the folder still holds.

    Raises:
        ConfigError: it cannot be used.
    """
    file = args.out / RESULTS
    if not file.exists():
        return []
    try:
        lines = read_results(file)
    except ResultsError as error:
        raise ConfigError(
            f"{error}. Delete the file: finished cells are kept, and stand in it again when they "
            "are asked for"
        ) from error
    return [
        line
        for line in lines
        if (args.out / "cells" / line["cell"]).exists()
        or (args.out / "costs" / f"{line['cell']}.json").exists()
    ]


def refuse_trained(
    before: Sequence[Mapping[str, Any]], variants: Collection[str], frames: Sequence[int]
) -> None:
    """See that no cost takes the place of accuracies.

    Raises:
        ConfigError: cells of the same variant and number of frames were trained.
    """
    for line in before:
        asked = line["variant"] in variants and line["frames"] in frames
        if asked and line["seed"] is not None:
            raise ConfigError(
                f"--cost-only: {line['cell']} was trained here, and its cost stands in the table; "
                "choose another --out"
            )


def configuration(cell: Cell) -> Config:
    """The cell's settings as tools/train.py would read them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(yaml_files.as_yaml(cell.settings), encoding="utf-8")
        words = ["--config", str(file), "--run_dir", cell.name]
        cfg = command_line.parse_train(words, methods.METHODS)[0]
    return replace(cfg, data=with_lists(cfg.data))


def rates_at(args: argparse.Namespace) -> int:
    return args.rates_at or args.frames[-1]


def measured(
    benchmark: Benchmark,
    variants: Mapping[str, plan.Overrides],
    configs: Mapping[tuple[str, int], Config],
    args: argparse.Namespace,
) -> dict[tuple[str, int], dict[str, Any]]:
    """The cost of every variant and number of frames, measured now or by an earlier call."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    wanted = [(name, frames) for frames in args.frames for name in variants]
    for number, (name, frames) in enumerate(wanted, start=1):
        settings = plan.cell_of(
            benchmark.base, name, variants[name], frames, args.seeds[0], None
        ).settings
        file = args.out / "costs" / f"{name}_{frames}f.json"
        about = {"settings": settings, "processes": args.processes, "steps": args.steps}
        before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        if before is None or of_any_seed(before) != of_any_seed(about):
            began = time.monotonic()
            line = cost.cell_cost(configs[name, frames], processes=args.processes, steps=args.steps)
            file.parent.mkdir(parents=True, exist_ok=True)
            runs.write_json(file, {**about, "line": line})
            print(
                f"cost {number}/{len(wanted)} {name}, {frames} frames: step "
                f"{1000 * line['step_seconds']:.0f} ms, {duration(time.monotonic() - began)}",
                flush=True,
            )
        else:
            line = before["line"]
        found[name, frames] = cells.cost_line(name, frames, line, args.processes)
    return found


def of_any_seed(about: Mapping[str, Any]) -> dict[str, Any]:
    """What a cost depends on; all seeds have one cost."""
    flat = yaml_files.flattened({key: about[key] for key in ("settings", "processes", "steps")})
    return {key: value for key, value in flat.items() if key != "settings.train.seed"}


def trained(
    benchmark: Benchmark,
    variants: Mapping[str, plan.Overrides],
    configs: Mapping[tuple[str, int], Config],
    costs: Mapping[tuple[str, int], dict[str, Any]],
    args: argparse.Namespace,
    work: cells.Work,
    before: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Every cell's line; what fails costs only its own cell.

    Args:
        before: lines of earlier calls, which stay in results.jsonl until their cells are at hand.
    """
    grids = grid(benchmark, variants, args, work)
    chosen = {name: max(by_rate, key=lambda r: by_rate[r]) for name, by_rate in grids.items()}
    listed = plan.cells_of(benchmark.base, variants, args.frames, args.seeds, chosen)
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
        write_results(args.out / RESULTS, [*of_earlier_calls(before, now), *now])
        print("\n".join(overview(listed, lines)), flush=True)
    return list(lines.values())


def grid(
    benchmark: Benchmark,
    variants: Mapping[str, plan.Overrides],
    args: argparse.Namespace,
    work: cells.Work,
) -> dict[str, dict[float, float]]:
    """The best top-1 on the development list of every variant by rate; empty without --rates."""
    found: dict[str, dict[float, float]] = {}
    rates: Sequence[float] = args.rates or ()
    frames, seed = rates_at(args), args.seeds[0]
    listed = [
        (name, rate, plan.cell_of(benchmark.base, name, variants[name], frames, seed, rate))
        for name in variants
        for rate in rates
    ]
    left = [cell for _, _, cell in listed if not work.is_trained(cell)]
    seconds: dict[int, list[float]] = {frames: []}
    for number, (name, rate, cell) in enumerate(listed, start=1):
        began = time.monotonic()
        top1 = work.dev_top1(cell)
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


def time_left(frames: Sequence[int], seconds: Mapping[int, Sequence[float]], what: str) -> str:
    """The end of a line about what was done or begins; empty where nothing is left or known."""
    left = seconds_left(frames, seconds)
    return f", about {duration(left)} left {what}" if left else ""


def summarise(out: Path) -> None:
    """Table and plots from DIR/results.jsonl, and where they are."""
    written = write_report(out)
    print((out / "table.md").read_text(encoding="utf-8"))
    print("written:", ", ".join(str(path) for path in [out / RESULTS, *written]))


if __name__ == "__main__":
    launching.alone(main, goes_on="; the same command goes on")
