"""What comparing each frame with its checksum costs a loader: CPU time with and without, in pairs.

  python -m benchmarks.verified
  python -m benchmarks.verified --kinds avi --pairs 200

A training clip is opened, decoded, converted, cropped and resized, in one thread. Without: the
checksum of a frame is a constant, and nothing is hashed.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from benchmarks.footage import FOOTAGE, generate
from vidadapt.apps.report import markdown_table
from vidadapt.data import Augmentation, Sampling, seeded, train_clip, train_indices
from vidadapt.lists import read_list
from vidadapt.video import VideoFacts, open_counted, open_video, sequential, sparse

SAMPLING = {"dense": Sampling("dense", 8, 4, 1, 1), "uniform": Sampling("uniform", 8, 1, 1, 1)}


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(1)
    rows = []
    for kind in args.kinds:
        listed = generate(FOOTAGE[kind], args.videos, args.folder / kind)
        names = [sample.path for sample in read_list(listed, listed.parent, sys.maxsize)]
        for policy in SAMPLING:
            rows.append(measured(kind, policy, [listed.parent / n for n in names], args.pairs))
    headings = ["videos", "frames", "read by", "with, ms", "without, ms", "costs, ms", "share"]
    print(markdown_table(headings, rows))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=FOOTAGE, default=list(FOOTAGE))
    parser.add_argument("--videos", type=int, default=6, help="of a kind (%(default)s)")
    parser.add_argument("--pairs", type=int, default=90, help="of clips (%(default)s)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("demo_data/bench_loader"),
        help="of the generated videos, which are kept (%(default)s)",
    )
    return parser.parse_args(argv)


def measured(kind: str, policy: str, paths: Sequence[Path], pairs: int) -> list[str]:
    """A row: medians of the pairs, each of two turns of either way, of which the faster counts."""
    known = []
    for path in paths:
        with open_video(path) as video:
            known.append((path, video.facts))
    rng = np.random.default_rng(0)
    found = []
    for number in range(pairs):
        path, facts = known[number % len(known)]
        wanted = train_indices(SAMPLING[policy], facts.num_frames, rng)
        turns: dict[bool, list[float]] = {True: [], False: []}
        for compares in (True, False, False, True):
            turns[compares].append(seconds(path, facts, wanted, number, compares))
        found.append((min(turns[True]), min(turns[False])))
    with_, without = (1000 * statistics.median(times) for times in zip(*found, strict=True))
    costs = 1000 * statistics.median(one - other for one, other in found)
    share = statistics.median(one / other - 1 for one, other in found)
    readers = ", ".join(sorted({facts.reader for _, facts in known}))
    times = [f"{number:.2f}" for number in (with_, without, costs)]
    return [kind, f"{policy}, 8", readers, *times, f"{100 * share:.1f} %"]


def seconds(path: Path, facts: VideoFacts, wanted: np.ndarray, seed: int, compares: bool) -> float:
    """CPU seconds of one training clip."""
    with nothing_hashed() if not compares else contextlib.nullcontext():
        told = facts if compares else replace(facts, checks=np.zeros_like(facts.checks))
        start = time.process_time()
        with open_counted(path, told) as video, seeded(seed):
            train_clip(
                video.frames(wanted),
                crop_size=224,
                augmentation=Augmentation(),
            )
        return time.process_time() - start


def nothing_hashed() -> AbstractContextManager[object]:
    stack = contextlib.ExitStack()
    for module in (sparse, sequential):
        stack.enter_context(mock.patch.object(module, "frame_checksum", lambda frame: 0))
    return stack


if __name__ == "__main__":
    main()
