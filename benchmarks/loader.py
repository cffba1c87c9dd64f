"""How fast the training loader is: clips a second by kind of file, frames and reader.

Generated videos (see benchmarks/footage.py): mp4 (H.264, 426x240, as Kinetics' clips
at 240p), webm (VP9, as Something-Something V2's) and avi (MPEG-4, as HMDB51's). From each of them
every contender makes one clip a round, of the same frames: file opened, frames decoded,
multi-scale crop, resized to 224 pixels.

  released    what AdaptFormer's released loader does: decord, PIL, floats normalised on the CPU
  NAME loop   the plain loop of a library (decord, PyAV, torchcodec), then vidadapt's crop: uint8
  vidadapt NAME    vidadapt's training clips with data.reader NAME: uint8, normalised on the device
  + floats    the same, made floats and normalised on the CPU as the released loader does

Figures are CPU seconds of one process with one thread, so they are those of one core, whatever else
the machine does. The rows with workers are wall-clock seconds of batches, of the
training loader or, of other clips, of a DataLoader.
`exact` counts the clips whose pixels are those of a loop that decodes every frame from the first
one on: not so where a seeking reader returns another frame. Floats may differ from them by one grey
level, as Pillow and torchvision round some pixels differently.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from benchmarks import released
from benchmarks.footage import FOOTAGE, generate
from benchmarks.loader_contenders import PLAIN, SEED, Floats, PlainClips, ReleasedClips
from benchmarks.report import targets_table
from benchmarks.timing import Target, take_turns, times_as_fast
from vidadapt import runs
from vidadapt.apps.report import markdown_table
from vidadapt.apps.study.benchmark import spread_percent
from vidadapt.config import DataConfig
from vidadapt.console import track
from vidadapt.data import (
    Augmentation,
    EpochBatches,
    SampleKey,
    Sampling,
    TrainClips,
    TrainLoader,
    cores,
    count_files,
    normalize,
)
from vidadapt.files import write_json
from vidadapt.lists import Sample, Videos, read_list
from vidadapt.video import READERS, VideoFacts, check_reader

CASES = ("mp4:dense:8", "mp4:uniform:8", "avi:uniform:8", "webm:uniform:8", "mp4:dense:2")
STRIDES = {"dense": 4, "uniform": 1}
GPU_RATES = (100, 500, 1000)
BATCH = 8
GREY_LEVEL = 1 / 255 / 0.224  # at most, after normalisation

Load = Callable[[list[list[SampleKey]]], Iterable[dict[str, Any]]]


@dataclass(frozen=True)
class Case:
    """A row group: a key of `FOOTAGE`, the sampling policy and T."""

    kind: str
    policy: str
    num_frames: int

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.policy, self.num_frames, STRIDES[self.policy], 1, 1)  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        return f"{self.kind}, {self.policy}, {self.num_frames} frames"


@dataclass(frozen=True)
class Files:
    """Videos of one kind.

    Attributes:
        paths: absolute.
        counts: by reader, and by path.
    """

    paths: list[str]
    counts: dict[str, dict[str, VideoFacts]]


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(1)
    try:
        cases = [read_case(text) for text in args.cases]
        released.check_installed()
        if args.videos < BATCH:
            raise ValueError(f"--videos: expected {BATCH} or more, got {args.videos}")
        readers, absent = loadable(args.readers)
        if args.reader not in readers:
            raise ValueError(f"--reader: {args.reader} is none of {', '.join(readers)}")
        if args.json is not None:
            runs.check_writable("--json", args.json.absolute().parent)
        kinds = dict.fromkeys(case.kind for case in cases)
        files = {kind: made(kind, args.videos, args.folder, readers) for kind in kinds}
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"loader: {error}")
    rows, targets = [], []
    ours = f"vidadapt {args.reader}"
    with_workers = {case.kind: case for case in reversed(cases)} if args.workers else {}
    for case in track(cases, total=len(cases), label="measure", unit="cases"):
        found = files[case.kind]
        clips = contenders(case, found, args.reader, args.crop_size)
        turns = {name: alone_turn(data, len(found.paths)) for name, data in clips.items()}
        alone = take_turns(turns, args.rounds)
        same = same_pixels(clips, args.checked)
        rows += [row_of(case, name, alone, 0, found, same[name]) for name in clips]
        targets += aimed_at(case, alone, ours)
        if with_workers.get(case.kind) == case:
            turns = {
                name: loader_turn(
                    clips[name],
                    len(found.paths),
                    args.workers,
                    args.clips,
                )
                for name in ("released", "decord loop", ours)
            }
            shared = take_turns(turns, args.rounds)
            rows += [row_of(case, name, shared, args.workers, found, None) for name in turns]
    told = [target.as_dict() for target in targets]
    print("\n\n".join([table(rows), cores_table(rows, ours), notes(args, files, absent)]))
    print(targets_table(told), file=sys.stderr)
    if args.json is not None:
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
        settings = {k: v for k, v in settings.items() if k != "json"} | {"absent": absent}
        result = {"table": "loader", "settings": settings, "rows": rows, "targets": told}
        write_json(args.json, result)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""examples:
  python -m benchmarks.loader --json loader.json
  python -m benchmarks.loader --cases mp4:dense:16 webm:dense:8 --videos 64 --workers 0""",
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        default=CASES,
        metavar="KIND:POLICY:FRAMES",
        help=f"kinds {', '.join(FOOTAGE)}; policies dense (every 4th frame) and uniform; "
        f"default: {' '.join(CASES)}",
    )
    parser.add_argument("--videos", type=int, default=12, help="of a kind (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="that count (%(default)s)")
    parser.add_argument(
        "--readers", nargs="+", choices=READERS, default=list(READERS), help="default: all"
    )
    parser.add_argument(
        "--reader",
        choices=READERS,
        default=DataConfig().reader,
        help="the one of the targets and of the rows with workers (%(default)s)",
    )
    parser.add_argument("--crop_size", type=int, default=224, metavar="S", help="(%(default)s)")
    parser.add_argument(
        "--workers", type=int, default=2, help="of the first case of a kind; 0: none (%(default)s)"
    )
    parser.add_argument(
        "--clips", type=int, default=64, help="of a round with workers, at least (%(default)s)"
    )
    parser.add_argument(
        "--checked", type=int, default=8, help="videos that `exact` looks at (%(default)s)"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("demo_data/bench_loader"),
        help="of the generated videos, which are kept (%(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def read_case(text: str) -> Case:
    """See `--cases`.

    >>> read_case("mp4:dense:8").name
    'mp4, dense, 8 frames'
    """
    kind, _, rest = text.partition(":")
    policy, _, frames = rest.partition(":")
    if kind not in FOOTAGE or policy not in STRIDES or not frames.isdecimal() or frames == "0":
        raise ValueError(
            f"--cases: {text!r} is no KIND:POLICY:FRAMES with a kind of {', '.join(FOOTAGE)} and "
            f"a policy of {', '.join(STRIDES)}"
        )
    return Case(kind, policy, int(frames))


def loadable(readers: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Those that can be loaded, and why the others cannot."""
    absent = {}
    for reader in readers:
        try:
            check_reader(reader)
        except ImportError as error:
            absent[reader] = str(error)
    return [reader for reader in readers if reader not in absent], absent


def made(kind: str, number: int, folder: Path, readers: Sequence[str]) -> Files:
    """Generate the videos that are missing, and count their frames for each reader."""
    listed = generate(FOOTAGE[kind], number, folder / kind)
    names = [sample.path for sample in read_list(listed, listed.parent, sys.maxsize)]
    paths = [str((listed.parent / name).absolute()) for name in names]
    counts = {reader: count_files(paths, reader, num_workers=cores()) for reader in readers}
    if errors := [count.error for c in counts.values() for count in c.values() if count.error]:
        raise ValueError(errors[0])
    return Files(paths, counts)


def contenders(
    case: Case, files: Files, chosen: str, crop_size: int
) -> dict[str, Dataset[dict[str, Any]]]:
    """Data sets by name; the keys' copy is 0."""
    first = files.counts[chosen]
    lengths = [first[path].num_frames for path in files.paths]
    about = (files.paths, lengths, case.sampling, crop_size)
    clips: dict[str, Dataset[dict[str, Any]]] = {
        "released": ReleasedClips(FOOTAGE[case.kind].size, *about)
    }
    for name in PLAIN:
        if name != "torchcodec" or name in files.counts:
            clips[f"{name} loop"] = PlainClips(name, *about)
    for reader, counts in files.counts.items():
        clips[f"vidadapt {reader}"] = TrainClips(
            Videos.of("/", [Sample(path, 0) for path in files.paths], counts),
            case.sampling,
            crop_size=crop_size,
            augmentation=Augmentation(),
            seed=SEED,
        )
    clips[f"vidadapt {chosen} + floats"] = Floats(clips[f"vidadapt {chosen}"])
    return clips


def alone_turn(clips: Dataset[dict[str, Any]], number: int) -> Callable[[], float]:
    """A clip of each video; CPU seconds of one. Each round has frames and crops of its own."""
    rounds = itertools.count()

    def work() -> float:
        epoch = next(rounds)
        start = time.process_time()
        for index in range(number):
            clips[epoch, index, 0]
        return (time.process_time() - start) / number

    return work


def loader_turn(
    clips: Dataset[dict[str, Any]],
    number: int,
    workers: int,
    least: int,
) -> Callable[[], float]:
    """`least` clips or more by workers, in batches; wall-clock seconds of one.

    Training clips come from a `TrainLoader`, as in a training run, all others from a `DataLoader`.
    """
    load = watched if isinstance(clips, TrainClips) else plain
    return batches_turn(load(clips, workers), number, epochs=math.ceil(least / number))


def watched(clips: Any, workers: int) -> Load:
    """The loader of a training run: of given batches."""
    return TrainLoader(
        clips,
        EpochBatches(len(clips), SEED, batch_size=1),
        normalization="imagenet",
        clip_timeout=300,
        num_workers=workers,
    ).of


def plain(clips: Any, workers: int) -> Load:
    """torch's loader, which waits for ever where a worker hangs: of given batches."""
    batches: list[list[SampleKey]] = []
    loader = DataLoader(
        clips,
        batch_sampler=batches,
        collate_fn=stacked,
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context="forkserver",
    )

    def load(wanted: list[list[SampleKey]]) -> Iterable[dict[str, Any]]:
        batches[:] = wanted
        return loader

    return load


def batches_turn(
    load: Load,
    number: int,
    epochs: int = 1,
    copies: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Callable[[], float]:
    """Whole batches of some epochs of `number` videos; seconds of a clip.

    Each round has epochs of its own. Copies of a video are neighbours, its clips of other epochs
    are not: these share no decode.
    """
    rounds = itertools.count()

    def work() -> float:
        first = next(rounds) * epochs
        each = itertools.product(range(first, first + epochs), range(number), range(copies))
        keys = list(each)
        whole = len(keys) // BATCH * BATCH
        batches = [keys[start : start + BATCH] for start in range(0, whole, BATCH)]
        began = clock()
        count = sum(len(batch["clip"]) for batch in load(batches))
        return (clock() - began) / count

    return work


def stacked(items: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch in whose memory channels are last, as in its clips': each is copied in one piece."""
    clips = [item["clip"] for item in items]
    if clips[0].is_floating_point():
        return default_collate(items)
    clip = default_collate([clip.permute(1, 2, 3, 0) for clip in clips])
    return {"clip": clip.permute(0, 4, 1, 2, 3)}


def same_pixels(clips: Mapping[str, Dataset[dict[str, Any]]], number: int) -> dict[str, list[int]]:
    """By contender: of how many clips the pixels are the sequential loop's, and of how many."""
    same = {name: [0, 0] for name in clips}
    keys = [(0, index, 0) for index in range(number)]
    expected = [clips["pyav loop"][key]["clip"] for key in keys]
    for name, data in clips.items():
        for key, reference in zip(keys, expected, strict=True):
            clip = data[key]["clip"]
            if clip.is_floating_point():
                good = torch.allclose(
                    clip, normalize(reference, "imagenet"), rtol=0, atol=1.01 * GREY_LEVEL
                )
            else:
                good = torch.equal(clip, reference)
            same[name][0] += good
            same[name][1] += 1
    return same


def row_of(
    case: Case,
    name: str,
    seconds: Mapping[str, Sequence[float]],
    workers: int,
    files: Files,
    same: list[int] | None,
) -> dict[str, Any]:
    """A contender's row; ratios are medians of those within a round."""
    counts = files.counts.get(name.removeprefix("vidadapt ").removesuffix(" + floats"), {})
    served = sorted({count.reader for count in counts.values()}) if "vidadapt" in name else []
    return {
        "kind": case.kind,
        "policy": case.policy,
        "frames": case.num_frames,
        "name": name,
        "served_by": served,
        "workers": workers,
        "clips_per_second": 1 / statistics.median(seconds[name]),
        "spread_percent": spread_percent(seconds[name]),
        "times_released": times_as_fast(seconds, name, "released"),
        "times_decord_loop": times_as_fast(seconds, name, "decord loop"),
        "exact": same,
        "seconds": seconds[name],
    }


def aimed_at(case: Case, seconds: Mapping[str, Sequence[float]], ours: str) -> list[Target]:
    """What is aimed at in a case, if anything."""
    goals = {
        ("mp4", "dense", 8): ("released", 2.0),
        ("avi", "uniform", 8): ("decord loop", 1.25),
    }
    goal = goals.get((case.kind, case.policy, case.num_frames))
    if goal is None:
        return []
    other, number = goal
    name = f"training loader, {case.name}: {ours} (uint8) : {other}, clips/s per core"
    return [Target(name, number, ">=", times_as_fast(seconds, ours, other))]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One table of all cases."""
    headings = ["videos, sampling, frames", "loader", "workers", "clips/s", "spread"]
    headings += [": released", ": decord loop", "exact"]
    lines = []
    for row in rows:
        served = [name for name in row["served_by"] if f"vidadapt {name}" not in row["name"]]
        lines.append(
            [
                f"{row['kind']}, {row['policy']}, {row['frames']}",
                row["name"] + (f" ({', '.join(served)})" if served else ""),
                str(row["workers"] or "one core"),
                f"{row['clips_per_second']:.1f}",
                f"{row['spread_percent']:.0f} %",
                f"{row['times_released']:.2f}",
                f"{row['times_decord_loop']:.2f}",
                "" if row["exact"] is None else "{} of {}".format(*row["exact"]),
            ]
        )
    return markdown_table(headings, lines)


def cores_table(rows: Sequence[dict[str, Any]], ours: str) -> str:
    """How many cores keep a GPU busy that trains on so many clips a second."""
    lines = [
        [
            f"{row['kind']}, {row['policy']}, {row['frames']}",
            row["name"],
            *(str(cores_needed(rate, row["clips_per_second"])) for rate in GPU_RATES),
        ]
        for row in rows
        if row["workers"] == 0 and row["name"] in ("released", ours)
    ]
    headings = ["cores needed for", "loader", *(f"{rate:,} clips/s" for rate in GPU_RATES)]
    return markdown_table(headings, lines)


def cores_needed(rate: float, per_core: float) -> int:
    """Cores that together yield `rate` clips a second.

    >>> cores_needed(1000, 80), cores_needed(100, 120)
    (13, 1)
    """
    return math.ceil(rate / per_core)


def notes(args: argparse.Namespace, files: Mapping[str, Files], absent: Mapping[str, str]) -> str:
    """What the figures stand on."""
    sizes = [
        f"{kind} {sum(Path(path).stat().st_size for path in found.paths) / 1e6:.1f} MB"
        for kind, found in files.items()
    ]
    lines = [
        f"{args.videos} generated videos of a kind ({', '.join(sizes)}), crops of {args.crop_size} "
        f"px; medians of {args.rounds} rounds, ratios within a round. One core: by CPU time.",
        *(f"Not measured: {reason}." for reason in absent.values()),
    ]
    return "\n\n".join(lines)


if __name__ == "__main__":
    main()
