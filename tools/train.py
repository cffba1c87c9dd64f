"""Train: parse, build, load lists, fit, summarise."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from vidadapt import config, data, distributed, launching, methods, runs
from vidadapt.config import Config, ConfigError, TrainConfig, command_line, yaml_files
from vidadapt.config.command_line import TrainOptions
from vidadapt.console.naming import printable
from vidadapt.console.progress import duration
from vidadapt.data import DataPlan, VideoList
from vidadapt.data.changes import CHANGED, Changes, read_changes
from vidadapt.data.epochs import EpochBatches, steps_per_epoch
from vidadapt.data.skips import SKIPPED, SkipLog, most_skipped, read_skips
from vidadapt.data.watched import WatchedClips
from vidadapt.distributed import World, held_by_main, together
from vidadapt.evaluation.views import metrics, score_views
from vidadapt.features import cache
from vidadapt.features import halves as features
from vidadapt.features.cache import Cache
from vidadapt.features.cached_training import CachedBatches, score_features
from vidadapt.files.locks import Lock, refuse_held
from vidadapt.files.retrying import said
from vidadapt.launching.failures import recorded
from vidadapt.lists.prepared import with_lists
from vidadapt.lists.quarantine import read_quarantine
from vidadapt.lists.reading import Samples, check_label_names, read_list, shared_paths
from vidadapt.lists.videos import Videos
from vidadapt.models.batchnorm import over_all_processes
from vidadapt.models.precision import cast_frozen, resolved_precision
from vidadapt.runs import adapters, assemble, checkpoints
from vidadapt.training import continuing, optim, recompute
from vidadapt.training.loop import classification_loss, fit, normalized_clip
from vidadapt.training.profiling import profile_steps

SUMMARY = "summary.json"
FEW_VIDEOS = 30  # of a development list: one of fewer moves its accuracy by more than 3 %


def main(world: World) -> None:
    with together(world):
        cfg, options = command_line.parse_train(sys.argv[1:], methods.METHODS)
        cfg = replace(cfg, data=with_lists(cfg.data))
        config.check(cfg, world.size)
        resume = options.resume or launching.restarted()
        # Before the lock, which a start that is refused must not keep from another.
        check_free(Path(cfg.run_dir), resume or bool(options.profile))
    run_dir = Path(cfg.run_dir)
    # The processes that torchrun replaces may not have ended on all machines.
    wait = 60.0 if launching.restarted() else 0.0
    with held_by_main(world, run_dir, "run_dir", wait=wait) as lock:
        with together(world):
            plan = data.resolve(cfg.data, cfg.eval)
            saved = None if options.profile else continuing.previous_run(run_dir, cfg, resume)
            if cfg.model.weights is None and saved is None and not options.profile:
                raise ConfigError(
                    "model.weights: is not set, and a backbone of random weights adapts to "
                    "nothing; give a file of pre-trained weights, or `--model.weights random` "
                    "where it is meant"
                )
        folder = run_dir / runs.PROFILE if options.profile else run_dir
        # A start that is refused says nothing of a run that has come to its end.
        whole = saved is not None and (run_dir / SUMMARY).exists()
        with nullcontext() if whole else recorded(world, folder):
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
    """Build, load lists, fit, summarise."""
    with together(world):
        asked = cfg.train
        if saved is not None:
            cfg = replace(cfg, train=continuing.shared_among(world.size, cfg.train, saved["facts"]))
            config.check(cfg, world.size)
        recipe = replace(cfg.train, precision=resolved_precision(world.device, cfg.train.precision))
        global_batch = recipe.batch_size * recipe.accumulation * world.size
        torch.manual_seed(recipe.seed)
        model, report, backbone = assemble.adapted_model(cfg, plan)
        model.to(world.device)
        if recipe.sync_batchnorm and world.size > 1:
            over_all_processes(model.head, lambda sums: distributed.total_over_ranks(world, sums))
        recompute.recompute_blocks(model, recipe.recompute)
        parts = features.split(model, cfg.method["name"]) if cfg.cache.dir else None
        cast_frozen(model, world.device, recipe.precision)
    lists = distributed.from_main(world, lambda: load_lists(cfg, plan, recipe, world))
    facts = {
        "processes": world.size,
        "global_batch": global_batch,
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
        batch_sampler = cast(EpochBatches, loaders["train"].batch_sampler)
        cached = None
        if parts is not None:
            cached = cache.plan_cache(
                cfg,
                plan,
                parts,
                lists,
                loaders,
                backbone=backbone,
                precision=recipe.precision,
                world=world,
            )
    filling = None if cached is None else cache.fill(cached, recipe.epochs)
    with together(world):
        if options.profile:
            runs.check_writable("run_dir", folder)
        elif world.is_main:
            start_folder(folder, cfg, asked, resume, saved, world)
        skips = SkipLog(
            folder / SKIPPED,
            lists["train"].samples,
            most_skipped(cfg.data.max_skipped, batch_sampler.keys_per_epoch),
        )
        changes = Changes(folder / CHANGED, cfg.data.changed)
        for split in loaders.keys() - {"train"}:
            loaders[split].changes = changes
    world = distributed.with_patience(world, recipe.patience_minutes)
    trainable, total = methods.count_parameters(model)
    if world.is_main:
        for line in options.dropped:
            print(line)
        lr = optim.effective_lr(cfg.train.base_lr, global_batch)
        print(f"{report}\n" if report else "BACKBONE: RANDOM WEIGHTS, NOTHING IS PRE-TRAINED")
        print(
            f"{cfg.method['name']}: {trainable:,} of {total:,} parameters train "
            f"({100 * trainable / total:.2f} %); lr {lr:g} (base_lr {cfg.train.base_lr:g} x global "
            f"batch {global_batch} / 256); {len(lists['train'].samples)} videos, "
            f"{batch_sampler.steps} steps an epoch; "
            f"{recipe.precision} on {world.size} x {world.device.type}",
            flush=True,
        )
        if highest < 1:
            print(
                "warning: train.warmup_epochs last to the end of the run: the rate only rises, to "
                f"{highest:.0%} of its peak"
            )
        for name, videos in lists.items():
            say_defects(name, videos)
        if "dev" in lists and len(lists["dev"].samples) < FEW_VIDEOS:
            print(
                f"warning: data.dev_list holds {len(lists['dev'].samples)} videos: `best` is an "
                "epoch chosen largely by chance"
            )

    batches: Any = WatchedClips(
        loaders["train"], clip_timeout=cfg.data.clip_timeout, log=skips, changes=changes
    )
    prepare: Callable[[dict[str, Any]], Any] = partial(
        normalized_clip, normalization=plan.normalization, device=world.device
    )
    if cached is not None:
        cached = replace(cached, world=world)
        batches = CachedBatches(cached, lists["train"].samples.labels)
        prepare = batches.prepare
        features.run_from_features(cached.parts)
    run = partial(
        fit,
        model,
        recipe=recipe,
        num_classes=plan.num_classes,
        prepare=prepare,
        paths=lists["train"].samples.paths,
        loss=partial(classification_loss, label_smoothing=recipe.label_smoothing),
        world=world,
        description=adapters.describe(cfg, plan, backbone, lists["train"].manifest),
        facts=facts,
        resume_state=saved,
        validate=validation(model, cfg, plan, lists, loaders, cached, world),
        select_best="dev" in lists,
        skips=skips if cached is None else None,
        lock=lock,
    )
    if options.profile:
        profile_steps(
            run,
            batches,
            steps=options.profile,
            accumulation=recipe.accumulation,
            clips_per_step=global_batch,
            device=world.device,
            folder=folder if world.is_main else None,
        )
        return
    result = run(batches, run_dir=folder)
    watched = [one for one in (batches, *loaders.values()) if hasattr(one, "again")]
    again = [line for one in watched for line in one.again]
    again = [line for part in distributed.gather_objects(world, again) for line in part]
    if world.is_main:
        summary = {
            "method": cfg.method["name"],
            "trainable": trainable,
            "total": total,
            **result,
            "cache": filling,
            "left_out": list(lists["train"].left_out),
            "skipped": len(read_skips(folder / SKIPPED)),
            "tried_again": again,
            "changed": list(read_changes(folder / CHANGED).values()),
            "warnings": {name: list(videos.warnings) for name, videos in lists.items()},
            "manifests": {name: videos.manifest for name, videos in lists.items()},
        }
        runs.write_json(folder / SUMMARY, summary)
        say_summary(folder, summary)


def check_free(run_dir: Path, resume: bool) -> None:
    """As `runs.check_free`; where another process is at work in the folder, that is said."""
    try:
        runs.check_free(run_dir, resume)
    except runs.RunError:
        refuse_held(run_dir, "run_dir")
        raise


def load_lists(
    cfg: Config, plan: DataPlan, recipe: TrainConfig, world: World
) -> dict[str, VideoList]:
    """The lists that are set, by split, with their files looked up, which may have to be decoded.

    What can be known to be wrong before that is found before.
    """
    samples = read_lists(cfg, plan)
    check_classes(samples["train"], plan, cfg)
    highest_rate(cfg, recipe, len(samples["train"]), world)
    lists = {
        split: data.load_list(
            cfg.data,
            plan,
            getattr(cfg.data, f"{split}_list"),
            listed,
            training=split == "train",
        )
        for split, listed in samples.items()
    }
    check_classes(lists["train"].samples, plan, cfg)
    return lists


def read_lists(cfg: Config, plan: DataPlan) -> dict[str, Samples]:
    """The lists that are set, by split, with what can be known to be wrong before any look-up."""
    given = {
        "train": cfg.data.train_list,
        "dev": cfg.data.dev_list,
        "test": cfg.data.test_list,
    }
    for path in filter(None, given.values()):
        check_label_names(path, plan.label_names)
    read_quarantine(cfg.data.quarantine)
    lists = {
        split: read_list(path, cfg.data.root, plan.num_classes, cfg.data.allow_outside_root)
        for split, path in given.items()
        if path is not None
    }
    for first, second in combinations(lists, 2):
        if both := shared_paths(lists[first], lists[second]):
            raise ConfigError(
                f"data.{first}_list and data.{second}_list share {len(both)} videos ({both[0]}, "
                "...); a video belongs to one of them"
            )
    return lists


def check_classes(samples: Samples | Videos, plan: DataPlan, cfg: Config) -> None:
    """Refuse a training list with videos of one class alone, from which nothing can be learned."""
    labels = set(samples.labels.tolist())
    if len(labels) == 1 and plan.num_classes > 1:
        [label] = labels
        name = f" ({plan.label_names[label]})" if plan.label_names else ""
        raise ConfigError(
            f"data.train_list: all {len(samples)} videos of {cfg.data.train_list} that can be read "
            f"have the label {label}{name}, so that there is nothing to tell apart; see to its "
            "labels, or to what was left out"
        )


def highest_rate(cfg: Config, recipe: TrainConfig, videos: int, world: World) -> float:
    """The highest learning rate of the run as a share of its peak.

    Raises:
        ValueError: the list is smaller than a global batch, or the rate would be 0 throughout.
    """
    steps = steps_per_epoch(
        videos,
        batch_size=recipe.batch_size,
        world_size=world.size,
        accumulation=recipe.accumulation,
        repeats=cfg.data.repeated_augmentation,
    )
    found = optim.highest_share(recipe.epochs * steps, round(recipe.warmup_epochs * steps))
    if found == 0:
        raise ConfigError(
            f"train.warmup_epochs: {recipe.warmup_epochs:g} make the rate of the only step 0, "
            "so that nothing would be trained; set it to 0, or train.epochs to more"
        )
    return found


def start_folder(
    run_dir: Path,
    cfg: Config,
    asked: TrainConfig,
    resume: bool,
    saved: dict[str, Any] | None,
    world: World,
) -> None:
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


def validation(
    model: nn.Module,
    cfg: Config,
    plan: DataPlan,
    lists: dict[str, VideoList],
    loaders: dict[str, Any],
    cached: Cache | None,
    world: World,
) -> Callable[[], dict[str, float]] | None:
    """Accuracies and loss on the list that has a loader beside the training list, if any."""
    split = next((name for name in loaders if name != "train"), None)
    if split is None:
        return None
    videos = lists[split]
    about: dict[str, Any] = {
        "paths": videos.samples.paths,
        "labels": videos.samples.labels,
        "num_classes": plan.num_classes,
    }
    score = (
        partial(score_features, cached, split, **about)
        if cached is not None
        else partial(
            score_views,
            model,
            loaders[split],
            **about,
            num_clips=1,
            num_crops=1,
            normalization=plan.normalization,
            views_per_forward=cfg.eval.views_per_forward,
            precision=resolved_precision(world.device, cfg.train.precision),
            world=world,
            label=f"validate on {split}",
        )
    )

    def validate() -> dict[str, float]:
        found = metrics(score(), cfg.eval.fusion)
        names = ("top1", "top5", "mean_class_accuracy", "loss")
        return {f"{split}_{name}": found[name] for name in names}

    return validate


def say_defects(name: str, videos: VideoList) -> None:
    for title, lines in (("left out", videos.left_out), ("warnings", videos.warnings)):
        if lines:
            said = f"{name} list, {title} ({len(lines)}, all in summary.json): {lines[0]}"
            print(printable(said))


def say_summary(run_dir: Path, summary: dict[str, Any]) -> None:
    last, best = summary["last"], summary["best"]
    accuracies = {key: value for key, value in last.items() if key.endswith("_top1")}
    print(f"trained {summary['epochs']} epochs in {duration(summary['seconds'])}")
    for key, value in accuracies.items():
        print(f"  last: epoch {last['epoch']}, {key} {value:.2f}")
    if best is not None:
        print(f"  best: epoch {best['epoch']}, dev_top1 {best['dev_top1']:.2f}")
    if summary["changed"]:
        print(f"  changed since they were counted: {len(summary['changed'])} files, see {CHANGED}")
    if summary["skipped"]:
        print(f"  skipped: {summary['skipped']} clips, listed in {run_dir}/{SKIPPED}")
    for line in said(summary["tried_again"]):
        print(f"  {line}")
    size = (run_dir / "last" / checkpoints.TENSORS).stat().st_size
    file = f"{run_dir}/last/{checkpoints.TENSORS}"
    print(f"  {file}: {size / 1e6:.2f} MB; log.jsonl, tensorboard/ beside it")


if __name__ == "__main__":
    launching.launch(main, goes_on="; continue with --resume")
