"""Train: read the command, build, fit, summarise."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from vidadapt import data, distributed, launching, runs, training
from vidadapt.config import Config, TrainOptions, parse_train
from vidadapt.data import DataPlan
from vidadapt.distributed import World, held_by_main, together
from vidadapt.features import fill_cache
from vidadapt.files import Lock
from vidadapt.methods import METHODS


def parse(argv: list[str]) -> tuple[Config, TrainOptions]:
    """Read the configuration and the other options."""
    return parse_train(argv, METHODS)


def main(world: World) -> None:
    with together(world):
        cfg, options = training.read_command(sys.argv[1:], world)
        run_dir, resume = Path(cfg.run_dir), options.resume or launching.restarted()
        # Before the lock, which a start that is refused must not keep from another.
        runs.check_startable(run_dir, resume or bool(options.profile))
    # The processes that torchrun replaces may not have ended on all machines.
    wait = 60.0 if launching.restarted() else 0.0
    with held_by_main(world, run_dir, "run_dir", wait=wait) as lock:
        with together(world):
            plan = data.resolve(cfg.data, cfg.eval)
            saved = None if options.profile else runs.previous_run(run_dir, cfg, resume)
        folder = run_dir / runs.PROFILE if options.profile else run_dir
        # A start that is refused says nothing of a run that has come to its end.
        whole = saved is not None and (run_dir / training.SUMMARY).exists()
        with nullcontext() if whole else launching.recorded(world, folder):
            train(world, cfg, plan, options, folder, resume, saved, lock)


def train(
    world: World,
    cfg: Config,
    plan: DataPlan,
    options: TrainOptions,
    folder: Path,
    resume: bool,
    saved: dict[str, Any] | None,
    lock: Lock | None,
) -> None:
    """Build, fit, summarise; or with `--profile` time some steps."""
    built = training.set_up(world, cfg, plan, saved)
    recipe, facts, videos = built.recipe, built.facts, built.lists["train"]
    filling = None if built.cached is None else fill_cache(built.cached)
    with together(world):
        if options.profile:
            runs.check_writable("run_dir", folder)
        elif world.is_main:
            runs.start_folder(folder, built.cfg, cfg.train, resume, saved, world)
        batches, skips = training.batches_of(built, folder)
    world = distributed.with_patience(world, recipe.patience_minutes)
    if world.is_main:
        training.say_start(built, options.dropped, world)
    about: dict[str, Any] = {
        "recipe": recipe,
        "num_classes": plan.num_classes,
        "paths": videos.samples.paths,
        "world": world,
        "description": runs.describe_adapter(built.cfg, plan, facts["backbone"], videos.manifest),
        "facts": facts,
        "resume_state": saved,
        "validation": training.validation_of(built, world),
        "select_best": "dev" in built.lists,
        "skips": skips,
        "lock": lock,
    }
    if not options.profile:
        result = training.fit(built.model, batches, run_dir=folder, **about)
        training.summarise(folder, built, result, filling, batches, world)
        return
    timed = training.profiled(batches, built, options.profile, world, folder)
    with timed as (repeated, nowhere, phase):
        training.fit(built.model, repeated, run_dir=nowhere, phase=phase, **about)


def run() -> None:
    """Run this process's command line."""
    launching.launch(main, goes_on="; continue with --resume")
