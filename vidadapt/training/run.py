"""One training run: its folder, then build, fit and summarise."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from vidadapt import data, distributed, launching, runs
from vidadapt.config import Config, TrainOptions
from vidadapt.data import DataPlan
from vidadapt.distributed import World, held_by_main, together
from vidadapt.features import fill_cache
from vidadapt.files import Lock
from vidadapt.training.log import SUMMARY, say_start, summarise
from vidadapt.training.loop import fit
from vidadapt.training.memory import reset_peak
from vidadapt.training.profiling import profiled
from vidadapt.training.setup import batches_of, set_up
from vidadapt.training.validation import validation_of


def train(world: World, cfg: Config, options: TrainOptions) -> list[Path]:
    """Train what `read_command` gave, all processes together; return the folder of the run.

    Raises:
        ValueError, OSError, ...: as `set_up`, `fit` and `runs.previous_run` raise them.
    """
    with together(world):
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
        whole = saved is not None and (run_dir / SUMMARY).exists()
        with nullcontext() if whole else launching.recorded(world, folder):
            _train(world, cfg, plan, options, folder, resume, saved, lock)
    return [] if options.profile else [run_dir]


def _train(
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
    reset_peak(world.device)  # a notebook may have computed before
    built = set_up(world, cfg, plan, saved)
    recipe, facts, videos = built.recipe, built.facts, built.lists["train"]
    filling = None if built.cached is None else fill_cache(built.cached)
    with together(world):
        if options.profile:
            runs.check_writable("run_dir", folder)
        elif world.is_main:
            runs.start_folder(folder, built.cfg, cfg.train, resume, saved, world)
        batches, skips = batches_of(built, folder)
    world = distributed.with_patience(world, recipe.patience_minutes)
    if world.is_main:
        say_start(built, options.dropped, world)
    about: dict[str, Any] = {
        "recipe": recipe,
        "num_classes": plan.num_classes,
        "paths": videos.samples.paths,
        "world": world,
        "description": runs.describe_adapter(built.cfg, plan, facts["backbone"], videos.manifest),
        "facts": facts,
        "resume_state": saved,
        "validation": validation_of(built, world),
        "select_best": "dev" in built.lists,
        "class_terms": built.class_terms,
        "skips": skips,
        "lock": lock,
    }
    if not options.profile:
        result = fit(built.model, batches, run_dir=folder, **about)
        summarise(folder, built, result, filling, batches, world)
        return
    timed = profiled(batches, built, options.profile, world, folder)
    with timed as (repeated, nowhere, phase):
        fit(built.model, repeated, run_dir=nowhere, phase=phase, **about)
