"""The training loader against one other way at a time, and what decoding alone would take.

Videos, clips and contenders are those of `benchmarks.loader`. All of a part take turns, and ratios
are medians of those within a round.

  watched  batches by worker processes of the training loader, which may hang or die; and by torch's
           DataLoader, of the same clips (mp4, dense, 8 frames)
  copies   batches with 1, 2 and 4 copies of a video, which share a decode, of one process
           (mp4, dense, 8 frames)
  mp4      one core: what AdaptFormer's loader does, the training clips (dense, 8 frames), and two
           floors under these: only decoding the packets that the clips need, with PyAV, packets in
           memory; and decoding them, comparing checksums, making RGB and cropping, without opening
           files, demuxing and all else
  webm     the same (uniform, 8 frames)
  workers  batches of webm by worker processes: what AdaptFormer's loader does, the training loader

Figures of one core or process are CPU time, those of workers wall-clock time.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from av.video.reformatter import VideoReformatter
from torch.utils.data import Dataset

from benchmarks import released
from benchmarks.loader import (
    BATCH,
    Case,
    Files,
    alone_turn,
    batches_turn,
    contenders,
    loader_turn,
    made,
    plain,
    watched,
)
from benchmarks.report import rows_table
from benchmarks.run import environment
from benchmarks.small_runs import check, finish
from benchmarks.timing import Target, take_turns, times_as_fast
from vidadapt.apps.study.benchmark import spread_percent
from vidadapt.data import Augmentation, TrainClips, seeded, train_clip, train_indices
from vidadapt.video import frame_checksum, sparse
from vidadapt.video.orientation import shown_size
from vidadapt.video.sequential import upright_rgb

DENSE, UNIFORM = Case("mp4", "dense", 8), Case("webm", "uniform", 8)
READER = "auto"
RELEASED, OURS, PLAIN = "released", "vidadapt", "DataLoader"
DECODING, BARE = "only decoding", "only decoding, checking, RGB, crop"
COPIES = (1, 2, 4)
COLUMNS = {
    "part": ("part", ""),
    "ms a clip": ("ms_per_clip", ".2f"),
    "spread %": ("spread_percent", ".0f"),
    "ratio": ("ratio", ".3f"),
    "to": ("to", ""),
}

Seconds = Mapping[str, Sequence[float]]
Turns = dict[str, Callable[[], float]]


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(1)
    check(args, "loader_pairs", {"videos": BATCH, "rounds": 1, "workers": 1, "clips": BATCH})
    try:
        released.check_installed()
        kinds = {"webm" if part in ("webm", "workers") else "mp4" for part in args.only}
        files = {kind: made(kind, args.videos, Path(args.folder), [READER]) for kind in kinds}
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"loader_pairs: {error}")
    rows: list[dict[str, Any]] = []
    targets: list[Target] = []
    for part in args.only:
        turns, to = PARTS[part](files["webm" if part in ("webm", "workers") else "mp4"], args)
        seconds = take_turns(turns, args.rounds)
        rows += rows_of(part, seconds, to)
        targets += aimed_at(part, seconds)
    told = vars(args) | {"environment": environment()}
    finish(argparse.Namespace(**told), "loader_pairs", rows, targets, table(rows))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts; default: all"
    )
    parser.add_argument("--videos", type=int, default=16, help="of a kind (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="that count (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="(%(default)s)")
    parser.add_argument(
        "--clips", type=int, default=64, help="of a round with workers, at least (%(default)s)"
    )
    parser.add_argument(
        "--folder",
        default="demo_data/bench_loader",
        help="of the generated videos, which are kept (%(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def pool(files: Files, args: argparse.Namespace) -> tuple[Turns, str]:
    clips, number = training_clips(DENSE, files), len(files.paths)
    epochs = -(-args.clips // number)
    ways = {OURS: watched(clips, args.workers), PLAIN: plain(clips, args.workers)}
    return {name: batches_turn(load, number, epochs) for name, load in ways.items()}, PLAIN


def copies(files: Files, args: argparse.Namespace) -> tuple[Turns, str]:
    load, number = watched(training_clips(DENSE, files), 0), len(files.paths)
    turns = {
        name_of(count): batches_turn(load, number, copies=count, clock=time.process_time)
        for count in COPIES
    }
    return turns, name_of(1)


def name_of(count: int) -> str:
    return f"{OURS}, {count} {'copy' if count == 1 else 'copies'}"


def one_core(case: Case, files: Files, args: argparse.Namespace) -> tuple[Turns, str]:
    number, turns = len(files.paths), {}
    known = contenders(case, files, READER, 224)
    turns[RELEASED] = alone_turn(known["released"], number)
    turns[OURS] = alone_turn(known[f"vidadapt {READER}"], number)
    clips = training_clips(case, files)
    turns[DECODING] = floor_turn(clips, number, cropped=False)
    turns[BARE] = floor_turn(clips, number, cropped=True)
    return turns, RELEASED


def workers(files: Files, args: argparse.Namespace) -> tuple[Turns, str]:
    known = contenders(UNIFORM, files, READER, 224)
    ways: dict[str, Dataset[dict[str, Any]]] = {
        RELEASED: known["released"],
        OURS: known[f"vidadapt {READER}"],
    }
    number = len(files.paths)
    turns = {n: loader_turn(d, number, args.workers, args.clips) for n, d in ways.items()}
    return turns, RELEASED


# Each returns its contenders by name, and to which of them ratios are.
PARTS: dict[str, Callable[[Files, argparse.Namespace], tuple[Turns, str]]] = {
    "watched": pool,
    "copies": copies,
    "mp4": partial(one_core, DENSE),
    "webm": partial(one_core, UNIFORM),
    "workers": workers,
}


def training_clips(case: Case, files: Files) -> TrainClips:
    clips = contenders(case, files, READER, 224)[f"vidadapt {READER}"]
    assert isinstance(clips, TrainClips)
    return clips


def floor_turn(clips: TrainClips, number: int, *, cropped: bool) -> Callable[[], float]:
    """CPU seconds of a clip that nothing but decoding (and making the clip) takes."""
    rounds = itertools.count()

    def work() -> float:
        epoch = next(rounds)
        return sum(floor_seconds(clips, (epoch, i, 0), cropped) for i in range(number)) / number

    return work


def floor_seconds(clips: TrainClips, key: tuple[int, int, int], cropped: bool) -> float:
    """Seconds of one clip, its packets in memory."""
    facts, convert = clips.samples.facts(key[1]), VideoReformatter()
    with seeded(clips.seed, *key) as rng:
        indices = train_indices(clips.sampling, facts.num_frames, rng)
        chosen = set(indices.tolist())
        with sparse.opened_groups(clips.samples.file(key[1])) as (context, groups):
            work = []
            for group in groups:
                numbers = {number: group.place + i for i, number in enumerate(group.order)}
                work.append((numbers, sparse.packets_for(group, chosen)))
            began = time.process_time()
            found = {}
            for numbers, packets in work:
                for frame in sparse.decoded_group(context, packets):
                    place = numbers.get(frame.pts)
                    if cropped and place in chosen:
                        if frame_checksum(frame) != facts.checks[place]:
                            raise ValueError(f"{clips.samples.file(key[1])}: frame {place} differs")
                        found[place] = upright_rgb(convert, frame, shown_size(frame))
            if cropped:
                frames = [found[place] for place in indices.tolist()]
                train_clip(frames, clips.crop_size, Augmentation())
            return time.process_time() - began


def rows_of(part: str, seconds: Seconds, to: str) -> list[dict[str, Any]]:
    """A row for each contender; `ratio` is of clips a second, of `copies` of time a clip."""
    return [
        {
            "part": part,
            "name": name,
            "ms_per_clip": statistics.median(values) * 1e3,
            "spread_percent": spread_percent(values),
            "ratio": ratio(part, seconds, name, to),
            "to": to,
            "seconds": list(values),
        }
        for name, values in seconds.items()
    ]


def ratio(part: str, seconds: Seconds, name: str, to: str) -> float:
    if part == "copies":
        return times_as_fast(seconds, to, name)
    return times_as_fast(seconds, name, to)


def aimed_at(part: str, seconds: Seconds) -> list[Target]:
    """What is aimed at in a part."""
    if part == "watched":
        name = "training loader : DataLoader, mp4, 8 frames, workers, clips/s"
        return [Target(name, 0.97, ">=", times_as_fast(seconds, OURS, PLAIN))]
    if part == "copies":
        name = "2 copies of a video in a batch : 1, mp4, dense, 8 frames, time a clip"
        return [Target(name, 0.65, "<=", times_as_fast(seconds, name_of(1), name_of(2)))]
    goals = {"mp4": ("mp4, dense, 8 frames, one core", 2.9)}
    goals |= {"webm": ("webm, uniform, 8 frames, one core", 2.3)}
    goals |= {"workers": ("webm, uniform, 8 frames, workers", 2.2)}
    what, goal = goals[part]
    measured = times_as_fast(seconds, OURS, RELEASED)
    return [Target(f"training loader : released, {what}, clips/s", goal, ">=", measured)]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    return rows_table(rows, COLUMNS, "loader")


if __name__ == "__main__":
    main()
