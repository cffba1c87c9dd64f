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
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.footage import FOOTAGE, generate
from benchmarks.report import targets_table
from benchmarks.timing import Target
from vidadapt import runs
from vidadapt.apps.report import markdown_table
from vidadapt.apps.study.benchmark import spread_percent
from vidadapt.console import track
from vidadapt.files import write_json, write_text
from vidadapt.models import SIZES

ROOT = Path(__file__).parents[1]
METHODS = {  # name: (method.name, model.head, how many times cheaper later epochs are to be)
    "linear": ("linear", "batchnorm_linear", 20.0),
    "attentive": ("linear", "attentive", 20.0),
    "losa": ("losa", "batchnorm_linear", 5.0),
}
NUM_CLASSES = 10  # of generated footage


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    try:
        for key, least in {"clips": 4, "epochs": 2, "batch_size": 2}.items():
            if getattr(args, key) < least:
                raise ValueError(f"--{key}: expected {least} or more, got {getattr(args, key)}")
        if args.json is not None:
            runs.check_writable("--json", args.json.absolute().parent)
    except (ValueError, OSError) as error:
        sys.exit(f"cache: {error}")
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder) / "videos"
        generate(FOOTAGE["avi"], args.clips, videos)
        classes = "".join(f"class {number}\n" for number in range(NUM_CLASSES))
        write_text(videos / "labels.txt", classes)
        methods = track(args.methods, total=len(args.methods), label="trained", unit="methods")
        rows = [measured(name, args, Path(folder)) for name in methods]
    targets = [
        Target(
            f"{row['method']} from the cache: first epoch : later ones, seconds",
            METHODS[row["method"]][2],
            ">=",
            row["times_cheaper"],
        ).as_dict()
        for row in rows
    ]
    print("\n\n".join([title(args), table(rows)]))
    print(targets_table(targets), file=sys.stderr)
    if args.json is not None:
        settings = {key: value for key, value in vars(args).items() if key != "json"}
        result = {"table": "cache", "settings": settings, "rows": rows, "targets": targets}
        write_json(args.json, result)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--clips", type=int, default=24, help="of the set (%(default)s)")
    parser.add_argument("--epochs", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--batch_size", type=int, default=8, help="clips (%(default)s)")
    parser.add_argument("--backbone", choices=SIZES, default="vit_base")
    parser.add_argument("--num_frames", type=int, default=8, metavar="T")
    parser.add_argument("--crop_size", type=int, default=224, metavar="S")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def measured(name: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One run of tools/train.py, in folders of its own."""
    method, head, _ = METHODS[name]
    run_dir = folder / f"run_{name}"
    options = {
        "run_dir": run_dir,
        "data.root": folder / "videos",
        "data.train_list": folder / "videos" / "train.txt",
        "data.label_names": folder / "videos" / "labels.txt",
        "data.sampling": "uniform8",
        "data.num_frames": args.num_frames,
        "data.crop_size": args.crop_size,
        "data.num_workers": 0,
        "model.backbone": args.backbone,
        "model.weights": "random",
        "model.head": head,
        "method.name": method,
        "train.epochs": args.epochs,
        "train.batch_size": args.batch_size,
        "train.warmup_epochs": 0,
        "train.precision": args.precision,
        "cache.dir": folder / f"cache_{name}",
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, str(ROOT / "tools" / "train.py"), *words]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
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
