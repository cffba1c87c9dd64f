"""Unbalanced classes: accuracies of the ways to make up for them, at a hundred to one.

The demo's rendered set (docs/demo_study.md) is made unbalanced: its 12 classes keep 100, 66, 43,
... 1 training videos, in another order with each seed. A linear probe on the demo's
frozen backbone trains on them in each way, from cached features, and is tested on the demo's test
list, which has 40 videos of each class. The learning rate is the best of a grid, and the epoch the
best one, by mean class accuracy on the demo's development list, which is balanced, too.

What is finished in the working folder is kept: the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.small_runs import check, finish, tool
from vidadapt.apps.report import markdown_table
from vidadapt.apps.study.demo import VIDEOS
from vidadapt.lists import read_list, write_list

WAYS: dict[str, dict[str, Any]] = {
    "natural": {},
    "class_sampling square_root": {"data.class_sampling": "square_root"},
    "class_sampling balanced": {"data.class_sampling": "balanced"},
    "class_weights balanced": {"train.class_weights": "balanced"},
    "logit_adjustment 1": {"train.logit_adjustment": 1},
}
RATES = (0.008, 0.024, 0.08)
LARGEST, RATIO, NUM_CLASSES = 100, 100, 12
THIRDS = {"4 largest": slice(0, 4), "4 middle": slice(4, 8), "4 smallest": slice(8, 12)}


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    check(args, "unbalanced", {"epochs": 1, "draws": 1, "largest": 1})
    videos = args.work / "videos"
    counts = {"train": NUM_CLASSES * args.largest, "dev": args.dev, "test": args.test}
    options = {**VIDEOS, "--counts": ",".join(f"{key}={value}" for key, value in counts.items())}
    tool("prepare", ["synthetic", videos, *(word for pair in options.items() for word in pair)])
    rows = []
    for seed in args.seeds:
        order = shrink(videos, args.work / f"train{seed}.txt", args.largest, seed)
        rows += [measured(name, seed, order, args) for name in args.ways]
    finish(args, "unbalanced", rows, [], "\n\n".join([title(args), table(rows)]))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/unbalanced"), metavar="FOLDER")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=40, help="(%(default)s)")
    parser.add_argument("--draws", type=int, default=4, help="clips of a video (%(default)s)")
    parser.add_argument(
        "--largest", type=int, default=LARGEST, help="videos of the largest class (%(default)s)"
    )
    parser.add_argument("--dev", type=int, default=240, help="development videos (%(default)s)")
    parser.add_argument("--test", type=int, default=480, help="test videos (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def class_counts(largest: int) -> list[int]:
    """Numbers of videos that fall geometrically from the largest class to the smallest.

    >>> class_counts(100)
    [100, 66, 43, 28, 19, 12, 8, 5, 4, 2, 2, 1]
    """
    steps = np.arange(NUM_CLASSES) / (NUM_CLASSES - 1)
    return [max(1, round(count)) for count in largest * RATIO**-steps]


def shrink(videos: Path, listed: Path, largest: int, seed: int) -> list[int]:
    """Write an unbalanced part of a set's training list; return the classes, the largest first."""
    order = np.random.default_rng(seed).permutation(NUM_CLASSES).tolist()
    left = dict(zip(order, class_counts(largest), strict=True))
    kept = []
    for sample in read_list(videos / "train.txt", videos, NUM_CLASSES):
        left[sample.label] -= 1
        if left[sample.label] >= 0:
            kept.append(sample)
    write_list(listed, kept)
    return order


def measured(
    name: str, seed: int, order: Sequence[int], args: argparse.Namespace
) -> dict[str, Any]:
    """Train the grid of one way with one seed, and test its best run."""
    videos, root = args.work / "videos", args.work / f"{name.replace(' ', '_')}_seed{seed}"
    options = {
        "config": "demo/linear",
        "run_dir": root,
        "data.root": videos,
        "data.train_list": args.work / f"train{seed}.txt",
        "data.dev_list": videos / "dev.txt",
        "data.test_list": videos / "test.txt",
        "data.label_names": videos / "labels.txt",
        "cache.dir": args.work / f"cache{seed}",
        "cache.draws": args.draws,
        "train.epochs": args.epochs,
        "train.select": "mean_class_accuracy",
        "train.seed": seed,
        "grid.base_lr": list(RATES),
        **WAYS[name],
    }
    tested = root / "metrics.json"
    if not tested.exists():
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        tool("train", [*words, "--resume"])
        grid = json.loads((root / "grid.json").read_text(encoding="utf-8"))
        one_view = ["--eval.num_clips", 1, "--eval.num_crops", 1]
        tool("evaluate", ["--run_dir", root / grid["best"], "--out", root, *one_view])
    grid = json.loads((root / "grid.json").read_text(encoding="utf-8"))
    found = json.loads(tested.read_text(encoding="utf-8"))
    top1 = [found["per_class"][label]["top1"] for label in order]
    best = next(one for one in grid["runs"] if one["run"] == grid["best"])
    return {
        "way": name,
        "seed": seed,
        "base_lr": best["base_lr"],
        "best_epoch": best["best_epoch"],
        "mean_class_accuracy": found["mean_class_accuracy"],
        **{third: statistics.fmean(top1[own]) for third, own in THIRDS.items()},
        "videos_and_top1": list(zip(class_counts(args.largest), top1, strict=True)),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a way: means over the seeds."""
    shown = []
    for name in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == name]
        values = [row["mean_class_accuracy"] for row in own]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        thirds = [f"{statistics.fmean(row[third] for row in own):.1f}" for third in THIRDS]
        rates = ", ".join(f"{row['base_lr']:g}" for row in own)
        shown.append([name, f"{statistics.fmean(values):.1f}{spread}", *thirds, rates])
    return markdown_table(["way", "mean class %", *THIRDS, "base_lr"], shown)


def title(args: argparse.Namespace) -> str:
    counts = class_counts(args.largest)
    return (
        f"Linear probe on vit_tiny, {sum(counts)} training videos, {counts[0]} to {counts[-1]} a "
        f"class; {args.test} test videos, one view each. Means over {len(args.seeds)} seeds, ± "
        f"their standard deviation."
    )


if __name__ == "__main__":
    main()
