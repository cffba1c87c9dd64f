"""Several labels a video: mean average precision of a linear probe and of AdaptFormer.

Rendered videos show two of 12 motions at once, each of an object of its own
(`vidadapt prepare synthetic --family together`): every pair comes equally often. Both methods adapt
the demo's frozen backbone, which has seen other motions, one at a time, with the demo's recipe and
binary cross-entropy. The learning rate is the best of a grid by mAP on the development list, at the
first seed; the test list is scored once a run, with thresholds of the development list.

What is finished in the working folder is kept: the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.small_runs import check, finish, tool
from vidadapt.apps.report import markdown_table
from vidadapt.evaluation import MULTI_LABEL_METRICS

METHODS = ("linear", "adaptformer")
RATES = (0.008, 0.024, 0.08)
PAIRS = 66  # of 12 motions


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    check(args, "multi_label", {"epochs": 1, "rounds": 1})
    videos = args.work / "videos"
    sizes = {"train": args.rounds * PAIRS, "dev": 3 * PAIRS, "test": 6 * PAIRS}
    counts = ",".join(f"{split}={count}" for split, count in sizes.items())
    words = ["--family", "together", "--counts", counts, "--difficulty", "0,0.4"]
    tool("prepare", ["synthetic", videos, *words])
    rows = []
    for method in METHODS:
        rates = {rate: trained(method, rate, args.seeds[0], args) for rate in RATES}
        chosen = max(rates, key=lambda rate: rates[rate])
        rows += [tested(method, chosen, seed, rates, args) for seed in args.seeds]
    finish(args, "multi_label", rows, [], "\n\n".join([title(args, sizes), table(rows)]))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/multi_label"), metavar="FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=12, help="(%(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=16, help=f"training videos: so many x {PAIRS} (%(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def folder_of(method: str, rate: float, seed: int, args: argparse.Namespace) -> Path:
    return args.work / f"{method}_lr{rate:g}_seed{seed}"


def trained(method: str, rate: float, seed: int, args: argparse.Namespace) -> float:
    """Train, unless it is done; return the mAP of the best epoch on the development list."""
    videos, folder = args.work / "videos", folder_of(method, rate, seed, args)
    options = {
        "config": f"demo/{method}",
        "run_dir": folder,
        "data.multi_label": "true",
        "data.root": videos,
        **{f"data.{split}_list": videos / f"{split}.txt" for split in ("train", "dev", "test")},
        "data.label_names": videos / "labels.txt",
        "train.select": "map",
        "train.base_lr": rate,
        "train.epochs": args.epochs,
        "train.batch_size": 32,
        "train.seed": seed,
    }
    if not (folder / "summary.json").exists():
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        tool("train", [*words, "--resume"])
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))["best"]["dev_map"]


def tested(
    method: str, rate: float, seed: int, rates: Mapping[float, float], args: argparse.Namespace
) -> dict[str, Any]:
    """Train with one seed, and score the test list."""
    trained(method, rate, seed, args)
    folder = folder_of(method, rate, seed, args)
    results = folder / "eval" / "metrics.json"
    if not results.exists():
        tool("evaluate", ["--run_dir", folder, "--out", results.parent])
    found = json.loads(results.read_text(encoding="utf-8"))
    return {
        "method": method,
        "seed": seed,
        "base_lr": rate,
        "dev_map_by_rate": {f"{each:g}": value for each, value in rates.items()},
        **{name: found[name] for name in MULTI_LABEL_METRICS},
        "ap_of_classes": {
            name: one["ap"]
            for name, one in zip(found["label_names"], found["per_class"], strict=True)
        },
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a method: means over the seeds, and their standard deviation."""
    lines = []
    for method in METHODS:
        own = [row for row in rows if row["method"] == method]
        cells = [method]
        for name in MULTI_LABEL_METRICS:
            values = [row[name] for row in own]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.2f}{spread}")
        lines.append([*cells, f"{own[0]['base_lr']:g}"])
    heads = [f"{one.title} {one.unit}" for one in MULTI_LABEL_METRICS.values()]
    return markdown_table(["method", *heads, "base_lr"], lines)


def title(args: argparse.Namespace, sizes: Mapping[str, int]) -> str:
    return (
        f"vit_tiny, 8 frames of 64 px, {sizes['train']} training videos of two motions each, "
        f"{args.epochs} epochs; {sizes['test']} test videos, 2 clips x 3 crops. Means over "
        f"{len(args.seeds)} seeds, ± their standard deviation."
    )


if __name__ == "__main__":
    main()
