"""How fast a test reads videos: all views of one video, 4 clips x 3 crops, by kind of file.

  released     what AdaptFormer's released loader does: every view is an item of its own, which
               opens the file, decodes every 4th frame, resizes all of them with OpenCV, takes its
               clip and crop, and makes floats of them: 12 decodes
  decord loop  decord, once: the frames of all clips, resized by vidadapt, every view cut, floats
  vidadapt     its views as one uint8 tensor, which is normalised on the device: the target
  + floats     the same, made floats and normalised on the CPU as the released loader does
  item alone   what vidadapt's loader processes do of it: decoded once, what is identical there
               once; views are cut on the device

Figures are CPU seconds of one process with one thread, so they are those of one core, whatever else
the machine does. `grey levels` compares the pixels with the released loader's: mean, 99.9
percentile and largest difference of the 256 levels. The largest is above 2, since vidadapt resizes
with antialiasing and the released test does not; clips and crops lie at the same places.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import released
from benchmarks.footage import FOOTAGE
from benchmarks.loader import Files, made
from benchmarks.report import targets_table
from benchmarks.timing import Target, take_turns, times_as_fast
from vidadapt import runs
from vidadapt.apps.report import markdown_table
from vidadapt.apps.study.benchmark import spread_percent
from vidadapt.config import DataConfig
from vidadapt.console import track
from vidadapt.data import (
    SAMPLINGS,
    EvalViews,
    Sampling,
    crop_corners,
    cut_views,
    eval_frames,
    eval_indices,
    normalize,
)
from vidadapt.files import write_json
from vidadapt.lists import Sample, Videos
from vidadapt.video import READERS

SAMPLING = SAMPLINGS["adaptformer"]
AIMED_AT = "mp4"
GOAL = 13.0
LEVELS = 2.0


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(1)
    try:
        released.check_installed()
        one_thread()
        if args.json is not None:
            runs.check_writable("--json", args.json.absolute().parent)
        files = {kind: made(kind, args.videos, args.folder, [args.reader]) for kind in args.kinds}
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"views: {error}")
    rows, targets = [], []
    for kind in track(args.kinds, total=len(args.kinds), label="measure", unit="kinds"):
        views = item_views(files[kind], args.reader, args.crop_size)
        turns = contenders(files[kind].paths, views, args.crop_size)
        seconds = take_turns(turns, args.rounds)
        levels = grey_levels(files[kind].paths, views, args.crop_size)
        rows += [row_of(kind, name, seconds, levels) for name in turns]
        if kind == AIMED_AT:
            targets = aimed_at(seconds, levels)
    told = [target.as_dict() for target in targets]
    print(f"{table(rows)}\n\n{notes(args, files)}")
    print(targets_table(told), file=sys.stderr)
    if args.json is not None:
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
        settings.pop("json")
        result = {"table": "views", "settings": settings, "rows": rows, "targets": told}
        write_json(args.json, result)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python -m benchmarks.views --kinds mp4 --videos 30 --json views.json",
    )
    parser.add_argument("--kinds", nargs="+", choices=FOOTAGE, default=["mp4", "webm", "avi"])
    parser.add_argument("--videos", type=int, default=6, help="of a kind (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="that count (%(default)s)")
    parser.add_argument(
        "--reader", choices=READERS, default=DataConfig().reader, help="of vidadapt (%(default)s)"
    )
    parser.add_argument("--crop_size", type=int, default=224, metavar="S", help="(%(default)s)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("demo_data/bench_loader"),
        help="of the generated videos, which are kept (%(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def one_thread() -> None:
    """Keep OpenCV to one thread, as loader processes do; ImportError tells how to install it."""
    try:
        import cv2
    except ImportError as error:
        raise ImportError(f"{error}: pip install 'vidadapt[bench]'") from error
    cv2.setNumThreads(1)


def item_views(files: Files, reader: str, crop_size: int) -> EvalViews:
    """vidadapt's items of the files."""
    return EvalViews(
        Videos.of("/", [Sample(path, 0) for path in files.paths], files.counts[reader]),
        SAMPLING,
        num_clips=SAMPLING.num_clips,
        num_crops=SAMPLING.num_crops,
        crop_size=crop_size,
    )


def contenders(
    paths: Sequence[str], views: EvalViews, crop_size: int
) -> dict[str, Callable[[], float]]:
    """Turns over all videos; CPU seconds of one."""
    ways: dict[str, Callable[[int], Any]] = {
        "released": lambda i: released_views(paths[i], crop_size),
        "decord loop": lambda i: decord_views(paths[i], SAMPLING, crop_size),
        "vidadapt": lambda i: all_views(views[i]),
        "vidadapt + floats": lambda i: normalize(all_views(views[i]), "imagenet"),
        "vidadapt, item alone": lambda i: views[i],
    }
    return {name: turn(way, len(paths)) for name, way in ways.items()}


def turn(way: Callable[[int], Any], number: int) -> Callable[[], float]:
    def work() -> float:
        start = time.process_time()
        for index in range(number):
            way(index)
        return (time.process_time() - start) / number

    return work


