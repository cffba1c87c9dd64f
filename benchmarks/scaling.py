"""How a training step grows with frames, and with processes that share this machine.

    frames      steps of 2 to 32 frames in one process, which may use all cores, in turns
    processes   steps of 1, 2 and 4 processes with the same clips each, in turns; the slowest counts

`python -m benchmarks.scaling_page` makes docs/scaling.md of what `--json` writes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
import torch.distributed as dist

from benchmarks.exchange import (
    NUM_CLASSES,
    nothing,
    ours,
    rounds_of,
    timed_by_all,
    under_torchrun,
)
from benchmarks.report import rows_table
from benchmarks.small_runs import check, finish
from benchmarks.step_contenders import Contender, Size, training_flops
from benchmarks.step_table import device_name
from benchmarks.timing import take_turns, timed
from vidadapt.apps.study.benchmark import spread_percent
from vidadapt.data import cores
from vidadapt.distributed import World
from vidadapt.launching import start
from vidadapt.methods import count_parameters
from vidadapt.models import SIZES

FRAMES, PROCESSES = (2, 4, 8, 16, 32), (1, 2, 4)
METHODS = ("adaptformer", "full")
COLUMNS = {
    "frames": ("num_frames", "d"),
    "processes": ("processes", "d"),
    "step s": ("step_seconds", ".3f"),
    "spread %": ("spread_percent", ".0f"),
    "clips/s": ("clips_per_second", ".2f"),
    "GFLOP/clip": ("gflop_per_clip", ".1f"),
    "trained": ("trainable", ","),
}


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    check(args, "scaling", {"batch_size": 2, "rounds": 1, "num_frames": 2})
    if args.curve == "frames":
        finish_with(args, of_frames(args))
    elif "RANK" not in os.environ:
        sys.exit(under_torchrun("scaling", max(PROCESSES), argv))
    else:
        world = start.start()
        rows = of_processes(args, world)
        if world.is_main:
            finish_with(args, rows)
        start.stop()


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("curve", choices=("frames", "processes"))
    parser.add_argument("--backbone", choices=SIZES, default="vit_small")
    parser.add_argument(
        "--num_frames", type=int, default=8, metavar="T", help="of the processes' clips"
    )
    parser.add_argument("--crop_size", type=int, default=112, metavar="S")
    parser.add_argument("--batch_size", type=int, default=4, help="of a process (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="that count (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def finish_with(args: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    args.cores, args.torch = cores(), torch.__version__
    args.on = device_name(torch.device("cpu"))
    finish(args, "scaling", rows, [], rows_table(rows, COLUMNS, "method"))


def of_frames(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each method and number of frames."""
    alone = World(0, 1, torch.device("cpu"))
    turns: dict[str, Callable[[], float]] = {}
    rows = {}
    for method in METHODS:
        for frames in FRAMES:
            name = f"{method} {frames}"
            rows[name], training = started(method, frames, 1, alone, args)
            turns[name] = timed(training)
    return with_seconds(rows, take_turns(turns, args.rounds), args)


def of_processes(args: argparse.Namespace, world: World) -> list[dict[str, Any]]:
    """A row for each method and number of processes; the others of this job wait meanwhile."""
    turns, rows = {}, {}
    for number in PROCESSES:
        group = cast(dist.ProcessGroup, dist.new_group(list(range(number))))
        for method in METHODS:
            work: Callable[[], None] = nothing
            name = f"{method} {number}"
            if world.rank < number:
                part = World(world.rank, number, world.device, group=group)
                rows[name], work = started(method, args.num_frames, number, part, args)
            turns[name] = timed_by_all(work, world)
    return with_seconds(rows, rounds_of(turns, args.rounds, world), args)


def started(
    method: str, num_frames: int, processes: int, world: World, args: argparse.Namespace
) -> tuple[dict[str, Any], Callable[[], None]]:
    """What is known of a row before it is measured, and its training step."""
    size = Size(
        args.backbone, num_frames, args.crop_size, NUM_CLASSES, args.batch_size, world.device
    )
    model, work = ours(size, world, early=True, method=method)
    row = {
        "name": method,
        "num_frames": num_frames,
        "processes": processes,
        "gflop_per_clip": training_flops(Contender("vidadapt", method, "fp32"), size) / 1e9,
        "trainable": count_parameters(model)[0],
    }
    return row, work


def with_seconds(
    rows: dict[str, dict[str, Any]], seconds: dict[str, list[float]], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Rows with what was measured of them."""
    for name, row in rows.items():
        taken = median(seconds[name])
        row |= {
            "step_seconds": taken,
            "spread_percent": spread_percent(seconds[name]),
            "clips_per_second": row["processes"] * args.batch_size / taken,
            "seconds": seconds[name],
        }
    return list(rows.values())


if __name__ == "__main__":
    main()
