"""Train: read the command, and train."""

from __future__ import annotations

import sys
from pathlib import Path

from vidadapt import launching, runs, training
from vidadapt.apps.report import write_report_after
from vidadapt.config import Config, TrainOptions, parse_train
from vidadapt.distributed import World, together
from vidadapt.methods import METHODS


def parse(argv: list[str]) -> tuple[Config, TrainOptions]:
    """Read the configuration and the other options."""
    return parse_train(argv, METHODS)


def main(world: World) -> int:
    """Train as the command line says; all processes enter together."""
    with together(world):
        cfg, options = training.read_command(sys.argv[1:], world)
    resume = options.resume or launching.restarted()
    with runs.mirrored(world, Path(cfg.run_dir), options.mirror, resume) as failed:
        train = training.train if options.grid is None else training.train_grid
        for folder in train(world, cfg, options):
            write_report_after(folder, world)
    return len(failed)


def run() -> None:
    """Run this process's command line."""
    launching.launch(main, goes_on="; continue with --resume")