def released_views(path: str, crop_size: int) -> list[torch.Tensor]:
    """The released loader's 12 items of a video."""
    return [
        released.view(path, clip, crop, SAMPLING, crop_size)
        for clip in range(SAMPLING.num_clips)
        for crop in range(SAMPLING.num_crops)
    ]


def decord_views(path: str, sampling: Sampling, crop_size: int) -> torch.Tensor:
    """(V, 3, T, S, S) float32, normalised: a plain loop of decord that decodes once."""
    reader = released.open_file(path)
    indices = eval_indices(sampling, len(reader), sampling.num_clips)
    needed, places = np.unique(indices, return_inverse=True)
    frames = eval_frames(reader.get_batch(needed.tolist()).asnumpy(), crop_size)
    corners = crop_corners(frames.shape[1], frames.shape[2], sampling.num_crops)
    clips = torch.from_numpy(places.reshape(indices.shape))
    return normalize(cut_views(frames, clips, torch.tensor(corners)), "imagenet")


def all_views(item: Mapping[str, Any]) -> torch.Tensor:
    """(U, 3, T, S, S) uint8: the distinct views of an item."""
    if item["frames"] is None:
        raise ValueError(item["error"])
    return cut_views(item["frames"], item["clips"], item["corners"])


def grey_levels(paths: Sequence[str], views: EvalViews, crop_size: int) -> dict[str, float]:
    """How far vidadapt's pixels are from the released loader's, over the views of a few videos.

    Returns:
        `mean`, `p999` (99.9 percentile) and `max`, in grey levels.
    """
    counts = np.zeros(256, np.int64)
    for index in range(min(len(paths), 3)):
        item = views[index]
        ours = all_views(item).permute(0, 2, 3, 4, 1).numpy()[item["view_of"].numpy()]
        for number, pixels in enumerate(ours):
            clip, crop = divmod(number, SAMPLING.num_crops)
            theirs = released.view_pixels(paths[index], clip, crop, SAMPLING, crop_size)
            far = np.maximum(pixels, theirs) - np.minimum(pixels, theirs)
            counts += np.bincount(far.ravel(), minlength=256)
    return levels_of(counts)


def levels_of(counts: np.ndarray) -> dict[str, float]:
    """See `grey_levels`, from how often each difference is met.

    >>> levels_of(np.array([2997, 1, 1, 1]))
    {'mean': 0.002, 'p999': 0.0, 'max': 3.0}
    """
    levels, share = np.arange(len(counts)), np.cumsum(counts) / counts.sum()
    return {
        "mean": float((levels * counts).sum() / counts.sum()),
        "p999": float(np.argmax(share >= 0.999)),
        "max": float(levels[counts > 0].max()),
    }


def row_of(
    kind: str, name: str, seconds: Mapping[str, Sequence[float]], levels: Mapping[str, float]
) -> dict[str, Any]:
    """A contender's row; ratios are medians of those within a round."""
    return {
        "kind": kind,
        "name": name,
        "ms_per_video": 1e3 * statistics.median(seconds[name]),
        "videos_per_second": 1 / statistics.median(seconds[name]),
        "spread_percent": spread_percent(seconds[name]),
        "times_released": times_as_fast(seconds, name, "released"),
        "times_decord_loop": times_as_fast(seconds, name, "decord loop"),
        "grey_levels": dict(levels) if name == "vidadapt" else None,
        "seconds": seconds[name],
    }


def aimed_at(seconds: Mapping[str, Sequence[float]], levels: Mapping[str, float]) -> list[Target]:
    """Views as one uint8 tensor against the released loader's floats; how far the pixels are."""
    views = f"4 clips x 3 crops, {AIMED_AT}: vidadapt"
    faster = times_as_fast(seconds, "vidadapt", "released")
    return [
        Target(f"{views} (uint8 views) : released, videos/s per core", GOAL, ">=", faster),
        Target(f"{views} - released, largest, grey levels", LEVELS, "<=", levels["max"]),
    ]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One table of all kinds."""
    headings = ["videos", "loader", "ms a video", "videos/s", "spread"]
    headings += [": released", ": decord loop", "grey levels"]
    lines = [
        [
            row["kind"],
            row["name"],
            f"{row['ms_per_video']:.1f}",
            f"{row['videos_per_second']:.1f}",
            f"{row['spread_percent']:.0f} %",
            f"{row['times_released']:.2f}",
            f"{row['times_decord_loop']:.2f}",
            "{mean:.2f}, {p999:.0f}, {max:.0f}".format(**row["grey_levels"])
            if row["grey_levels"]
            else "",
        ]
        for row in rows
    ]
    return markdown_table(headings, lines)


def notes(args: argparse.Namespace, files: Mapping[str, Files]) -> str:
    """What the figures stand on."""
    lengths = [
        f"{kind} {statistics.mean(c.num_frames for c in found.counts[args.reader].values()):.0f}"
        for kind, found in files.items()
    ]
    return (
        f"{args.videos} videos of a kind (frames on average: {', '.join(lengths)}), crops "
        f"of {args.crop_size} px, data.reader {args.reader}; medians of {args.rounds} rounds, "
        "ratios within a round, CPU time of one core. Grey levels: mean, 99.9 percentile and "
        "largest difference from the released loader's pixels, which are resized without "
        "antialiasing."
    )


if __name__ == "__main__":
    main()
