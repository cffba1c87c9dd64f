"""Messages and logs of a run: its start, each epoch, its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from vidadapt.config import TrainConfig
from vidadapt.console import duration, printable
from vidadapt.data import CHANGED, SKIPPED, Batches, VideoList, read_changes, read_skips
from vidadapt.distributed import World, gather_objects
from vidadapt.evaluation import METRICS, MULTI_LABEL_METRICS
from vidadapt.files import append_lines, warn_of_retries, write_json
from vidadapt.lists import counts_of
from vidadapt.methods import count_parameters
from vidadapt.runs import checkpoints
from vidadapt.training.memory import peak_memory, process_memory
from vidadapt.training.optim import effective_lr, warmup_key
from vidadapt.training.setup import Setup
from vidadapt.training.state import Progress, StepRecord
from vidadapt.training.trackers import Trackers

SUMMARY = "summary.json"
RANDOM_WEIGHTS = "BACKBONE: RANDOM WEIGHTS, NOTHING IS PRE-TRAINED"


@contextmanager
def open_board(run_dir: Path, progress: Progress, world: World) -> Iterator[SummaryWriter | None]:
    """Open the main process's TensorBoard writer; it is closed however the run ends."""
    if not world.is_main:
        yield None
        return
    begun = progress.steps - len(progress.records)
    with closing(SummaryWriter(run_dir / "tensorboard", purge_step=begun)) as board:
        yield board


def write_log(
    run_dir: Path,
    board: SummaryWriter,
    trackers: Trackers,
    steps: int,
    records: list[StepRecord],
    latest: dict[str, Any],
) -> None:
    """Write the epoch's lines of `steps.jsonl` and `log.jsonl`, and its curves.

    TensorBoard has the epoch's figures at its number, trackers at its last step.

    Args:
        steps: optimiser steps of the run so far, with this epoch's.
        records: one for each of this epoch's steps.
        latest: the epoch's line of `log.jsonl`.
    """
    epoch, first = latest["epoch"], steps - len(records)
    figures = [asdict(record) for record in records]
    lines = [
        {"step": first + number, "epoch": epoch, **found} for number, found in enumerate(figures)
    ]
    append_lines(run_dir / "steps.jsonl", lines)
    append_lines(run_dir / "log.jsonl", [latest])
    for number, found in enumerate(figures):
        curves = {f"train/{key}": value for key, value in found.items() if value is not None}
        trackers.log(first + number, curves)
        for key, value in curves.items():
            board.add_scalar(key, value, first + number)
    curves = {f"epoch/{key}": value for key, value in latest.items() if not isinstance(value, list)}
    trackers.log(steps - 1, curves)
    for key, value in curves.items():
        board.add_scalar(key, value, epoch)
    board.flush()


def say_epoch(latest: dict[str, Any], seconds: float, recipe: TrainConfig) -> None:
    """Print a line: results, speed and the time that is left.

    Args:
        latest: the epoch's line of `log.jsonl`.
        seconds: of all epochs so far.
        recipe: of the run; the metric that it selects by is shown.
    """
    left = seconds / latest["epoch"] * (recipe.epochs - latest["epoch"])
    digits, known = {"top1": 2, recipe.select: 2, "loss": 4}, METRICS | MULTI_LABEL_METRICS
    results = "".join(
        f", {split} {known[name].title} {value:.{digits[name]}f}"
        for key, value in latest.items()
        for split, _, name in [key.partition("_")]
        if name in digits and key != "train_loss"
    )
    print(
        f"epoch {latest['epoch']}/{recipe.epochs}: loss {latest['train_loss']:.4f}{results}, "
        f"lr {latest['lr']:.3g}, {latest['clips_per_second']:.0f} clips/s, "
        f"loader wait {100 * latest['loader_wait_share']:.0f} %, {duration(left)} left",
        flush=True,
    )


def say_start(setup: Setup, dropped: Sequence[str], world: World, grid: str = "") -> None:
    """Print what is loaded, how much of it trains, at which rate and on what.

    Args:
        dropped: lines on options that do not hold for the method, see `TrainOptions`.
        grid: description of its runs, in the place of the rate.
    """
    for line in dropped:
        print(line)
    cfg, train = setup.cfg, setup.lists["train"]
    trainable, total = count_parameters(setup.model)
    global_batch = setup.facts["global_batch"]
    lr = effective_lr(cfg.train.base_lr, global_batch)
    rate = f"lr {lr:g} (base_lr {cfg.train.base_lr:g} x global batch {global_batch} / 256)"
    print(f"{setup.report}\n" if setup.report else RANDOM_WEIGHTS)
    if cfg.start is not None:
        print(printable(f"{cfg.method['name']} began with the weights of {cfg.start}, a new head"))
    print(
        f"{cfg.method['name']}: {trainable:,} of {total:,} parameters train "
        f"({100 * trainable / total:.2f} %); {grid or rate}; {len(train.samples)} videos, "
        f"{setup.sampler.steps} steps an epoch; "
        f"{setup.recipe.precision} on {world.size} x {world.device.type}",
        flush=True,
    )
    if setup.highest < 1:
        print(
            f"warning: train.{warmup_key(cfg.train)}: the warm-up lasts to the end of the run: the "
            f"rate only rises, to {setup.highest:.0%} of its peak"
        )
    for name, videos in setup.lists.items():
        say_defects(name, videos)
    for line in setup.facts["warnings"]:
        print(f"warning: {line}", flush=True)


