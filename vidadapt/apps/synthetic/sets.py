"""Make sets of rendered action videos, for the demo, the tests and the benchmarks.

Classes are in the spirit of Something-Something and HMDB51. The videos are real video files, with
lists in the format of real data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw

from vidadapt.apps.synthetic.encoding import CODECS, in_processes, write_video
from vidadapt.apps.synthetic.rendering import classes_at_once, labels, render
from vidadapt.files import replaced
from vidadapt.lists import LABELS_FILE, Label, Sample, write_list

RECORD = "set.json"


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
    names = labels(family)
    # Of a family whose videos have several classes, those of each class first.
    first = {sets[0]: sets for sets in reversed(classes_at_once(family))}
    rows = [[names[k] for k in first[n]] for n in sorted(first) for _ in range(videos)]
    cell = 96
    sheet = Image.new("RGB", (columns * (cell + 2) + 230, len(rows) * (cell + 2)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, actions in enumerate(rows):
        clip, _ = render(actions, family, (seed, row), difficulty, num_frames=columns)
        for column, frame in enumerate(clip):
            image = Image.fromarray(frame)
            image.thumbnail((cell, cell))
            sheet.paste(image, (230 + column * (cell + 2), row * (cell + 2)))
        draw.text((4, row * (cell + 2) + cell // 2), "\n".join(actions), fill="black")
    sheet.save(path)


@dataclass(frozen=True)
class _Video:
    path: str
    labels: tuple[int, ...]
    seed: tuple[int, int, int]
    difficulty: float

    @property
    def label(self) -> Label:
        """As lists have it."""
        return self.labels if len(self.labels) > 1 else self.labels[0]


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

    Classes, of `together` all pairs of them in a random order, take turns, so that every split is
    balanced. Videos are written atomically and those already
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
    low, high = difficulty if isinstance(difficulty, tuple) else (difficulty, difficulty)
    settings = {
        "family": family,
        "counts": dict(counts),
        "seed": seed,
        "difficulty": [low, high],
        "layout": layout,
        "suffix": suffix,
    }
    names, out = labels(family), Path(out_dir)
    _check(settings)
    splits = {split: _plan(settings, names, split) for split in counts}
    _claim(out, settings)
    missing = [v for videos in splits.values() for v in videos if not (out / v.path).exists()]
    for folder in {(out / v.path).parent for v in missing}:
        folder.mkdir(parents=True, exist_ok=True)
    work = partial(_write_rendered, out, family, names)
    label = f"render {family}"
    in_processes(work, missing, label=label, num_processes=num_processes, progress=progress)
    _write_text(out / LABELS_FILE, "".join(f"{name}\n" for name in names))
    for split, videos in splits.items():
        write_list(out / f"{split}.txt", [Sample(video.path, video.label) for video in videos])
    return out


def _check(settings: Mapping[str, Any]) -> None:
    low, high = settings["difficulty"]
    if not 0 <= low <= high <= 1:
        raise ValueError(
            f"difficulty must be a number or a rising range in [0, 1], got {low} to {high}"
        )
    if settings["layout"] not in ("flat", "class_folders"):
        raise ValueError(f"layout {settings['layout']!r} is unknown; known: flat, class_folders")
    if settings["layout"] != "flat" and len(classes_at_once(settings["family"])[0]) > 1:
        raise ValueError(
            f"layout {settings['layout']!r}: a video of {settings['family']} has several classes; "
            "use flat"
        )
    if settings["suffix"] not in CODECS:
        raise ValueError(
            f"cannot write {settings['suffix']!r} videos; choose one of {', '.join(CODECS)}"
        )
    for split, number in settings["counts"].items():
        if number < 0:
            raise ValueError(f"the number of {split} videos must not be negative, got {number}")


def _claim(out: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings into a new folder, or compare them with those of an older call."""
    record = out / RECORD
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
        raise FileExistsError(f"{out} is not empty and holds no {RECORD}: choose an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    _write_text(record, json.dumps(settings, indent=2) + "\n")


def _write_text(path: Path, text: str) -> None:
    """Write a file at once, since others may be reading the set."""
    with replaced(path) as part:
        part.write_text(text, encoding="utf-8")


def _plan(settings: Mapping[str, Any], names: list[str], split: str) -> list[_Video]:
    """The videos of a split: each with its label, its seed and its difficulty."""
    number, rank = settings["counts"][split], list(settings["counts"]).index(split)
    seed, (low, high) = (settings["seed"], rank), settings["difficulty"]
    hardness = np.random.default_rng([*seed, 1]).uniform(low, high, size=number)
    sets = classes_at_once(settings["family"])
    if len(sets) > len(names):
        order = np.random.default_rng([*seed, 2]).permutation(len(sets))
        sets = [sets[place] for place in order]
    videos = []
    for i in range(number):
        labels = sets[i % len(sets)]
        flat = settings["layout"] == "flat"
        folder = "" if flat else names[labels[0]].replace(",", "").replace(" ", "_") + "/"
        path = f"videos/{folder}{split}_{i:05d}{settings['suffix']}"
        videos.append(_Video(path, labels, (*seed, i), float(hardness[i])))
    return videos


def _write_rendered(out: Path, family: str, names: list[str], video: _Video) -> None:
    actions = [names[label] for label in video.labels]
    frames, fps = render(actions, family, video.seed, video.difficulty)
    write_video(out / video.path, frames, fps)
