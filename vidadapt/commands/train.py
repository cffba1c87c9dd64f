"""Train: read the command, and train."""

from __future__ import annotations

import sys
from pathlib import Path

from vidadapt import launching, training
from vidadapt.apps.report import write_report_after
from vidadapt.config import Config, TrainOptions, parse_train
from vidadapt.distributed import World, together
from vidadapt.methods import METHODS


def parse(argv: list[str]) -> tuple[Config, TrainOptions]:
    """Read the configuration and the other options."""
    return parse_train(argv, METHODS)


def main(world: World) -> None:
    """Train as the command line says; all processes enter together."""
    with together(world):
        cfg, options = training.read_command(sys.argv[1:], world)
    if options.grid is not None:
        folders = training.train_grid(world, cfg, options)
    else:
        training.train(world, cfg, options)
        folders = [] if options.profile else [Path(cfg.run_dir)]
    for folder in folders:
        write_report_after(folder, world)


def run() -> None:
    """Run this process's command line."""
    launching.launch(main, goes_on="; continue with --resume")
