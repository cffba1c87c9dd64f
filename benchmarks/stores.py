"""Packed frames from an object store with latency, beside those of the local disk.

A server on this machine, a process of its own, answers each request after `--latency` seconds. The
same tar is read from the disk and through the store, by the training loader with `--workers`
processes, which read ahead, and clip by clip in this process, which does not. Contenders take
turns; the figures are clips a second over whole passes, after one that does not count.

    python -m benchmarks.stores --scheme http --out stores.json

It is exact: in the first round, clips of both are compared bit for bit.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.timing import Target, take_turns
from vidadapt.apps.report import markdown_table
from vidadapt.data import Augmentation, EpochBatches, TrainClips, TrainLoader
from vidadapt.data.sampling import SAMPLINGS
from vidadapt.files import write_json
from vidadapt.lists import Sample, Samples, Videos, counted_videos
from vidadapt.video import make_packed_index

GOAL = 0.8


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    with tempfile.TemporaryDirectory() as scratch, served(Path(scratch), args) as address:
        os.environ["VIDADAPT_STORE_CACHE"] = str(Path(scratch) / "cache")
        bucket = Path(scratch) / "bucket"
        make_tar(bucket / "00000.tar", args)
        url = f"http://{address}/bucket"
        if args.scheme == "s3":
            url = "s3://bucket"
            os.environ |= {"AWS_ENDPOINT_URL": f"http://{address}", "AWS_ACCESS_KEY_ID": "none"}
            os.environ |= {"AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "us-east-1"}
        roots = {"disk": str(bucket), "store": url}
        clips = {name: clips_of(root, Path(scratch) / name, args) for name, root in roots.items()}
        for key in [(0, index, 0) for index in range(4)]:
            if not torch.equal(clips["disk"][key]["clip"], clips["store"][key]["clip"]):
                raise SystemExit(f"clip {key} differs")
        loaders = {name: loader_of(some, args) for name, some in clips.items()}
        work: dict[str, Callable[[], float]] = {}
        for name in roots:
            work[f"{name}, loader"] = lambda name=name: of_loader(loaders[name])  # type: ignore[misc]
            work[f"{name}, one by one"] = lambda name=name: one_by_one(clips[name])  # type: ignore[misc]
        found = take_turns(work, args.rounds)
        for loader in loaders.values():
            loader.close()
    speeds = {name: 1 / statistics.median(times) for name, times in found.items()}
    ratios = [a / b for a, b in zip(found["disk, loader"], found["store, loader"], strict=True)]
    name = f"packed, {args.frames} frames, {args.latency * 1000:g} ms: store : disk, clips/s"
    target = Target(name, GOAL, ">=", statistics.median(ratios))
    shown = [[name, f"{speed:.1f}"] for name, speed in speeds.items()]
    print(markdown_table(["read", "clips/s"], shown))
    print(f"{name}: {target.measured:.2f} ({min(ratios):.2f} to {max(ratios):.2f}), aim {GOAL}")
    if args.out is not None:
        write_json(
            args.out,
            {
                "arguments": {key: value for key, value in vars(args).items() if key != "out"},
                "clips_per_second": speeds,
                "seconds": found,
                "target": target.as_dict(),
            },
        )


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scheme", choices=("http", "s3"), default="http")
    parser.add_argument("--latency", type=float, default=0.02, help="seconds (%(default)s)")
    parser.add_argument("--videos", type=int, default=48, help="of 40 frames (%(default)s)")
    parser.add_argument("--frames", type=int, default=8, help="of a clip (%(default)s)")
    parser.add_argument("--batch_size", type=int, default=8, help="(%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file with all figures")
    return parser.parse_args(argv)


@contextmanager
def served(folder: Path, args: argparse.Namespace) -> Iterator[str]:
    """Start the server; its address."""
    (folder / "bucket").mkdir()
    command = [sys.executable, "-m", "benchmarks.store_server", str(folder), str(args.latency)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None and server.stdin is not None
        yield server.stdout.readline().strip()
        server.stdin.close()


def make_tar(path: Path, args: argparse.Namespace) -> None:
    """Write videos of 40 frames, 340 x 256 pixels, with the texture of footage."""
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for video in range(args.videos):
            small = rng.integers(0, 256, (32, 43, 3), dtype=np.uint8)
            still = Image.fromarray(small).resize((400, 256), Image.Resampling.BICUBIC)
            for number in range(40):
                file = io.BytesIO()
                still.crop((number, 0, number + 340, 256)).save(file, "JPEG", quality=90)
                member = tarfile.TarInfo(f"{video}/{number:06d}.jpg")
                member.size = file.tell()
                tar.addfile(member, io.BytesIO(file.getvalue()))
    make_packed_index(path, path.with_name(path.name + ".index"))


def clips_of(root: str, folder: Path, args: argparse.Namespace) -> TrainClips:
    folder.mkdir()
    samples = Samples.of([Sample(f"00000.tar/{n}", 0) for n in range(args.videos)])
    videos: Videos = counted_videos(folder / "list.txt", root, samples, progress=False)
    sampling = replace(SAMPLINGS["uniform8"], num_frames=args.frames)
    return TrainClips(videos, sampling, crop_size=224, augmentation=Augmentation(), seed=0)


def loader_of(clips: TrainClips, args: argparse.Namespace) -> TrainLoader:
    batches = EpochBatches(len(clips), 0, batch_size=args.batch_size)
    return TrainLoader(
        clips,
        batches,
        normalization="imagenet",
        clip_timeout=60.0,
        num_workers=args.workers,
    )


def of_loader(loader: TrainLoader) -> float:
    """Seconds of a clip over one pass."""
    began = time.perf_counter()
    number = sum(len(batch["index"]) for batch in loader)
    return (time.perf_counter() - began) / number


def one_by_one(clips: TrainClips) -> float:
    """Seconds of a clip, each read when the one before is ready."""
    began = time.perf_counter()
    for index in range(len(clips)):
        clips[0, index, 0]
    return (time.perf_counter() - began) / len(clips)


if __name__ == "__main__":
    main()
