"""A configuration becomes all that a training run needs, on every process alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from vidadapt import config, data, distributed, methods, runs
from vidadapt.config import Config, ConfigError, TrainConfig, command_line, yaml_files
from vidadapt.config.command_line import TrainOptions
from vidadapt.data import DataPlan, VideoList
from vidadapt.data.batches import Batches
from vidadapt.data.changes import CHANGED, Changes
from vidadapt.data.epochs import EpochBatches
from vidadapt.data.skips import SKIPPED, SkipLog, most_skipped
from vidadapt.data.watched import WatchedClips
from vidadapt.distributed import World, together
from vidadapt.features import Cache, CachedBatches, cut_in_two, plan_cache, run_from_features
from vidadapt.files.locks import refuse_held
from vidadapt.lists.prepared import with_lists
from vidadapt.models import VideoModel
from vidadapt.models.batchnorm import over_all_processes
from vidadapt.models.precision import cast_frozen, resolved_precision
from vidadapt.runs import assemble, checkpoints
from vidadapt.training import continuing, recompute
from vidadapt.training.lists import highest_rate, load_lists
from vidadapt.training.validation import Validation


@dataclass(frozen=True)
class Setup:
    """What a run trains, on what, and how.

    Attributes:
        cfg: the configuration, its batch size and accumulation shared among these processes.
        recipe: `cfg.train` with the precision that this machine computes in.
        plan: of the data.
        model: frozen and injected, on the device.
        report: what was loaded, in words; empty: nothing.
        lists: by split.
        loaders: of the training list, and of the list that is validated on, by split.
        cached: features in the place of the videos; None: they are read.
        facts: what a checkpoint keeps, to be compared by a resume.
        highest: the highest learning rate as a share of its peak, see `highest_rate`.
    """

    cfg: Config
    recipe: TrainConfig
    plan: DataPlan
    model: VideoModel
    report: str
    lists: dict[str, VideoList]
    loaders: dict[str, Any]
    cached: Cache | None
    facts: dict[str, Any]
    highest: float

    @property
    def sampler(self) -> EpochBatches:
        """Which training samples are in which batch."""
        return cast(EpochBatches, self.loaders["train"].batch_sampler)


def read_command(words: Sequence[str], world: World) -> tuple[Config, TrainOptions]:
    """Read and check the options of `tools/train.py`.

    Raises:
        ConfigError, ValueError: an option that does not hold, naming it.
    """
    cfg, options = command_line.parse_train(list(words), methods.METHODS)
    cfg = replace(cfg, data=with_lists(cfg.data))
    config.check(cfg, world.size)
    return cfg, options


def require_weights(cfg: Config) -> None:
    """Refuse a new run on random weights that nobody asked for.

    Raises:
        ConfigError: `model.weights` is not set.
    """
    if cfg.model.weights is None:
        raise ConfigError(
            "model.weights: is not set, and a backbone of random weights adapts to nothing; give "
            "a file of pre-trained weights, or `--model.weights random` where it is meant"
        )


def build(world: World, cfg: Config, plan: DataPlan, saved: dict[str, Any] | None) -> Setup:
    """Build the model and look up the lists; what can be refused is refused here.

    Args:
        saved: the state of the run to continue, see `continuing.previous_run`.

    Raises:
        ConfigError, ListError, ReadError, WeightsError: on the process that meets it; a
            `PeerError` on the others.
    """
    with together(world):
        if saved is not None:
            cfg = replace(cfg, train=continuing.shared_among(world.size, cfg.train, saved["facts"]))
            config.check(cfg, world.size)
        recipe = replace(cfg.train, precision=resolved_precision(world.device, cfg.train.precision))
        torch.manual_seed(recipe.seed)
        model, report, backbone = assemble.adapted_model(cfg, plan)
        model.to(world.device)
        if recipe.sync_batchnorm and world.size > 1:
            over_all_processes(model.head, lambda sums: distributed.total_over_ranks(world, sums))
        recompute.recompute_blocks(model, recipe.recompute)
        parts = cut_in_two(model, cfg.method["name"]) if cfg.cache.dir else None
        cast_frozen(model, world.device, recipe.precision)
    lists = distributed.from_main(world, lambda: load_lists(cfg, plan, recipe, world))
    facts = {
        "processes": world.size,
        "global_batch": recipe.batch_size * recipe.accumulation * world.size,
        "backbone": backbone,
        "precision": recipe.precision,
        "manifests": {split: videos.manifest for split, videos in lists.items()},
        "cached": parts is not None,
        "settings": continuing.kept_settings(cfg),
    }
    everyones = distributed.gather_objects(world, (saved and saved["progress"], facts))
    with together(world):
        if any(one != everyones[0] for one in everyones):
            raise ConfigError(
                "the processes see different run folders, lists or weights; put them on a disk "
                "that all machines share"
            )
        if saved is not None:
            continuing.check_resumable(saved["facts"], facts)
        highest = highest_rate(cfg, recipe, len(lists["train"].samples), world)
        loaders = loaders_of(cfg, plan, lists, world)
        cached = None
        if parts is not None:
            cached = plan_cache(
                cfg,
                plan,
                parts,
                lists,
                loaders,
                backbone=backbone,
                precision=recipe.precision,
                world=world,
            )
    said = str(report) if report else ""
    return Setup(cfg, recipe, plan, model, said, lists, loaders, cached, facts, highest)


def loaders_of(
    cfg: Config, plan: DataPlan, lists: dict[str, VideoList], world: World
) -> dict[str, Any]:
    """Training clips; and centre views of the development list, else the test list, if any."""
    share: dict[str, Any] = {
        "rank": world.rank,
        "world_size": world.size,
        "pin_memory": world.device.type == "cuda",
    }
    loaders: dict[str, Any] = {
        "train": data.train_loader(
            cfg.data,
            plan,
            lists["train"],
            batch_size=cfg.train.batch_size,
            accumulation=cfg.train.accumulation,
            seed=cfg.train.seed,
            **share,
        )
    }
    split = "dev" if "dev" in lists else "test"
    if split in lists:
        loaders[split] = data.eval_loader(
            cfg.data, plan, lists[split], num_clips=1, num_crops=1, **share
        )
    return loaders


def batches_of(setup: Setup, folder: Path) -> tuple[Batches, SkipLog | None]:
    """Return what is trained on: clips of the videos, or the features of a filled cache.

    Args:
        folder: of the run, for what is noted of skipped clips and changed files.

    Returns:
        The batches; and the log of the clips that they skip, None where none can be.
    """
    train, data = setup.lists["train"], setup.cfg.data
    most = most_skipped(data.max_skipped, setup.sampler.keys_per_epoch)
    skips = SkipLog(folder / SKIPPED, train.samples, most)
    changes = Changes(folder / CHANGED, data.changed)
    for split in setup.loaders.keys() - {"train"}:
        setup.loaders[split].changes = changes
    if setup.cached is not None:
        run_from_features(setup.cached.parts)
        return CachedBatches(setup.cached, train.samples.labels), None
    clips = WatchedClips(
        setup.loaders["train"],
        normalization=setup.plan.normalization,
        clip_timeout=data.clip_timeout,
        log=skips,
        changes=changes,
    )
    return clips, skips


def validation_of(setup: Setup, world: World) -> Validation | None:
    """Return what is validated on: the list that has a loader beside the training list, if any."""
    split = next((name for name in setup.loaders if name != "train"), None)
    if split is None:
        return None
    return Validation(
        split,
        setup.lists[split],
        setup.loaders[split],
        None if setup.cached is None else replace(setup.cached, world=world),
        setup.plan,
        setup.cfg.eval,
        setup.recipe.precision,
        world,
    )


def check_free(run_dir: Path, resume: bool) -> None:
    """As `runs.check_free`; where another process is at work in the folder, that is said."""
    try:
        runs.check_free(run_dir, resume)
    except runs.RunError:
        refuse_held(run_dir, "run_dir")
        raise


def start_folder(
    run_dir: Path,
    cfg: Config,
    asked: TrainConfig,
    resume: bool,
    saved: dict[str, Any] | None,
    world: World,
) -> None:
    """Create or continue a run's folder: its configuration, environment and logs.

    Args:
        asked: the recipe as it was asked for, before it was shared among these processes.
    """
    runs.create(run_dir, resume)
    runs.write_text(run_dir / "config.yaml", yaml_files.dump(cfg))
    runs.write_json(run_dir / runs.ENVIRONMENT, runs.environment(world.size, str(world.device)))
    done = 0 if saved is None else saved["progress"]["epoch"]
    for log in ("log.jsonl", "steps.jsonl"):
        runs.drop_lines_from(run_dir / log, "epoch", done + 1)
    if saved is not None:
        checkpoints.set_aside_damaged(run_dir / "last")
        begun = f" and {saved['progress']['consumed']} clips" * (saved["progress"]["consumed"] > 0)
        print(f"resuming {run_dir} after epoch {done}{begun}")
        if "settings" not in saved["facts"]:
            print("the checkpoint, of an older version, does not say of which run it is")
        continuing.say_processes(saved["facts"], asked, cfg.train, world)
    elif resume:
        print(f"{run_dir} holds no checkpoint to resume: starting from the beginning")
