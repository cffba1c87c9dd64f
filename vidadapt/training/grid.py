"""A grid of runs that train side by side: learning rates x weight decays, one folder each.

run_dir/grid.json         the runs, how each ended, and the best by the development list
run_dir/lr0.1_wd0.05/...  an ordinary run of train.base_lr 0.1 and train.weight_decay 0.05
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidadapt import config, data, distributed, launching, runs
from vidadapt.config import Config, ConfigError, GridOptions, TrainConfig, TrainOptions
from vidadapt.distributed import World, from_main, gather_objects, held_by_main, together
from vidadapt.features import Halves, copy_sharing_frozen, cut_in_two, fill_cache, run_from_features
from vidadapt.files import Lock, write_json, write_text
from vidadapt.models import NonFinite
from vidadapt.training.log import say_start, summarise
from vidadapt.training.memory import reset_peak
from vidadapt.training.setup import Setup, batches_of, set_up
from vidadapt.training.side_by_side import Member, fit_side_by_side
from vidadapt.training.state import Progress
from vidadapt.training.validation import validation_of

OPTION = "--grid"


def configurations(cfg: Config, grid: GridOptions) -> dict[str, Config]:
    """Return the configuration of each run by the name of its folder, those of a rate together.

    Raises:
        ConfigError: a value that is twice in a list, or an empty list.
    """
    recipe = cfg.train
    values = {
        "base_lr": [recipe.base_lr] if grid.base_lr is None else grid.base_lr,
        "weight_decay": [recipe.weight_decay] if grid.weight_decay is None else grid.weight_decay,
    }
    for key, given in values.items():
        # Six digits of a value name its folder.
        if not given or len({f"{value:g}" for value in given}) < len(given):
            raise ConfigError(f"{OPTION}.{key}: expected some values, each once, got {given}")
    found = {}
    for rate, decay in itertools.product(*values.values()):
        name = f"lr{rate:g}_wd{decay:g}"
        own = replace(recipe, base_lr=rate, weight_decay=decay)
        found[name] = replace(cfg, train=own, run_dir=str(Path(cfg.run_dir) / name))
    return found


def check_grid(cfg: Config, grid: GridOptions, world_size: int) -> None:
    """Check for what a grid cannot do, from the configuration alone.

    Raises:
        ConfigError: it names the keys.
    """
    if cfg.data.dev_list is None:
        raise ConfigError(
            f"data.dev_list: {OPTION} chooses among its runs by it; give a development list"
        )
    asked = {
        "train.compile": cfg.train.compile,
        "train.shard": cfg.train.shard,
        "train.trackers": bool(cfg.train.trackers),
    }
    for key in (key for key, is_asked in asked.items() if is_asked):
        raise ConfigError(f"{key}: does not work with {OPTION}; leave one of them out")
    for one in configurations(cfg, grid).values():
        config.check(one, world_size)


def train_grid(world: World, cfg: Config, options: TrainOptions) -> list[Path]:
    """Train the runs of a grid; all processes enter together.

    Returns:
        The folders of the runs that have come to their end.

    Raises:
        ValueError, OSError, ...: as `run.train` raises them.
        NonFinite: all of them diverged.
    """
    assert options.grid is not None
    with together(world):
        check_grid(cfg, options.grid, world.size)
        root, resume = Path(cfg.run_dir), options.resume or launching.restarted()
        runs.check_startable(root, resume, grid=True)
    configs = configurations(cfg, options.grid)
    wait = 60.0 if launching.restarted() else 0.0
    with ExitStack() as stack:
        stack.enter_context(held_by_main(world, root, "run_dir", wait=wait))
        stack.enter_context(launching.recorded(world, root))
        locks = {
            name: stack.enter_context(held_by_main(world, root / name, "run_dir", wait=wait))
            for name in configs
        }
        return _train(world, cfg, configs, options, root, resume, locks)


def _train(
    world: World,
    cfg: Config,
    configs: dict[str, Config],
    options: TrainOptions,
    root: Path,
    resume: bool,
    locks: dict[str, Lock | None],
) -> list[Path]:
    reset_peak(world.device)
    with together(world):
        plan = data.resolve(cfg.data, cfg.eval)
        saved = {name: runs.previous_run(root / name, one, resume) for name, one in configs.items()}
    places = gather_objects(
        world, {name: state and state["progress"] for name, state in saved.items()}
    )
    with together(world):
        if any(one != places[0] for one in places):
            raise ConfigError(
                "the processes see different run folders; put them on a disk that all share"
            )
    before = from_main(world, lambda: _diverged_before(root, list(configs)) if resume else {})
    resumed = [state for state in saved.values() if state is not None]
    built = set_up(world, cfg, plan, resumed[0] if resumed else None, OPTION)
    with together(world):
        members = _members(world, built, configs, saved, before, root, locks)
    filling = None if built.cached is None else fill_cache(built.cached)
    with together(world):
        if world.is_main:
            for member in members:
                if member.error is None:
                    _start_folder(member, configs[member.name], cfg.train, resume, world)
            write_json(root / runs.GRID, _facts(members, {}))
        # After the folders, whose files of notes it reads.
        batches, skips = batches_of(built, root, [member.folder for member in members])
    for member in members:
        member.parts.model.eval()  # also of one that is not trained, whose frozen half may be used
        run_from_features(member.parts)
    world = distributed.with_patience(world, built.recipe.patience_minutes)
    if world.is_main:
        say_start(built, options.dropped, world, f"a grid of {len(members)} runs")
    validation = validation_of(built, world)
    assert validation is not None and validation.split == "dev"
    assert built.parts is not None
    trackers = fit_side_by_side(
        members,
        batches,
        encode=built.parts.features if built.cached is None else lambda features: features,
        num_classes=plan.num_classes,
        paths=built.lists["train"].samples.paths,
        world=world,
        validation=validation,
        class_terms=built.class_terms,
        skips=skips,
    )
    for member in members:
        if member.error is None:
            own = replace(built, cfg=configs[member.name], facts=member.facts)
            result = member.progress.result(member.recipe.epochs)
            result |= {"trackers": trackers, "side_by_side": len(members)}
            summarise(member.folder, own, result, filling, batches, world, said=False)
    reasons = _reasons(world, members)
    finished = [member for member in members if member.error is None]
    if world.is_main:
        facts = _facts(members, reasons)
        write_json(root / runs.GRID, facts)
        _say(root, facts)
    if not finished:
        raise NonFinite(f"all runs of the grid diverged: {next(iter(reasons.values()))}")
    return [member.folder for member in finished]


def _members(
    world: World,
    built: Setup,
    configs: dict[str, Config],
    saved: dict[str, dict[str, Any] | None],
    before: dict[str, str],
    root: Path,
    locks: dict[str, Lock | None],
) -> list[Member]:
    """Make the runs of the grid, their models copies of one; all processes call it alike.

    Raises:
        ConfigError: one cannot be resumed with the others.
    """
    assert built.parts is not None
    videos = built.lists["train"]
    first: Halves | None = built.parts
    members = []
    for name, asked in configs.items():
        recipe = replace(
            built.cfg.train, base_lr=asked.train.base_lr, weight_decay=asked.train.weight_decay
        )
        own = configs[name] = replace(asked, train=recipe)
        facts = {**built.facts, "settings": runs.kept_settings(own)}
        state = saved[name]
        if state is not None:
            runs.check_resumable(state["facts"], facts)
        model = built.parts.model if first is not None else copy_sharing_frozen(built.parts.model)
        parts, first = first or cut_in_two(model, own.method["name"], OPTION), None
        progress = Progress() if state is None else Progress.of(state["progress"])
        members.append(
            Member(
                name,
                root / name,
                parts,
                replace(own.train, precision=built.recipe.precision),
                runs.describe_adapter(own, built.plan, facts["backbone"], videos.manifest),
                facts,
                locks[name],
                state,
                NonFinite(before[name]) if name in before else None,
                progress,
            )
        )
    return members


def _start_folder(
    member: Member, own: Config, asked: TrainConfig, resume: bool, world: World
) -> None:
    (member.folder / launching.FAILURE).unlink(missing_ok=True)
    runs.start_folder(member.folder, own, asked, resume, member.resume_state, world)
    for name in (data.SKIPPED, data.CHANGED):
        notes = member.folder.parent / name
        if notes.exists():
            write_text(member.folder / name, notes.read_text(encoding="utf-8"))


def _diverged_before(root: Path, names: Sequence[str]) -> dict[str, str]:
    """Return why runs diverged when the grid was trained before: they would do so again."""
    failures = {name: launching.read_failure(root / name) for name in names}
    return {
        name: failure["message"]
        for name, failure in failures.items()
        if failure is not None and failure["kind"] == "diverged"
    }


def _reasons(world: World, members: Sequence[Member]) -> dict[str, str]:
    """Return by name why members diverged, as the process says it that met it."""
    own = {
        member.name: (not isinstance(member.error, NonFinite), str(member.error))
        for member in members
        if member.error is not None
    }
    everyones = gather_objects(world, own)
    return {name: min(found[name] for found in everyones)[1] for name in own}


def _facts(members: Sequence[Member], reasons: dict[str, str]) -> dict[str, Any]:
    """Return the content of grid.json."""
    found: list[dict[str, Any]] = []
    select = members[0].recipe.select
    key = f"dev_{select}"
    for member in members:
        best = member.progress.best or {}
        found.append(
            {
                "run": member.name,
                "base_lr": member.recipe.base_lr,
                "weight_decay": member.recipe.weight_decay,
                "best_epoch": best.get("epoch"),
                "dev_top1": best.get("dev_top1"),
                "dev_mean_class_accuracy": best.get("dev_mean_class_accuracy"),
                **({"dev_map": best.get("dev_map")} if select == "map" else {}),
                "epochs": member.progress.epoch,
                "diverged": reasons.get(member.name),
            }
        )
    whole = [one for one in found if one["diverged"] is None and one[key] is not None]
    chosen = max(whole, key=lambda one: one[key])["run"] if whole else None  # the first
    return {"best": chosen, "select": select, "runs": found}


def _say(root: Path, facts: dict[str, Any]) -> None:
    """Print how each run ended, and the best."""
    key = f"dev_{facts['select']}"
    for one in facts["runs"]:
        if one["diverged"] is not None:
            print(f"  {one['run']}: diverged after {one['epochs']} epochs: {one['diverged']}")
        else:
            print(f"  {one['run']}: {key} {one[key]:.2f} in epoch {one['best_epoch']}")
    if facts["best"] is not None:
        best = f"best on the development list: {root / facts['best']}"
        print(f"{best}; {root / runs.GRID} has all", flush=True)


def read_grid(root: Path) -> dict[str, Any] | None:
    """Read a folder's grid.json; None: it has none."""
    file = root / runs.GRID
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
