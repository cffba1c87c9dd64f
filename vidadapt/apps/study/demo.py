"""The demonstration: a frozen tiny backbone adapted to generated actions that it never saw.

Everything runs through vidadapt prepare, vidadapt train and vidadapt evaluate in processes of
their own, from the root of the repository. What is finished is kept, and a call that was stopped
goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from vidadapt.apps.study.tool_calls import tool_command
from vidadapt.files import write_json

METHODS = ("linear", "adaptformer")
COMPARED = (
    *("linear", "attentive", "bitfit", "vpt", "ssf", "lora", "arc", "arc_att", "st_adapter"),
    *("losa", "adaptformer"),
)
GLOBAL_BATCH = 32
VIEWS = (2, 3)
EPOCHS = 12
SEEDS = (0, 1, 2)
GRID = (0.008, 0.024, 0.08)  # base_lr; at 32 clips a step 0.001, 0.003, 0.01
VIDEOS = {
    "--family": "target",
    "--counts": "train=1440,dev=240,test=480",
    "--difficulty": "0.4,0.8",
    "--seed": "0",
}


def demo(videos: Path, out: Path) -> None:
    """Train and evaluate both methods once, with the learning rates in their configurations."""
    prepare(videos)
    rows = []
    for method in METHODS:
        say(method)
        rows.append(adapt(method, videos, out / method))
    write_json(out / "summary.json", rows)
    print_table(rows)
    print(f"run folders: {', '.join(str(out / method) for method in METHODS)}")
    print(f"this table:  {out / 'summary.json'}")


def study(videos: Path, out: Path) -> None:
    """Train both methods alike, with three seeds, at one and at two times the epochs.

    The learning rate of a method is the one of the grid with the best top-1 on the development
    list, at seed 0 and one time the epochs.
    """
    prepare(videos)
    grids = {method: grid(method, videos, out) for method in METHODS}
    results: list[dict[str, Any]] = []
    for epochs in (EPOCHS, 2 * EPOCHS):
        for seed in SEEDS:
            for method in METHODS:
                results.append(at_best_rate(method, videos, out, grids[method], epochs, seed))
            write_json(out / "results.json", results)
    print_study(results)
    print(f"all figures: {out / 'results.json'}")


def compare(methods: Sequence[str], videos: Path, out: Path) -> None:
    """Train each method with one seed, at the rate that a grid chose on the development list."""
    prepare(videos)
    rows = []
    for method in methods:
        rows.append(at_best_rate(method, videos, out, grid(method, videos, out), EPOCHS, seed=0))
        write_json(out / "compare.json", rows)
    print_table(rows)
    print(f"all figures: {out / 'compare.json'}")


def prepare(videos: Path) -> None:
    """Render the videos that are missing."""
    say("videos")
    run_tool("prepare", "synthetic", videos, *(word for pair in VIDEOS.items() for word in pair))


def grid(method: str, videos: Path, out: Path) -> dict[float, float]:
    """Best top-1 on the development list by base_lr, at seed 0 and one time the epochs."""
    found = {}
    for base_lr in GRID:
        run_dir = run_folder(out, method, EPOCHS, base_lr, seed=0)
        found[base_lr] = train(method, videos, run_dir, base_lr=base_lr, seed=0)["best"]["dev_top1"]
    return found


def at_best_rate(
    method: str, videos: Path, out: Path, rates: dict[float, float], epochs: int, seed: int
) -> dict[str, Any]:
    """Train and evaluate at the best rate of a grid."""
    base_lr = max(rates, key=lambda rate: rates[rate])
    run_dir = run_folder(out, method, epochs, base_lr, seed)
    row = adapt(method, videos, run_dir, epochs=epochs, base_lr=base_lr, seed=seed)
    by_rate = {f"{rate:g}": top1 for rate, top1 in rates.items()}
    return {**row, "epochs": epochs, "base_lr": base_lr, "seed": seed, "grid_dev_top1": by_rate}


def run_folder(out: Path, method: str, epochs: int, base_lr: float, seed: int) -> Path:
    """The folder of a run of a grid; print its name."""
    name = f"{method}_{epochs}_epochs_lr{base_lr:g}_seed{seed}"
    say(name)
    return out / name


def adapt(method: str, videos: Path, run_dir: Path, **recipe: object) -> dict[str, Any]:
    """Train and evaluate, or read what an earlier call left."""
    trained = train(method, videos, run_dir, **recipe)
    metrics = run_dir / "eval" / "metrics.json"
    if not metrics.exists():
        run_tool(
            "evaluate", "--run_dir", run_dir, "--out", metrics.parent, "--eval.num_clips",
            VIEWS[0], "--eval.num_crops", VIEWS[1], processes=num_processes(),
        )  # fmt: skip
    tested = json.loads(metrics.read_text())
    return {
        "method": method,
        "trainable": trained["trainable"],
        "total": trained["total"],
        "top1": tested["top1"],
        "top5": tested["top5"],
        "seconds": trained["seconds"] + tested["seconds"],
    }


def train(method: str, videos: Path, run_dir: Path, **recipe: object) -> dict[str, Any]:
    """Train, or go on training, unless an earlier call finished; return the run's summary."""
    summary, processes = run_dir / "summary.json", num_processes()
    if not summary.exists():
        overrides = [part for key, value in recipe.items() for part in (f"--train.{key}", value)]
        run_tool(
            "train", "--config", f"demo/{method}", "--run_dir", run_dir,
            "--data.root", videos, "--data.label_names", videos / "labels.txt",
            "--data.train_list", videos / "train.txt", "--data.dev_list", videos / "dev.txt",
            "--data.test_list", videos / "test.txt",
            "--train.batch_size", GLOBAL_BATCH // processes, *overrides, "--resume",
            processes=processes,
        )  # fmt: skip
    return json.loads(summary.read_text())


