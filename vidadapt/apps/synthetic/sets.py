"""Render action videos procedurally, for the demo, the tests and the benchmarks.

Classes in the spirit of Something-Something and HMDB51, encoded as real video files with lists in
the format of real data. `render` draws one video, `actions` defines what happens in it, `drawing`
how things look.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, cast

import av
import numpy as np
from av.video.stream import VideoStream
from PIL import Image, ImageDraw

from vidadapt.apps.synthetic.render import FAMILIES, Frames, labels, render
from vidadapt.console.progress import track
from vidadapt.data.workers import cores
from vidadapt.lists.reading import Sample, write_list
from vidadapt.processes.children import end_with_parent

__all__ = ["CODECS", "FAMILIES", "contact_sheet", "labels", "make_set", "render", "write_video"]

CODECS: dict[str, tuple[str, dict[str, str]]] = {
    ".mp4": ("libx264", {"crf": "23", "preset": "veryfast", "g": "12", "mbtree": "0"}),
    ".webm": ("libvpx-vp9", {"crf": "30", "b": "0", "deadline": "realtime", "cpu-used": "8"}),
    ".avi": ("mpeg4", {"qmin": "3", "qmax": "5"}),
}


def write_video(path: str | Path, frames: Frames, fps: int) -> None:
    """Encode frames (T, H, W, 3) uint8 as yuv420p; the suffix chooses container and codec.

    The same frames give the same bytes. libx264's macroblock tree is off for that: with it, they
    differ from call to call where a side is no multiple of 16.

    Raises:
        ValueError: unknown suffix, odd frame size.
    """
    path = Path(path)
    if path.suffix not in CODECS:
        raise ValueError(f"{path}: cannot write {path.suffix!r}; choose one of {', '.join(CODECS)}")
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ValueError(
            f"{path}: frame sides must be even, got {frames.shape[1]} x {frames.shape[2]}"
        )
    codec, options = CODECS[path.suffix]
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    with av.open(str(part), "w", options={"fflags": "+bitexact"}) as container:
        stream = cast("VideoStream", container.add_stream(codec, rate=fps, options=options))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.codec_context.thread_count = (
            1  # the same bytes on every machine, and no idle threads
        )
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    part.replace(path)


def contact_sheet(
    family: str,
    path: str | Path,
    *,
    columns: int = 8,
    videos: int = 2,
    seed: int = 0,
    difficulty: float = 0.3,
) -> None:
    """Write a PNG: `videos` rows a class, of `columns` frames from first to last, 96 px cells."""
    names = [name for name in labels(family) for _ in range(videos)]
    cell = 96
    sheet = Image.new("RGB", (columns * (cell + 2) + 230, len(names) * (cell + 2)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, name in enumerate(names):
        clip, _ = render(name, family, (seed, row), difficulty, num_frames=columns)
        for column, frame in enumerate(clip):
            image = Image.fromarray(frame)
            image.thumbnail((cell, cell))
            sheet.paste(image, (230 + column * (cell + 2), row * (cell + 2)))
        draw.text((4, row * (cell + 2) + cell // 2), name, fill="black")
    sheet.save(path)


@dataclass(frozen=True)
class _Video:
    path: str
    label: int
    seed: tuple[int, int, int]
    difficulty: float


def make_set(
    out_dir: str | Path,
    family: str,
    counts: Mapping[str, int],
    *,
    seed: int = 0,
    difficulty: float | tuple[float, float] = (0.0, 0.5),
    layout: Literal["flat", "class_folders"] = "flat",
    suffix: str = ".mp4",
    num_processes: int | None = None,
    progress: bool = False,
) -> Path:
    """Render a set: `videos/`, one `path label` list a split, `labels.txt` (names in label order).

    Classes take turns, so every split is balanced. Videos are written atomically and those already
    there are kept, so an interrupted call resumes; the lists are written last.

    Args:
        counts: split name -> number of videos, e.g. {"train": 1000, "dev": 200, "test": 400}. A
            split's place decides its seed, so another order makes another set.
        difficulty: one number, or a range that each video draws its own from.
        layout: videos in one folder, or in one folder per class as in HMDB51.
        num_processes: rendering processes, at least 1; default: one per processor.
    Returns:
        `out_dir` as a Path.
    Raises:
        ValueError: unknown family, layout or suffix; a difficulty out of range; a count below 0.
        FileExistsError: the folder holds a set made with other settings.
    """
    names = labels(family)
    low, high = difficulty if isinstance(difficulty, tuple) else (difficulty, difficulty)
    if not 0 <= low <= high <= 1:
        raise ValueError(
            f"difficulty must be a number or a rising range in [0, 1], got {difficulty}"
        )
    if layout not in ("flat", "class_folders"):
        raise ValueError(f"layout {layout!r} is unknown; known: flat, class_folders")
    if suffix not in CODECS:
        raise ValueError(f"cannot write {suffix!r} videos; choose one of {', '.join(CODECS)}")
    out = Path(out_dir)
    settings = {
        "family": family,
        "counts": dict(counts),
        "seed": seed,
        "difficulty": [low, high],
        "layout": layout,
        "suffix": suffix,
    }
    splits = {
        split: _plan(split, number, names, (seed, rank), (low, high), layout, suffix)
        for rank, (split, number) in enumerate(counts.items())
    }
    _claim(out, settings)
    missing = [v for videos in splits.values() for v in videos if not (out / v.path).exists()]
    for folder in {(out / v.path).parent for v in missing}:
        folder.mkdir(parents=True, exist_ok=True)
    work = partial(_render_to_file, out, family, names)
    workers = cores() if num_processes is None else num_processes
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=end_with_parent
    ) as pool:
        rendered = pool.map(work, missing, chunksize=8)
        for _ in track(
            rendered, total=len(missing), label=f"render {family}", unit="videos", shown=progress
        ):
            pass
    _write(out / "labels.txt", "".join(f"{name}\n" for name in names))
    for split, videos in splits.items():
        write_list(out / f"{split}.txt", [Sample(video.path, video.label) for video in videos])
    return out


def _write(path: Path, text: str) -> None:
    """Write a file and rename it into place, since others may be reading the set."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _claim(out: Path, settings: dict[str, Any]) -> None:
    record = out / "set.json"
    if record.exists():
        found = json.loads(record.read_text())
        # A split's seed is its place, so the order of the counts matters: compare as text.
        differing = [k for k in settings if json.dumps(found.get(k)) != json.dumps(settings[k])]
        if differing or found.keys() != settings.keys():
            raise FileExistsError(
                f"{out} holds a set made with other settings ({', '.join(differing)}): "
                f"choose another folder, or delete this one to render it anew"
            )
        return
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty and holds no set.json: choose an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    _write(record, json.dumps(settings, indent=2) + "\n")


def _plan(
    split: str,
    number: int,
    names: list[str],
    seed: tuple[int, int],
    difficulty: tuple[float, float],
    layout: str,
    suffix: str,
) -> list[_Video]:
    if number < 0:
        raise ValueError(f"the number of {split} videos must not be negative, got {number}")
    hardness = np.random.default_rng([*seed, 1]).uniform(*difficulty, size=number)
    videos = []
    for i in range(number):
        label = i % len(names)
        folder = "" if layout == "flat" else names[label].replace(",", "").replace(" ", "_") + "/"
        path = f"videos/{folder}{split}_{i:05d}{suffix}"
        videos.append(_Video(path, label, (*seed, i), float(hardness[i])))
    return videos


def _render_to_file(out: Path, family: str, names: list[str], video: _Video) -> None:
    frames, fps = render(names[video.label], family, video.seed, video.difficulty)
    write_video(out / video.path, frames, fps)
