"""Segments of films against the same actions cut to files: the same frames, bits and accuracy.

Films of 30 joined actions with a variable frame rate are rendered, each action beginning with a key
frame, so that packets can be copied into a file of their own: its frames are those of the segment.
Every segment is then compared with an independent reading of the film (one sequential decode, with
the timestamps of its frames) and with the file that was cut. Training on the list of segments and
on that of cut files, with several seeds, must give the same weights, bit for bit.

    python -m benchmarks.segments --out runs/segments --json segments.json

What is finished in the folder is kept: the same command goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from benchmarks.small_runs import check, finish, tool
from benchmarks.timing import Target
from vidadapt.apps.report import markdown_table
from vidadapt.apps.synthetic import labels, render
from vidadapt.files import replaced
from vidadapt.lists import MANY, Sample, counted_videos, read_list, write_list
from vidadapt.video import open_counted

ACTIONS = 30  # of a film
FAMILY = "target"
SIZE = (96, 128)  # of a frame, height and width
TICK = Fraction(1, 1000)  # of Matroska's timestamps, in seconds
STEPS = (15, 90)  # ticks between two frames
SCENE = (16, 33)  # frames of an action
KINDS = ("segments", "cut")


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    check(args, "segments", {"films": 1, "test_films": 1, "epochs": 1})
    for number in range(args.films + args.test_films):
        make_film(args.work, number, args.actions)
    write_lists(args)
    rows = [compared(args, split) for split in ("train", "test")]
    rows += [trained(args, seed) for seed in args.seeds]
    runs = [row for row in rows if "seed" in row]
    wrong = sum(row["wrong_frames"] + row["wrong_indices"] for row in rows if "frames" in row)
    gaps = max(abs(row["top1"]["segments"] - row["top1"]["cut"]) for row in runs)
    targets = [
        Target("frames and indices that differ from an independent reading", 0, "<=", wrong),
        Target("largest difference of top-1 at one seed, %", 0, "<=", gaps),
        Target("seeds with equal bits", len(runs), ">=", sum(row["equal_bits"] for row in runs)),
    ]
    finish(args, "segments", rows, targets, table(rows))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", dest="work", type=Path, default=Path("runs/segments"), metavar="FOLDER"
    )
    parser.add_argument("--films", type=int, default=4, help="to train on (%(default)s)")
    parser.add_argument("--test_films", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--actions", type=int, default=ACTIONS, help="of a film (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="(%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def make_film(out: Path, number: int, actions: int) -> None:
    """Write a film, what is in it (`film_N.json`), and each of its actions as a file of its own."""
    told = out / f"film_{number}.json"
    if told.exists():
        return
    rng, names = np.random.default_rng([7, number]), labels(FAMILY)
    order = rng.permutation(np.arange(actions) % len(names)).tolist()
    counts = rng.integers(*SCENE, actions).tolist()
    stamps = np.cumsum(rng.integers(*STEPS, sum(counts))).tolist()
    film = out / f"film_{number}.mkv"
    scenes = (
        rendered(names[a], (number, i), n)
        for i, (a, n) in enumerate(zip(order, counts, strict=True))
    )
    write_film(film, scenes, stamps)
    starts = [0, *np.cumsum(counts).tolist()]
    cut_at(film, starts[1:-1], [out / f"film_{number}_{i:02d}.mkv" for i in range(actions)])
    ends = [*stamps, stamps[-1] + STEPS[1]]
    parts = [[float((ends[n] - ends[0]) * TICK) for n in two] for two in itertools.pairwise(starts)]
    with replaced(told) as partial:
        partial.write_text(json.dumps({"labels": order, "seconds": parts, "starts": starts}))


def rendered(action: str, seed: Sequence[int], count: int) -> np.ndarray:
    """Frames (count, H, W, 3) uint8 of one action, scaled to `SIZE`."""
    frames, _ = render(action, FAMILY, seed, 0.5, num_frames=count)
    return np.stack([np.array(Image.fromarray(frame).resize(SIZE[::-1])) for frame in frames])


def write_film(path: Path, scenes: Iterator[np.ndarray], stamps: Sequence[int]) -> None:
    """Encode scenes (T, H, W, 3) one after the other, each from a key frame on.

    Args:
        stamps: of all frames, in units of `TICK`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"crf": "20", "preset": "veryfast", "g": "12", "bf": "2", "forced-idr": "1"}
    left = iter(stamps)
    with replaced(path) as partial, av.open(str(partial), "w", format="matroska") as container:
        stream: Any = container.add_stream("libx264", rate=1000, options={**options, "mbtree": "0"})
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = TICK
        for scene in scenes:
            for number, array in enumerate(scene):
                frame = av.VideoFrame.from_ndarray(array, format="rgb24")
                frame.pts, frame.time_base = next(left), TICK
                if number == 0:
                    frame.pict_type = av.video.frame.PictureType.I
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def cut_at(film: Path, starts: Sequence[int], parts: Sequence[Path]) -> None:
    """Copy the packets of a film into a file for each part, of which all but the first begin at
    the frames `starts`, which are key frames of closed groups.
    """
    with av.open(str(film)) as container:
        stream: Any = container.streams.video[0]
        packets: list[Any] = [packet for packet in container.demux(stream) if packet.size]
        stamps = sorted(packet.pts for packet in packets)
        begins = [stamps[start] for start in starts]
        for number, path in enumerate(parts):
            first = begins[number - 1] if number else stamps[0]
            last = begins[number] if number < len(begins) else stamps[-1] + 1
            with replaced(path) as partial, av.open(str(partial), "w", format="matroska") as cut:
                copy = cut.add_stream_from_template(stream)
                for packet in packets:
                    if first <= packet.pts < last:
                        made: Any = av.Packet(bytes(packet))
                        made.stream, made.time_base = copy, stream.time_base
                        made.pts, made.is_keyframe = packet.pts - first, packet.is_keyframe
                        made.dts = None if packet.dts is None else packet.dts - first
                        cut.mux(made)


