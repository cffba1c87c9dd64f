"""Images at scale: the start of a second run on a long list, and the training loader's speed.

* start: a list of many images, all counted before, as at a second run: from reading the list to the
  first batch of 32, in a fresh process with loader processes of its own. Starting Python and torch
  comes before it and is a column of its own; the fork server of the loader processes imports beside
  it, as it does for `vidadapt train`. A short list is measured beside the long one. The images
  are hard links to copies of a few small ones; the index is written by its own writer.
* loader: images a second, of JPEGs as large as ImageNet's: random resized crop to 224 pixels,
  bilinear and antialiased, and flip, in shuffled batches of 32.

    ImageFolder        torchvision's, with its transforms and a DataLoader: uint8
    vidadapt           the training loader: uint8, normalised on the device
    + floats           the same two, made floats and normalised on the CPU

  All take turns in each round; ratios are of turns of the same round.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.footage import scene
from benchmarks.lists import SHORT, written
from benchmarks.report import rows_table
from benchmarks.small_runs import check, finish
from benchmarks.timing import Target, take_turns, times_as_fast
from vidadapt.apps.report import markdown_table
from vidadapt.apps.study.benchmark import spread_percent
from vidadapt.data import (
    NORMALIZATIONS,
    SAMPLINGS,
    Augmentation,
    EpochBatches,
    TrainClips,
    TrainLoader,
    cores,
    count_files,
)
from vidadapt.lists import Sample, Videos

SEED, BATCH, CROP = 0, 32, 224
START_GOAL, SPEED_GOAL = 3.0, 1.0
SHAPES = ((375, 500), (500, 375), (333, 500), (500, 500))  # height and width, as in ImageNet
SMALL = (120, 160)  # of the images of the long list
START = """\
from vidadapt.cli import begin_loaders
begin_loaders()
from benchmarks.lists_start import run
run()
"""
COLUMNS = {
    "workers": ("workers", "d"),
    "images/s": ("images_per_second", ".0f"),
    "spread %": ("spread_percent", ".0f"),
    ": ImageFolder": ("times_imagefolder", ".2f"),
}
CLASSES = 8  # folders of the images of the loader's part


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    least = {"listed": BATCH, "images": BATCH, "rounds": 1, "starts": 1, "workers": 1}
    check(args, "images", least)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        starts = [started(number, args, Path(folder)) for number in (SHORT, args.listed)]
        seconds = loaded(args, Path(folder) / "loader")
    name = f"{args.listed:,} listed images: lists and first batch, s"
    pairs = (("vidadapt", "ImageFolder"), ("vidadapt + floats", "ImageFolder + floats"))
    targets = [Target(name, START_GOAL, "<=", starts[-1]["seconds"])]
    for ours, theirs in pairs:
        ratio = times_as_fast(seconds, ours, theirs)
        targets.append(Target(f"{ours} : {theirs}, images/s", SPEED_GOAL, ">=", ratio))
    speeds = [row_of(name, seconds, args.workers) for name in seconds]
    shown = f"{start_table(starts)}\n\n{rows_table(speeds, COLUMNS, 'loader')}"
    finish(args, "images", [*starts, *speeds], targets, shown)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--listed", type=int, default=50_000, help="of the start (%(default)s)")
    parser.add_argument("--starts", type=int, default=5, help="that are timed (%(default)s)")
    parser.add_argument("--images", type=int, default=512, help="of the loader (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="that count (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="loader processes (%(default)s)")
    parser.add_argument("--dir", help="folder for the files; default: a temporary one")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def started(number: int, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Starts of a second run: medians of the seconds of its parts."""
    sources = drawn(4, folder / "sources", (SMALL,))
    listed = written(number, folder / str(number), sources)
    words = start_options(listed, args.workers)
    found = [_one_start(words) for _ in range(args.starts)]
    row = {key: median(one[key] for one in found) for key in found[0]}
    seconds = [one["start_seconds"] for one in found]
    return {"part": "start", "images": number, **row, "seconds": median(seconds)} | {
        "spread_percent": spread_percent(seconds)
    }