def num_processes() -> int:
    """One per GPU, or else two on the CPU."""
    return shared_by(torch.cuda.device_count()) if torch.cuda.is_available() else 2


def shared_by(gpus: int) -> int:
    """The most processes, one per GPU at most, that share the global batch equally, 2 clips each.

    >>> [shared_by(gpus) for gpus in (1, 3, 8, 64)]
    [1, 2, 8, 16]
    """
    return max(n for n in (1, 2, 4, 8, 16) if n <= gpus)


def run_tool(tool: str, *arguments: object, processes: int = 1) -> None:
    """Run a tool in so many processes; exit if it fails."""
    command = tool_command(tool, arguments, processes)
    threads = {} if torch.cuda.is_available() else {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env={**os.environ, **threads}, check=False)
    if done.returncode != 0:
        sys.exit(f"demo: {' '.join(command)} failed; run the same command again to go on")


def say(title: str) -> None:
    """Print a heading."""
    print(f"\n== {title}", flush=True)


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print a line a method."""
    print(f"\n{'method':<12} {'trainable':>10} {'share':>7} {'top-1':>7} {'top-5':>7} {'time':>8}")
    for row in rows:
        print(
            f"{row['method']:<12} {row['trainable']:>10,} "
            f"{100 * row['trainable'] / row['total']:>5.2f} % {row['top1']:>7.2f} "
            f"{row['top5']:>7.2f} {row['seconds']:>6.1f} s"
        )
    print(f"top-1 and top-5 in per cent of the test videos, {VIEWS[0]} clips x {VIEWS[1]} crops")


def print_study(results: Sequence[dict[str, Any]]) -> None:
    """Print the mean over the seeds of each method, and the gap between the two."""
    print(f"\n{'epochs':>6} {'method':<12} {'base_lr':>8} {'top-1, mean of 3 seeds':>24}")
    for epochs in (EPOCHS, 2 * EPOCHS):
        means = {}
        for method in METHODS:
            rows = [r for r in results if r["epochs"] == epochs and r["method"] == method]
            tops = [row["top1"] for row in rows]
            means[method] = mean(tops)
            spread = f"{mean(tops):.2f} +- {stdev(tops):.2f}"
            print(f"{epochs:>6} {method:<12} {rows[0]['base_lr']:>8g} {spread:>24}")
        gap = means["adaptformer"] - means["linear"]
        print(f"{epochs:>6} AdaptFormer - linear: {gap:+.2f} points")