def write_lists(args: argparse.Namespace) -> None:
    """Write for each split a list of segments and one of cut files, in the same order."""
    for split, numbers in (
        ("train", range(args.films)),
        ("test", range(args.films, args.films + args.test_films)),
    ):
        lists: dict[str, list[Sample]] = {kind: [] for kind in KINDS}
        for number in numbers:
            told = json.loads((args.work / f"film_{number}.json").read_text())
            for i, ((start, end), label) in enumerate(
                zip(told["seconds"], told["labels"], strict=True)
            ):
                part = f"film_{number}.mkv#t={start:.3f},{end:.3f}"
                lists["segments"].append(Sample(part, label))
                lists["cut"].append(Sample(f"film_{number}_{i:02d}.mkv", label))
        for kind, samples in lists.items():
            write_list(args.work / f"{kind}_{split}.txt", samples)
    names = "".join(f"{name}\n" for name in labels(FAMILY))
    (args.work / "labels.txt").write_text(names, encoding="utf-8")


def read_slowly(film: Path) -> tuple[list[np.ndarray], list[Any]]:
    """All frames of a film and their times from the first one on, by a plain sequential decode."""
    with av.open(str(film)) as container:
        stream: Any = container.streams.video[0]
        decoded = [
            (frame.to_ndarray(format="rgb24"), frame.pts * stream.time_base)
            for frame in container.decode(stream)
        ]
    return [array for array, _ in decoded], [time - decoded[0][1] for _, time in decoded]