def _one_start(words: Sequence[str]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", START, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "BENCHMARK_BEGAN": str(time.time()), "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        sys.exit(f"images: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def start_options(listed: Path, workers: int) -> list[str]:
    """Options of a training run on a list of images."""
    options = {
        "run_dir": listed.parent / "run",
        "method.name": "linear",
        "data.dataset": "custom_images",
        "data.root": listed.parent,
        "data.train_list": listed,
        "data.label_names": listed.with_name("labels.txt"),
        "data.train_crop": "random_resized",
        "data.num_workers": workers,
        "train.batch_size": BATCH,
    }
    return [word for key, value in options.items() for word in (f"--{key}", str(value))]


def drawn(number: int, folder: Path, shapes: Sequence[tuple[int, int]]) -> list[Path]:
    """JPEGs of rendered scenes, in folders of classes: with these heights and widths in turn."""
    paths = []
    for place in range(number):
        path = folder / f"class{place % CLASSES}" / f"{place:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(place)
        Image.fromarray(scene(rng, 1, shapes[place % len(shapes)], 4.0)[0]).save(path, quality=92)
        paths.append(path)
    return paths


def loaded(args: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Seconds of one image, by contender and round."""
    paths = [str(path) for path in drawn(args.images, folder, SHAPES)]
    batches = EpochBatches(len(paths), SEED, batch_size=BATCH)
    ours = our_loader(paths, batches, args.workers)
    turns = {}
    for floats in (False, True):
        theirs = their_loader(folder, args.workers, floats)
        name = " + floats" if floats else ""
        turns[f"ImageFolder{name}"] = turn(theirs, lambda batch: batch[0])
        turns[f"vidadapt{name}"] = turn(ours, on_cpu(ours) if floats else uint8, batches)
    try:
        return take_turns(turns, args.rounds)
    finally:
        ours.close()


def our_loader(paths: Sequence[str], batches: EpochBatches, workers: int) -> TrainLoader:
    counts = count_files(paths, "auto", num_workers=cores())
    clips = TrainClips(
        Videos.of("/", [Sample(path, 0) for path in paths], counts),
        SAMPLINGS["image"],
        crop_size=CROP,
        augmentation=Augmentation(train_crop="random_resized", flip=True),
        seed=SEED,
    )
    return TrainLoader(
        clips, batches, normalization="imagenet", clip_timeout=300, num_workers=workers
    )


def their_loader(folder: Path, workers: int, floats: bool) -> DataLoader[Any]:
    steps = [transforms.RandomResizedCrop(CROP, antialias=True), transforms.RandomHorizontalFlip()]
    if floats:
        mean, std = NORMALIZATIONS["imagenet"]
        steps += [transforms.ToTensor(), transforms.Normalize(mean, std, inplace=True)]
    else:
        steps += [transforms.PILToTensor()]
    return DataLoader(
        ImageFolder(folder, transforms.Compose(steps)),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context="forkserver",
    )


def uint8(batch: Mapping[str, Any]) -> torch.Tensor:
    return batch["clip"]


def on_cpu(loader: TrainLoader) -> Callable[[dict[str, Any]], torch.Tensor]:
    return lambda batch: loader.prepare(batch, torch.device("cpu"))


def turn(
    loader: Iterable[Any],
    images_of: Callable[[Any], torch.Tensor],
    batches: EpochBatches | None = None,
) -> Callable[[], float]:
    """An epoch of a loader; wall-clock seconds of one image."""
    rounds = itertools.count()

    def work() -> float:
        if batches is not None:
            batches.set_epoch(next(rounds))
        start = time.perf_counter()
        count = sum(len(images_of(batch)) for batch in loader)
        return (time.perf_counter() - start) / count

    return work


def row_of(name: str, seconds: Mapping[str, Sequence[float]], workers: int) -> dict[str, Any]:
    """A contender's row; the ratio is the median of those within a round."""
    return {
        "part": "loader",
        "name": name,
        "workers": workers,
        "images_per_second": 1 / median(seconds[name]),
        "spread_percent": spread_percent(seconds[name]),
        "times_imagefolder": times_as_fast(seconds, name, "ImageFolder"),
        "seconds": seconds[name],
    }


def start_table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for row in rows:
        python = row["first_batch_seconds"] - row["start_seconds"]
        parts = (python, row["looked_up_seconds"], row["start_seconds"])
        line = [f"{row['images']:,}", *(f"{part:.2f}" for part in parts)]
        lines.append([*line, f"{row['spread_percent']:.0f} %", f"{row['process_gb']:.2f}"])
    headings = ["listed images", "Python and torch s", "lists s", "lists and first batch s"]
    return markdown_table([*headings, "spread", "process GB"], lines)


if __name__ == "__main__":
    main()