def summarise(
    run_dir: Path,
    setup: Setup,
    result: dict[str, Any],
    filling: dict[str, Any] | None,
    batches: Batches,
    world: World,
    said: bool = True,
) -> None:
    """Write `summary.json` and print how the run ended; all processes call it together.

    Args:
        result: what `fit` returned.
        filling: what filling the feature cache returned; None without one.
        said: False: print nothing.
    """
    again = [line for loader in setup.loaders.values() for line in loader.again]
    again = [line for part in gather_objects(world, again) for line in part]
    on_device = peak_memory(world.device) if world.device.type != "cpu" else None
    peaks = gather_objects(world, (on_device, process_memory("VmHWM")))
    if not world.is_main:
        return
    trainable, total = count_parameters(setup.model)
    summary = {
        "method": setup.cfg.method["name"],
        "start": setup.cfg.start,
        "trainable": trainable,
        "total": total,
        "side_by_side": 1,
        **result,
        "select": setup.recipe.select,
        "peak_device_bytes": _most(device for device, _ in peaks),
        "peak_process_bytes": _most(process for _, process in peaks),
        "cache": filling,
        "videos": {name: len(videos.samples) for name, videos in setup.lists.items()},
        "class_counts": _class_counts(setup),
        "left_out": list(setup.lists["train"].left_out),
        "skipped": len(read_skips(run_dir / SKIPPED)),
        "tried_again": again,
        "changed": list(read_changes(run_dir / CHANGED).values()),
        "warnings": {
            **{name: list(videos.warnings) for name, videos in setup.lists.items()},
            "lists": list(setup.facts["warnings"]),
        },
        "manifests": {name: videos.manifest for name, videos in setup.lists.items()},
    }
    write_json(run_dir / SUMMARY, summary)
    if said:
        say_summary(run_dir, summary)


def _class_counts(setup: Setup) -> dict[str, int]:
    """Return how many training videos each class has, by name, or else by number."""
    plan, labels = setup.plan, setup.lists["train"].samples.labels
    names = plan.label_names or [str(label) for label in range(plan.num_classes)]
    return dict(zip(names, counts_of(labels, plan.num_classes), strict=True))


def _most(found: Iterable[int | None]) -> int | None:
    return max((value for value in found if value is not None), default=None)


def say_defects(name: str, videos: VideoList) -> None:
    """Print how many videos of a list were left out or look odd, and the first of them."""
    for title, lines in (("left out", videos.left_out), ("warnings", videos.warnings)):
        if lines:
            said = f"{name} list, {title} ({len(lines)}, all in summary.json): {lines[0]}"
            print(printable(said))


def say_summary(run_dir: Path, summary: dict[str, Any]) -> None:
    """Print how a run ended, and where its files are."""
    last, best, select = summary["last"], summary["best"], summary["select"]
    shown = ("_top1", f"_{select}")
    accuracies = {key: value for key, value in last.items() if key.endswith(shown)}
    early = ", and stopped early" * summary["stopped_early"]
    print(f"trained {summary['epochs']} epochs in {duration(summary['seconds'])}{early}")
    for key, value in accuracies.items():
        print(f"  last: epoch {last['epoch']}, {key} {value:.2f}")
    if best is not None:
        loss = f", dev_loss {best['dev_loss']:.4f}" if "dev_loss" in best else ""
        print(f"  best: epoch {best['epoch']}, dev_{select} {best[f'dev_{select}']:.2f}{loss}")
    if summary["changed"]:
        print(f"  changed since they were counted: {len(summary['changed'])} files, see {CHANGED}")
    if summary["skipped"]:
        print(f"  skipped: {summary['skipped']} clips, listed in {run_dir}/{SKIPPED}")
    for line in warn_of_retries(summary["tried_again"]):
        print(f"  {line}")
    size = (run_dir / "last" / checkpoints.TENSORS).stat().st_size
    file = f"{run_dir}/last/{checkpoints.TENSORS}"
    print(f"  {file}: {size / 1e6:.2f} MB; log.jsonl, tensorboard/ beside it")
