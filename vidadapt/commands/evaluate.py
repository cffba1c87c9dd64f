"""Evaluate: load a run's checkpoint, score every view once, fuse, report."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from vidadapt import launching, runs
from vidadapt.apps.report import write_report_after
from vidadapt.config import Config, EvaluateOptions, parse_evaluate
from vidadapt.distributed import World, gather_objects, held_by_main, together
from vidadapt.files import check_writable_url
from vidadapt.launching import recorded
from vidadapt.methods import METHODS
from vidadapt.serving import evaluate_command, trained


def parse(argv: list[str]) -> tuple[Config | None, EvaluateOptions]:
    """Read the options over the configuration of the run that they name."""
    return parse_evaluate(argv, METHODS)


def main(world: World) -> int:
    """Evaluate as the command line says; all processes enter together."""
    with together(world):
        cfg, options, adapter = trained.asked(sys.argv[1:])
    if cfg is None:
        if world.is_main:
            evaluate_command.rescore(options)
            if options.out is not None:
                write_report_after(Path(options.out), world)
        return 0
    began = time.monotonic()
    with together(world):
        if options.mirror is not None:
            check_writable_url("--mirror", options.mirror)
        found = trained.find(cfg, options, adapter)
        out = trained.output_folder(found, "eval", options.out)
    with held_by_main(world, out, "--out"):
        loaded = trained.load(found, world)
        with together(world):
            evaluate_command.check_same_list(out, loaded.videos.manifest)
            job = trained.job(loaded, world)
        with recorded(world, out):
            evaluate_command.evaluate(world, loaded, job, out, began)
        write_report_after(out, world)
        problem = ""
        if options.mirror is not None and world.is_main:
            problem = runs.copy_results(out, options.mirror, "metrics.json")
            print(f"warning: {problem}" if problem else f"copied to {options.mirror}")
    return int(any(gather_objects(world, problem)))


def run() -> None:
    """Run this process's command line."""
    launching.launch(main, goes_on="; the same command goes on")
