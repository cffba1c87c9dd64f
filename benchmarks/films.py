"""A long film: memory, windows a second against a loop over windows, and the joins of its timeline.

    python -m benchmarks.films --work FOLDER --json benchmarks/results/films/DAY.json

makes a film of generated actions joined one after another, trains AdaptFormer on cut videos of the
same actions with the demo's tubelet ViT and a frame-wise ViT of random weights (which sees no
motion: only its speed counts), and looks at the whole film by `windows_of`. The loop reads each
window alone, through `open_counted`, as other predictions do; it is timed on windows all over the
film, after its frames have been counted. What FOLDER holds already is used again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import torch
from safetensors.torch import save_file

import vidadapt
from benchmarks.memory import resident_bytes
from benchmarks.report import rows_table
from benchmarks.small_runs import check, finish, tool, words_of
from benchmarks.timing import Target
from vidadapt import models
from vidadapt.apps.synthetic import write_video
from vidadapt.console import track
from vidadapt.data import crop_corners, cut_views, eval_frames
from vidadapt.data.sampling import eval_indices
from vidadapt.lists import Sample, write_list
from vidadapt.serving import Model
from vidadapt.serving.films import windows_of
from vidadapt.serving.timeline import at_cuts, runs_of, smoothed
from vidadapt.video import VideoFacts, open_counted, open_film, open_video

RATE, SIDE, SQUARE = 12, 72, 20  # frames a second, pixels
LENGTH, HOP = Fraction(2), Fraction(1, 2)
# Speed of a square to the right and down, pixels a frame.
ACTIONS = {
    **{"right": (3, 0), "left": (-3, 0), "down": (0, 3), "up": (0, -3)},
    **{"right and down": (2, 2), "left and up": (-2, -2), "still": (0, 0)},
}
TUBELET, FRAMES = "tubelet ViT", "frame-wise ViT"
GOALS = {TUBELET: 2.0, FRAMES: 5.0}
COLUMNS = {
    "windows": ("windows", ",d"),
    "windows/s": ("windows_per_second", ".1f"),
    "x real time": ("times_real_time", ".0f"),
    "loop, windows/s": ("loop_windows_per_second", ".2f"),
    "times as fast": ("times_as_fast", ".1f"),
    "memory MB, after 2 %": ("megabytes_early", ".0f"),
    "at the end": ("megabytes", ".0f"),
    "joins within half a hop %": ("joins_percent", ".1f"),
}


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    check(args, "films", {"minutes": 1, "alone": 1, "epochs": 1})
    args.work.mkdir(parents=True, exist_ok=True)
    film, joins = joined_film(args.work, args.minutes)
    with open_video(film) as video:
        facts = video.facts
    rows = []
    for name in (TUBELET, FRAMES):
        model = trained(name, args)
        rows.append(row_of(name, model, film, facts, joins, args.alone))
    best = rows[0]
    args.joins, args.threads = len(joins) - 1, torch.get_num_threads()
    args.torch = torch.__version__
    targets = [
        *(
            Target(f"{row['name']}: windows : loop", GOALS[row["name"]], ">=", row["times_as_fast"])
            for row in rows
        ),
        Target("joins within half a hop, %", 95.0, ">=", best["joins_percent"]),
    ]
    about = f"{args.minutes} minutes of film, {args.joins} joins, windows of 2 s, hop 0.5 s.\n\n"
    finish(args, "films", rows, targets, about + rows_table(rows, COLUMNS, "model"))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--minutes", type=int, default=180, help="of the film (%(default)s)")
    parser.add_argument(
        "--alone", type=int, default=20, metavar="N", help="windows of the loop (%(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=15, help="of the training (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def shown(action: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Frames (count, S, S, 3) of a square that moves over noise and comes in where it went out."""
    background = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8).repeat(12, 0).repeat(12, 1) // 2
    speed, begin = np.array(ACTIONS[action]), rng.integers(0, SIDE, 2)
    frames = np.repeat(background[None], count, axis=0)
    for number, frame in enumerate(frames):
        x, y = (begin + number * speed) % SIDE
        rows, columns = (np.arange(at, at + SQUARE) % SIDE for at in (y, x))
        frame[np.ix_(rows, columns)] = 250
    return frames


def joined_film(work: Path, minutes: int) -> tuple[Path, list[tuple[float, str]]]:
    """A film of actions of 6 to 20 seconds; when each begins."""
    film, noted = work / f"film_{minutes}.mp4", work / f"film_{minutes}.json"
    if not noted.exists():
        rng, joins = np.random.default_rng(0), list[tuple[float, str]]()
        total, count, last = minutes * 60 * RATE, 0, ""
        with av.open(str(film), "w") as container:
            stream = container.add_stream("libx264", RATE, options={"preset": "veryfast"})
            stream.width = stream.height = SIDE
            stream.pix_fmt = "yuv420p"
            for _ in track(itertools.count(), total=minutes * 5, label="film", unit="actions"):
                last = str(rng.choice([name for name in ACTIONS if name != last]))
                joins.append((count / RATE, last))
                frames = shown(last, min(int(rng.integers(6, 21)) * RATE, total - count), rng)
                for frame in frames:
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
                count += len(frames)
                if count == total:
                    break
            container.mux(stream.encode(None))
        noted.write_text(json.dumps(joins), encoding="utf-8")
    return film, json.loads(noted.read_text(encoding="utf-8"))


