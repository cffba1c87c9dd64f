"""Training from the cache of frozen features: what later epochs cost beside the first.

tools/train.py trains on a small generated set with `--cache.dir` set, once for each method: linear
probe, attentive probe, LoSA, all on a frozen backbone of random weights. The first epoch is the
filling of the cache (reading, cropping and one forward pass for each clip) and one epoch from it;
the others read the features of the same clips. An epoch's seconds are those of training alone, as
the run logs them: no list is validated on. Later epochs are given by their median. Videos are read
in the training process, so that no start of workers is counted as part of the first epoch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.small_runs import add_shape, check, finish, generated, train
from benchmarks.timing import Target
from vidadapt.apps.report import markdown_table
from vidadapt.apps.study.benchmark import spread_percent
from vidadapt.console import track

METHODS = {  # name: (method.name, model.head, how many times cheaper later epochs are to be)
    "linear": ("linear", "batchnorm_linear", 20.0),
    "attentive": ("linear", "attentive", 20.0),
    "losa": ("losa", "batchnorm_linear", 5.0),
}


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    check(args, "cache", {"clips": 4, "epochs": 2, "batch_size": 2})
    with tempfile.TemporaryDirectory() as folder:
        generated(Path(folder) / "videos", args.clips)
        methods = track(args.methods, total=len(args.methods), label="trained", unit="methods")
        rows = [measured(name, args, Path(folder)) for name in methods]
    targets = [
        Target(
            f"{row['method']} from the cache: first epoch : later ones, seconds",
            METHODS[row["method"]][2],
            ">=",
            row["times_cheaper"],
        )
        for row in rows
    ]
    finish(args, "cache", rows, targets, "\n\n".join([title(args), table(rows)]))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--clips", type=int, default=24, help="of the set (%(default)s)")
    parser.add_argument("--epochs", type=int, default=5, help="(%(default)s)")
    add_shape(parser)
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def measured(name: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One run of tools/train.py, in folders of its own."""
    method, head, _ = METHODS[name]
    run_dir = folder / f"run_{name}"
    train(
        args,
        folder / "videos",
        run_dir,
        {"model.head": head, "method.name": method, "cache.dir": folder / f"cache_{name}"},
    )
    filling = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))["cache"]
    lines = (run_dir / "log.jsonl").read_text(encoding="utf-8").splitlines()
    epochs = [json.loads(line)["train_seconds"] for line in lines]
    later = statistics.median(epochs[1:])
    return {
        "method": name,
        "clips": filling["clips"],
        "cache_mb": filling["bytes"] / 1e6,
        "filling_seconds": filling["seconds"],
        "epoch_seconds": epochs,
        "first_epoch_seconds": filling["seconds"] + epochs[0],
        "later_epoch_seconds": later,
        "spread_percent": spread_percent(epochs[1:]),
        "times_cheaper": (filling["seconds"] + epochs[0]) / later,
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    headings = ["method", "MB/clip", "filling s", "first epoch s", "later s", "spread %", "times"]
    shown = [
        [
            row["method"],
            f"{row['cache_mb'] / row['clips']:.3g}",
            f"{row['filling_seconds']:.3g}",
            f"{row['first_epoch_seconds']:.3g}",
            f"{row['later_epoch_seconds']:.3g}",
            f"{row['spread_percent']:.0f}",
            f"{row['times_cheaper']:.3g}",
        ]
        for row in rows
    ]
    return markdown_table(headings, shown)


def title(args: argparse.Namespace) -> str:
    return (
        f"{args.backbone}, {args.num_frames} frames of {args.crop_size} x {args.crop_size}, "
        f"{args.precision}, {args.clips} clips of generated avi, batches of {args.batch_size}. "
        "First epoch: filling the cache and one epoch from it. Times: first over later."
    )


if __name__ == "__main__":
    main()