def compared(args: argparse.Namespace, split: str) -> dict[str, Any]:
    """Compare each frame of each segment with the film's, and with the file that was cut."""
    found = {}
    for kind in KINDS:
        path = args.work / f"{kind}_{split}.txt"
        samples = read_list(path, args.work, MANY)
        found[kind] = counted_videos(path, args.work, samples, progress=False)
    segments, cut = found["segments"], found["cut"]
    slow: dict[str, tuple[list[np.ndarray], list[Any]]] = {}
    wrong_frames = wrong_indices = frames = 0
    for place in range(len(segments)):
        film, _, span = segments.path(place).partition("#t=")
        if film not in slow:
            slow = {film: read_slowly(args.work / film)}
        arrays, times = slow[film]
        start, end = map(Fraction, span.split(","))
        wanted = [i for i, time in enumerate(times) if start <= time < end]
        facts = segments.facts(place)
        indices = range(facts.first_frame, facts.first_frame + facts.num_frames)
        wrong_indices += [*indices] != wanted
        with open_counted(segments.file(place), facts) as video:
            ours = video.frames(range(len(video)))
        with open_counted(cut.file(place), cut.facts(place)) as video:
            theirs = video.frames(range(len(video)))
        frames += len(ours)
        for i, one, other in itertools.zip_longest(wanted, ours, theirs):
            same = i is not None and np.array_equal(one, arrays[i]) and np.array_equal(one, other)
            wrong_frames += not same
    return {
        "list": split,
        "films": len({segments.path(place).partition("#")[0] for place in range(len(segments))}),
        "segments": len(segments),
        "frames": frames,
        "wrong_indices": wrong_indices,
        "wrong_frames": wrong_frames,
    }


def trained(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train and test on segments and on cut files with one seed, unless it is done."""
    row: dict[str, Any] = {"seed": seed, "top1": {}, "losses": {}}
    weights = []
    for kind in KINDS:
        run = args.work / f"{kind}_seed{seed}"
        options = {
            "config": "demo/adaptformer",
            "run_dir": run,
            "data.root": args.work,
            "data.train_list": args.work / f"{kind}_train.txt",
            "data.dev_list": "null",
            "data.test_list": args.work / f"{kind}_test.txt",
            "data.label_names": args.work / "labels.txt",
            "data.num_workers": 0,
            "data.clip_timeout": "null",
            "train.epochs": args.epochs,
            "train.batch_size": 12,
            "train.warmup_epochs": 0,
            "train.precision": "fp32",
            "train.seed": seed,
        }
        words = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
        if not (run / "summary.json").exists():
            tool("train", [*words, "--resume"])
        if not (run / "eval" / "metrics.json").exists():
            tool("evaluate", ["--run_dir", run, "--out", run / "eval"])
        lines = (run / "log.jsonl").read_text().splitlines()
        row["losses"][kind] = [json.loads(line)["train_loss"] for line in lines]
        row["top1"][kind] = json.loads((run / "eval" / "metrics.json").read_text())["top1"]
        weights.append((run / "last" / "adapter.safetensors").read_bytes())
    same = row["losses"]["segments"] == row["losses"]["cut"]
    return {**row, "equal_bits": same and weights[0] == weights[1]}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """What was compared, and the accuracies of each seed."""
    checks = [
        [row["list"], *(f"{row[key]:,}" for key in CHECKED)] for row in rows if "frames" in row
    ]
    runs = [row for row in rows if "seed" in row]
    lines = [
        [str(r["seed"]), *(f"{r['top1'][kind]:.2f}" for kind in KINDS), str(r["equal_bits"])]
        for r in runs
    ]
    means = [f"{statistics.fmean(r['top1'][kind] for r in runs):.2f}" for kind in KINDS]
    return "\n\n".join(
        [
            markdown_table(["list", *CHECKED], checks),
            markdown_table(
                ["seed", "top-1, segments", "top-1, cut files", "equal bits"],
                [*lines, ["mean", *means, ""]],
            ),
        ]
    )


CHECKED = ("films", "segments", "frames", "wrong_indices", "wrong_frames")


if __name__ == "__main__":
    main()