def trained(name: str, args: argparse.Namespace) -> Model:
    """AdaptFormer, trained on 40 cut videos of each action."""
    videos, run = args.work / "videos", args.work / name.replace(" ", "_")
    if not (videos / "train.txt").exists():
        videos.mkdir(exist_ok=True)
        rng, samples = np.random.default_rng(1), []
        for number in range(40 * len(ACTIONS)):
            label = number % len(ACTIONS)
            path = f"{number}.mp4"
            write_video(videos / path, shown([*ACTIONS][label], 2 * RATE, rng), RATE)
            samples.append(Sample(path, label))
        (videos / "labels.txt").write_text("\n".join(ACTIONS) + "\n", encoding="utf-8")
        write_list(videos / "train.txt", samples)
    options: dict[str, Any] = {"model.backbone": "vit_tiny", "model.weights": "demo"}
    if name == FRAMES:
        weights = args.work / "image.safetensors"
        backbone = "timm/vit_tiny_patch16_224"
        options = {"model.backbone": backbone, "model.weights": weights}
        options["model.from_image"] = "frames"
        if not weights.exists():
            built, _ = models.build(
                backbone, num_frames=8, crop_size=64, num_classes=2, from_image="frames"
            )
            assert isinstance(built, models.FrameByFrame)
            save_file(built.image.state_dict(), weights)
    if not (run / "last").exists():
        options |= {
            "run_dir": run,
            "data.root": videos,
            "data.train_list": videos / "train.txt",
            "data.label_names": videos / "labels.txt",
            "data.sampling": "uniform8",
            "data.crop_size": 64,
            "data.train_crop": "none",
            "method.name": "adaptformer",
            "train.epochs": args.epochs if name == TUBELET else 1,
            "train.batch_size": 10,
            "train.warmup_epochs": 1 if name == TUBELET else 0,
            "train.optimizer": "adamw",
            "train.base_lr": 0.05,
        }
        tool("train", words_of(options))
    return vidadapt.load(run)


def row_of(
    name: str,
    model: Model,
    path: Path,
    facts: VideoFacts,
    joins: list[tuple[float, str]],
    alone: int,
) -> dict[str, Any]:
    """Look at the whole film, then at some windows alone."""
    film, megabytes = open_film(str(path)), list[float]()
    count = int((Fraction(film.promised or 0) - LENGTH) / HOP) + 1

    def watched() -> Iterator[Any]:
        windows = windows_of(model, film, LENGTH, HOP)
        for number, window in enumerate(track(windows, total=count, label=name, unit="windows")):
            if number % max(1, count // 50) == 0:
                megabytes.append(resident_bytes("VmRSS") / 1e6)
            yield window

    began = time.perf_counter()
    runs = list(at_cuts(runs_of(smoothed(watched(), HOP)), film.changes, LENGTH))
    seconds = time.perf_counter() - began
    starts = np.array([float(run.start) for run in runs])
    near = [float(np.abs(starts - at).min()) <= float(HOP) / 2 for at, _ in joins[1:]]
    by_hand = [alone_seconds(model, path, facts, place) for place in places(facts, alone)]
    return {
        "name": name,
        "windows": count,
        "windows_per_second": count / seconds,
        "times_real_time": float(film.seconds) / seconds,
        "loop_windows_per_second": 1 / median(by_hand),
        "times_as_fast": median(by_hand) * count / seconds,
        "megabytes_early": megabytes[min(1, len(megabytes) - 1)],
        "megabytes": megabytes[-1],
        "joins_percent": 100 * float(np.mean(near)) if name == TUBELET else None,
        "runs": len(runs) if name == TUBELET else None,
        "seconds_alone": by_hand,
    }


def places(facts: VideoFacts, count: int) -> list[int]:
    """First frames of windows all over the film."""
    last = facts.num_frames - int(LENGTH * RATE)
    return np.linspace(0, last, count).astype(int).tolist()


@torch.no_grad()
def alone_seconds(model: Model, path: Path, facts: VideoFacts, first: int) -> float:
    """Seconds of one window that is read and looked at alone."""
    began, plan = time.perf_counter(), model.adapter.plan
    indices = first + eval_indices(plan.sampling, int(LENGTH * RATE), 1)[0]
    with open_counted(path, facts) as video:
        frames = eval_frames(video.frames(indices), plan.crop_size, plan.framing)
    corner = torch.tensor(crop_corners(frames.shape[1], frames.shape[2], 1, plan.framing))
    model(cut_views(frames, torch.arange(len(indices))[None], corner))
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
