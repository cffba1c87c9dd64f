"""A configuration becomes all that a training run needs, on every process alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from vidadapt import config, data, distributed, methods, runs
from vidadapt.config import Config, ConfigError, TrainConfig, TrainOptions, parse_train
from vidadapt.data import (
    Batches,
    Changes,
    DataPlan,
    EpochBatches,
    SkipLog,
    TrainLoader,
    VideoList,
)
from vidadapt.distributed import World, together
from vidadapt.features import (
    Cache,
    CachedBatches,
    Halves,
    cut_in_two,
    plan_cache,
    run_from_features,
)
from vidadapt.lists import with_lists
from vidadapt.models import VideoModel, cast_frozen, over_all_processes, resolved_precision
from vidadapt.training.class_terms import ClassTerms, class_terms
from vidadapt.training.optim import highest_rate
from vidadapt.training.state import Progress
from vidadapt.training.trackers import require_trackers


@dataclass(frozen=True)
class Setup:
    """All that a run needs: the model, its data and its recipe.

    Attributes:
        cfg: the configuration, its batch size and accumulation shared among these processes.
        recipe: `cfg.train` with the precision that this machine computes in.
        plan: of the data.
        model: frozen and injected, on the device.
        parts: the model, cut in two; None: nothing asks for it.
        report: what was loaded, in words; empty: nothing.
        lists: by split.
        loaders: of the training list, and of the list that is validated on, by split.
        cached: features in the place of the videos; None: they are read.
        class_terms: of the loss.
        facts: what a checkpoint keeps, to be compared by a resume.
        highest: see `highest_rate`.
    """

    cfg: Config
    recipe: TrainConfig
    plan: DataPlan
    model: VideoModel
    parts: Halves | None
    report: str
    lists: dict[str, VideoList]
    loaders: dict[str, Any]
    cached: Cache | None
    class_terms: ClassTerms
    facts: dict[str, Any]
    highest: float

    @property
    def sampler(self) -> EpochBatches:
        """The training samples of each batch."""
        return cast(EpochBatches, self.loaders["train"].batch_sampler)


def read_command(words: Sequence[str], world: World) -> tuple[Config, TrainOptions]:
    """Read and check the options of `vidadapt train`.

    Raises:
        ConfigError, ValueError: an option that does not hold, naming it.
    """
    cfg, options = parse_train(list(words), methods.METHODS)
    cfg = runs.to_train_on(replace(cfg, data=with_lists(cfg.data)))
    config.check(cfg, world.size)
    if options.profile:  # which trains nothing that could be drawn
        cfg = replace(cfg, train=replace(cfg.train, trackers=[]))
    return cfg, options


def set_up(
    world: World,
    cfg: Config,
    plan: DataPlan,
    saved: dict[str, Any] | None,
    cut_for: str | None = None,
) -> Setup:
    """Build the model and look up the lists; what can be refused is refused here.

    Args:
        saved: the state of the run to resume, see `runs.previous_run`.
        cut_for: option that needs a model with a frozen half; a cache of features does anyway.

    Raises:
        ConfigError, ListError, ReadError, RunError, WeightsError: on the process that meets it; a
            `PeerError` on the others.
    """
    with together(world):
        if saved is not None:
            Progress.of(saved["progress"])
            cfg = replace(cfg, train=runs.shared_among(world.size, cfg.train, saved["facts"]))
            config.check(cfg, world.size)
        if world.is_main:
            require_trackers(cfg.train.trackers)
        recipe = replace(cfg.train, precision=resolved_precision(world.device, cfg.train.precision))
        torch.manual_seed(recipe.seed)
        model, report, backbone = runs.adapted_model(cfg, plan)
        # Of a grid some runs may have a checkpoint, which replaces this, and others none.
        if cfg.start is not None and (saved is None or cut_for is not None):
            runs.start_from_adapter(model, cfg, backbone)
        model.to(world.device)
        if recipe.sync_batchnorm and world.size > 1:
            over_all_processes(model.head, lambda sums: distributed.total_over_ranks(world, sums))
        methods.recompute_blocks(model, recipe.recompute)
        cut_for = "cache.dir" if cfg.cache.dir else cut_for
        parts = None if cut_for is None else cut_in_two(model, cfg.method["name"], cut_for)
        cast_frozen(model, world.device, recipe.precision)
    lists = distributed.from_main(world, lambda: load_lists(cfg, plan, recipe, world.size))
    terms = class_terms(recipe, lists["train"].samples.labels, plan.num_classes, world.device)
    balanced = cfg.data.class_sampling != "natural" or terms != ClassTerms()
    facts = {
        "processes": world.size,
        "global_batch": recipe.batch_size * recipe.accumulation * world.size,
        "backbone": backbone,
        "precision": recipe.precision,
        "manifests": {split: videos.manifest for split, videos in lists.items()},
        "cached": bool(cfg.cache.dir),
        "warnings": data.list_warnings(lists, plan, balanced=balanced),
        "settings": runs.kept_settings(cfg),
    }
    everyones = distributed.gather_objects(world, (saved and saved["progress"], facts))
    with together(world):
        if any(one != everyones[0] for one in everyones):
            raise ConfigError(
                "the processes see different run folders, lists or weights; put them on a disk "
                "that all machines share"
            )
        if saved is not None:
            runs.check_resumable(saved["facts"], facts)
        loaders = data.loaders_of(cfg, plan, lists, world.rank, world.size, world.device)
        cached = None
        if parts is not None and cfg.cache.dir:
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
    highest = highest_rate(recipe, loaders["train"].batch_sampler.steps)
    said = str(report) if report else ""
    return Setup(
        cfg, recipe, plan, model, parts, said, lists, loaders, cached, terms, facts, highest
    )


def load_lists(
    cfg: Config, plan: DataPlan, recipe: TrainConfig, processes: int
) -> dict[str, VideoList]:
    """Read the lists by split and look up their files, which may have to be decoded.

    What can be known to be wrong before that is found before.
    """
    splits = data.read_splits(cfg.data, plan)
    steps = data.steps_per_epoch(
        len(splits["train"]),
        batch_size=recipe.batch_size,
        world_size=processes,
        accumulation=recipe.accumulation,
        repeats=cfg.data.repeated_augmentation,
    )
    highest_rate(recipe, steps)
    return data.load_splits(cfg.data, plan, splits)


def batches_of(
    setup: Setup, folder: Path, runs_too: Sequence[Path] = ()
) -> tuple[Batches, SkipLog | None]:
    """Return what is trained on: clips of the videos, or the features of a filled cache.

    Args:
        folder: of the run, for what is noted of skipped clips and changed files.
        runs_too: folders of other runs that train on them; the same is noted there.

    Returns:
        The batches; and the log of the clips that they skip, None where none can be.
    """
    train, options = setup.lists["train"], setup.cfg.data
    most = data.most_skipped(options.max_skipped, setup.sampler.keys_per_epoch)
    skips, changed = ([run / name for run in runs_too] for name in (data.SKIPPED, data.CHANGED))
    log = SkipLog(folder / data.SKIPPED, train.samples, most, skips)
    changes = Changes(folder / data.CHANGED, options.changed, changed)
    for loader in setup.loaders.values():
        loader.changes = changes
    if setup.cached is not None and setup.parts is not None:
        run_from_features(setup.parts)
        return CachedBatches(setup.cached, train.samples.labels), None
    clips: TrainLoader = setup.loaders["train"]
    clips.log = log
    return clips, log
