"""From the command to the first training step: seconds of a process that ends there.

A list of small generated videos is trained on by `vidadapt train`, each time in a new process. The
first run counts the frames of the list and is left out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.report import rows_table
from benchmarks.small_runs import add_shape, check, finish, generated, options_of, words_of
from benchmarks.timing import Target
from vidadapt.apps.study.benchmark import spread_percent

GOAL = 6.0
ENDED = 77
# `vidadapt train`, which ends with its first step. Its order: loaders begin before torch is there.
TRAIN = f"""
import os, sys
from vidadapt import cli
cli.begin_loaders()
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *_: os._exit({ENDED}))
cli.run("train", sys.argv[1:])
"""


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    check(args, "first_step", {"clips": 2, "rounds": 1})
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder) / "videos"
        generated(videos, args.clips)
        seconds = [first_step(args, videos, Path(folder) / str(n)) for n in range(1 + args.rounds)]
    counted = seconds[1:]
    found = median(counted)
    row = {
        "name": f"{args.clips} clips",
        "first_step_seconds": found,
        "spread_percent": spread_percent(counted),
        "seconds": counted,
    }
    name = "from the command to the first step, s"
    targets = [Target(name, GOAL, "<=", found)]
    columns = {"first step s": ("first_step_seconds", ".2f"), "spread %": ("spread_percent", ".0f")}
    finish(args, "first_step", [row], targets, rows_table([row], columns, "list"))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_shape(parser)
    parser.set_defaults(backbone="vit_small", crop_size=112, batch_size=4)
    parser.add_argument("--clips", type=int, default=50, help="of the list (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="that count (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def first_step(args: argparse.Namespace, videos: Path, run_dir: Path) -> float:
    """Seconds of one run, with the loader processes that `train` chooses."""
    options = options_of(args, videos, run_dir, {"train.epochs": 1})
    del options["data.num_workers"]
    began = time.monotonic()
    command = [sys.executable, "-c", TRAIN, *words_of(options)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if done.returncode != ENDED:
        sys.exit(f"first_step: vidadapt train ended with status {done.returncode}")
    return time.monotonic() - began


if __name__ == "__main__":
    main()
