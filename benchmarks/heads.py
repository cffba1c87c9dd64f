"""Many heads in one pass: the time of an epoch of 20 probes side by side, beside that of one.

tools/train.py trains a probe alone, then a grid of learning rates x weight decays of the same probe
(`--grid.base_lr`, `--grid.weight_decay`), in turns, on a small generated set and a frozen backbone
of random weights. The time is that of an epoch: training (decoding, the backbone, every head's
forward, backward and optimiser step) and validation on as many views as the development list has
videos; start-up and the first epoch, in which caches warm up, are left out. The grid is that of
V-JEPA 2's frozen evaluation.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.small_runs import add_shape, check, finish, generated, train
from benchmarks.timing import Target, take_turns, times_as_fast
from vidadapt.apps.report import markdown_table
from vidadapt.apps.study.benchmark import spread_percent
from vidadapt.files import write_text

HEADS = {"linear": "batchnorm_linear", "attentive": "attentive"}  # name: model.head
RATES = (5e-3, 3e-3, 1e-3, 3e-4, 1e-4)
WEIGHT_DECAYS = (0.01, 0.1, 0.4, 0.8)
MOST = 1.3  # times the time of one, aimed at
ONE, ALL = "one", "grid"


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    check(args, "heads", {"clips": 2, "dev_clips": 1, "epochs": 2, "batch_size": 2, "rounds": 1})
    with tempfile.TemporaryDirectory() as folder:
        split(Path(folder) / "videos", args.clips, args.dev_clips)
        rows = [measured(head, args, Path(folder)) for head in args.heads]
    targets = [
        Target(
            f"{row['heads']} {row['head']} probes at once : one, time of an epoch",
            MOST,
            "<=",
            row["ratio"],
        )
        for row in rows
    ]
    finish(args, "heads", rows, targets, "\n\n".join([title(args), table(rows)]))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--clips", type=int, default=16, help="to train on (%(default)s)")
    parser.add_argument("--dev_clips", type=int, default=4, help="to validate on (%(default)s)")
    parser.add_argument("--epochs", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    add_shape(parser)
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def split(videos: Path, clips: int, dev_clips: int) -> None:
    """Generate videos and divide their list into train.txt and dev.txt."""
    generated(videos, clips + dev_clips)
    lines = (videos / "train.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    write_text(videos / "train.txt", "".join(lines[:clips]))
    write_text(videos / "dev.txt", "".join(lines[clips:]))


def measured(head: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both contenders of a head, in turns."""
    contenders = {name: partial(epoch_seconds, head, name, args, folder) for name in (ONE, ALL)}
    seconds = take_turns(contenders, args.rounds, warmup=0)
    return {
        "head": head,
        "heads": len(RATES) * len(WEIGHT_DECAYS),
        "seconds": seconds,
        "one_seconds": statistics.median(seconds[ONE]),
        "grid_seconds": statistics.median(seconds[ALL]),
        "spread_percent": max(spread_percent(own) for own in seconds.values()),
        "ratio": times_as_fast(seconds, ONE, ALL),
    }


def epoch_seconds(head: str, contender: str, args: argparse.Namespace, folder: Path) -> float:
    """The median time of an epoch after the first, of one run of tools/train.py."""
    options: dict[str, Any] = {
        "data.dev_list": folder / "videos" / "dev.txt",
        "method.name": "linear",
        "model.head": HEADS[head],
        "train.optimizer": "adamw",
        "train.base_lr": RATES[0],
        "train.weight_decay": WEIGHT_DECAYS[0],
    }
    if contender == ALL:
        options |= {"grid.base_lr": list(RATES), "grid.weight_decay": list(WEIGHT_DECAYS)}
    with tempfile.TemporaryDirectory(dir=folder) as run_dir:
        train(args, folder / "videos", Path(run_dir) / "run", options)
        # Of a grid every run's log has the seconds of all, as they train together.
        log = next(Path(run_dir).rglob("log.jsonl"))
        epochs = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    later = [each["train_seconds"] + each["validate_seconds"] for each in epochs[1:]]
    return statistics.median(later)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    headings = ["head", "heads", "one, s/epoch", "all, s/epoch", "spread %", "all : one"]
    shown = [
        [
            row["head"],
            str(row["heads"]),
            f"{row['one_seconds']:.3g}",
            f"{row['grid_seconds']:.3g}",
            f"{row['spread_percent']:.0f}",
            f"{row['ratio']:.3f}",
        ]
        for row in rows
    ]
    return markdown_table(headings, shown)


def title(args: argparse.Namespace) -> str:
    return (
        f"{args.backbone}, {args.num_frames} frames of {args.crop_size} x {args.crop_size}, "
        f"{args.precision}, {args.clips} clips of generated avi in batches of {args.batch_size}, "
        f"{args.dev_clips} to validate on. Medians of {args.rounds} rounds of "
        f"{args.epochs - 1} epochs."
    )


if __name__ == "__main__":
    main()
