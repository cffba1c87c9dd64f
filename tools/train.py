"""Train: parse, build, load lists, fit, summarise."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidadapt import assemble, command_line, config, data, distributed, methods, optim, runs
from vidadapt.config import Config, ConfigError
from vidadapt.data import DataPlan, VideoList
from vidadapt.data.readers import ReadError
from vidadapt.distributed import World, together
from vidadapt.evaluate import metrics, score_views
from vidadapt.progress import duration
from vidadapt.train import NonFiniteLoss, fit


def main(world: World) -> None:
    with together(world):
        cfg, resume = command_line.parse_train(sys.argv[1:], methods.METHODS)
        config.check(cfg, world.size)
        plan = data.resolve(cfg.data, cfg.eval)
        run_dir = Path(cfg.run_dir)
        saved = previous_run(run_dir, cfg, resume)
        torch.manual_seed(cfg.train.seed)
        model, report, backbone = assemble.adapted_model(cfg, plan)
        model.to(world.device)
    lists = load_lists(cfg, plan, world)
    with together(world):
        check_disjoint(lists)
        loader = data.train_loader(
            cfg.data,
            plan,
            lists["train"],
            batch_size=cfg.train.batch_size,
            accumulation=cfg.train.accumulation,
            seed=cfg.train.seed,
            rank=world.rank,
            world_size=world.size,
            pin_memory=world.device.type == "cuda",
        )
        global_batch = cfg.train.batch_size * cfg.train.accumulation * world.size
        if saved is not None and saved["clips_per_step"] != global_batch:
            raise ConfigError(
                f"--resume: the run's global batch is {saved['clips_per_step']}, here it is "
                f"batch_size {cfg.train.batch_size} x {world.size} processes x accumulation "
                f"{cfg.train.accumulation} = {global_batch}; choose values with the same product"
            )
        if saved is not None and saved["train_manifest"] != lists["train"].manifest:
            raise ConfigError(
                f"--resume: {cfg.data.train_list} does not hold the videos and labels that the run "
                "began with; restore it, or use another run_dir"
            )
        if world.is_main:
            start_folder(run_dir, cfg, resume, saved, world)
    trainable, total = methods.count_parameters(model)
    if world.is_main:
        lr = optim.effective_lr(cfg.train.base_lr, global_batch)
        print(f"{report}\n" if report else "backbone: random weights (model.weights is not set)")
        print(
            f"{cfg.method['name']}: {trainable:,} of {total:,} parameters train "
            f"({100 * trainable / total:.2f} %); lr {lr:g} (base_lr {cfg.train.base_lr:g} x global "
            f"batch {global_batch} / 256); {len(lists['train'].samples)} videos, "
            f"{len(loader) // cfg.train.accumulation} steps an epoch",
            flush=True,
        )
        for name, videos in lists.items():
            say_defects(name, videos)

    result = fit(
        model,
        loader,
        recipe=cfg.train,
        num_classes=plan.num_classes,
        normalization=plan.normalization,
        paths=[sample.path for sample in lists["train"].samples],
        world=world,
        run_dir=run_dir,
        description=assemble.describe(cfg, plan, backbone, lists["train"].manifest),
        resume_state=saved,
        validate=validation(model, cfg, plan, lists, world),
        select_best="dev" in lists,
    )
    if world.is_main:
        summary = {
            "method": cfg.method["name"],
            "trainable": trainable,
            "total": total,
            **result,
            "left_out": list(lists["train"].left_out),
            "warnings": {name: list(videos.warnings) for name, videos in lists.items()},
            "manifests": {name: videos.manifest for name, videos in lists.items()},
        }
        runs.write_json(run_dir / "summary.json", summary)
        say_summary(run_dir, summary)


def previous_run(run_dir: Path, cfg: Config, resume: bool) -> dict[str, Any] | None:
    """The state to resume from, checked against the configuration; None: from the start."""
    runs.check_free(run_dir, resume)
    last = runs.find_checkpoint(run_dir / "last") if resume else None
    if last is None:
        return None
    before = command_line.load(run_dir / "config.yaml")
    changed = config.differences(before, config.as_dict(cfg))
    if changed:
        raise ConfigError(
            f"--resume: the configuration differs from {run_dir / 'config.yaml'}: "
            + "; ".join(changed)
            + ". Use the same, or another run_dir"
        )
    return runs.load_trainer(last)


def load_lists(cfg: Config, plan: DataPlan, world: World) -> dict[str, VideoList]:
    """The lists that are set, by split; the main process first, since it may count frames."""
    given = {
        "train": cfg.data.train_list,
        "dev": cfg.data.dev_list,
        "test": cfg.data.test_list,
    }
    lists: dict[str, VideoList] = {}
    for mains_turn in (True, False):
        with together(world):
            if world.is_main == mains_turn:
                lists = {
                    split: data.load_list(
                        cfg.data, plan, path, training=split == "train", progress=world.is_main
                    )
                    for split, path in given.items()
                    if path is not None
                }
    return lists


def check_disjoint(lists: dict[str, VideoList]) -> None:
    """No video may stand in two of the lists: that would train or choose on the test list."""
    for first, second in combinations(lists, 2):
        known = {sample.path for sample in lists[first].samples}
        both = [sample.path for sample in lists[second].samples if sample.path in known]
        if both:
            raise ConfigError(
                f"data.{first}_list and data.{second}_list share {len(both)} videos ({both[0]}, "
                "...); a video belongs to one of them"
            )


def start_folder(
    run_dir: Path, cfg: Config, resume: bool, saved: dict[str, Any] | None, world: World
) -> None:
    runs.create(run_dir, resume)
    runs.write_text(run_dir / "config.yaml", command_line.dump(cfg))
    runs.write_json(run_dir / "environment.json", runs.environment(world.size, str(world.device)))
    done = 0 if saved is None else saved["epoch"]
    for log in ("log.jsonl", "steps.jsonl"):
        runs.drop_lines_from(run_dir / log, "epoch", done + 1)
    if resume:
        print(
            f"resuming {run_dir} after epoch {done}"
            if saved is not None
            else f"{run_dir} holds no checkpoint to resume: starting from the beginning"
        )


def validation(
    model: nn.Module, cfg: Config, plan: DataPlan, lists: dict[str, VideoList], world: World
) -> Callable[[], dict[str, float]] | None:
    """Accuracies on the development list (else the test list), one centre view a video."""
    split = "dev" if "dev" in lists else "test"
    if split not in lists:
        return None
    videos = lists[split]
    loader = data.eval_loader(
        cfg.data,
        plan,
        videos,
        num_clips=1,
        num_crops=1,
        rank=world.rank,
        world_size=world.size,
        pin_memory=world.device.type == "cuda",
    )

    def validate() -> dict[str, float]:
        scores = score_views(
            model,
            loader,
            paths=[sample.path for sample in videos.samples],
            labels=[sample.label for sample in videos.samples],
            num_classes=plan.num_classes,
            num_clips=1,
            num_crops=1,
            normalization=plan.normalization,
            views_per_forward=cfg.eval.views_per_forward,
            precision=cfg.train.precision,
            world=world,
            label=f"validate on {split}",
        )
        found = metrics(scores, cfg.eval.fusion)
        names = ("top1", "top5", "mean_class_accuracy")
        return {f"{split}_{name}": found[name] for name in names}

    return validate


def say_defects(name: str, videos: VideoList) -> None:
    for title, lines in (("left out", videos.left_out), ("warnings", videos.warnings)):
        if lines:
            print(f"{name} list, {title} ({len(lines)}, all in summary.json): {lines[0]}")


def say_summary(run_dir: Path, summary: dict[str, Any]) -> None:
    last, best = summary["last"], summary["best"]
    accuracies = {key: value for key, value in last.items() if key.endswith("_top1")}
    print(f"trained {summary['epochs']} epochs in {duration(summary['seconds'])}")
    for key, value in accuracies.items():
        print(f"  last: epoch {last['epoch']}, {key} {value:.2f}")
    if best is not None:
        print(f"  best: epoch {best['epoch']}, dev_top1 {best['dev_top1']:.2f}")
    size = (run_dir / "last" / runs.TENSORS).stat().st_size
    print(
        f"  {run_dir}/last/{runs.TENSORS}: {size / 1e6:.2f} MB; log.jsonl, tensorboard/ beside it"
    )


if __name__ == "__main__":
    distributed.launch(main, (ValueError, OSError, ReadError, NonFiniteLoss))
