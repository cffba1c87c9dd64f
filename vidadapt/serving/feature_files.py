"""Files of features: written from the rows of a store, and read again pooled.

features/NAME.npz     a file a video; or features.safetensors, features.parquet: all in one
videos.csv            a line a video: path, label, frames, error
clips.csv             a line a view of a readable video: its frames and their seconds
features.json         how they were made; written last, so that a folder with it is whole
"""

from __future__ import annotations

import csv
import importlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from vidadapt.config import ConfigError
from vidadapt.console import track
from vidadapt.data import DataPlan, clip_frames
from vidadapt.features import Reader, Store
from vidadapt.files import replaced, write_json, writing
from vidadapt.lists import Videos, label_text
from vidadapt.serving.given import GivenVideo

FORMATS = ("npz", "safetensors", "parquet")
ABOUT, FOLDER, VIDEOS, CLIPS = "features.json", "features", "videos.csv", "clips.csv"


@dataclass(frozen=True, eq=False)
class Filled:
    """A store without missing rows, and the videos of its rows.

    Attributes:
        known: what is known of each video.
        errors: place -> why it could not be read.
    """

    store: Store
    videos: Sequence[GivenVideo]
    plan: DataPlan
    known: Videos
    errors: Mapping[int, str]

    @property
    def readable(self) -> list[int]:
        """Places of the videos that have features."""
        return [place for place in range(len(self.videos)) if place not in self.errors]

    def views(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Clip and crop (V,) int64 of each view, and frame indices (V, T) int64."""
        clips, crops = self.plan.num_clips, self.plan.num_crops
        numbers = np.indices((clips, crops)).reshape(2, -1)
        frames = clip_frames(self.plan.sampling, self.known.facts(place), clips)
        return numbers, frames[numbers[0]]


def require_format(name: str, pool: str) -> None:
    """Refuse a format that cannot be written here.

    Raises:
        ConfigError: tokens in a table of columns.
        ImportError: pyarrow is not installed.
    """
    if name != "parquet":
        return
    if pool == "tokens":
        raise ConfigError("--format: parquet holds pooled features; take npz for tokens")
    try:
        importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError(
            f"--format: parquet needs pyarrow ({error}); pip install pyarrow, or take safetensors"
        ) from error


def write_features(folder: Path, scratch: Path, form: str, filled: Filled) -> None:
    """Write the features and their tables into a folder, replacing those of a call that was ended.

    Args:
        scratch: folder on the same disk for what is not whole yet; made anew.
        form: one of `FORMATS`.

    Raises:
        CacheError: a row is damaged; it is computed again by the next call.
        WriteError: the disk refused.
    """
    with writing(scratch):
        shutil.rmtree(scratch, ignore_errors=True)
        (scratch / FOLDER).mkdir(parents=True)
    with replaced(scratch / VIDEOS) as partial, _csv(partial) as writer:
        writer.writerow(("path", "label", "frames", "error"))
        writer.writerows(_video_lines(filled))
    with replaced(scratch / CLIPS) as partial, _csv(partial) as writer:
        writer.writerow(("path", "clip", "crop", "frames", "times"))
        together = _write_rows(scratch / FOLDER, writer, filled, form == "npz")
    if form != "npz":
        with writing(scratch):
            (scratch / FOLDER).rmdir()
        _write_together(scratch / f"{FOLDER}.{form}", together, filled, form)
    with writing(folder):
        for made in sorted(scratch.iterdir()):
            target = folder / made.name
            if target.is_dir():
                shutil.rmtree(target)
            made.replace(target)
        scratch.rmdir()


@contextmanager
def _csv(path: Path) -> Iterator[Any]:
    # A cause may name a folder whose name is not valid Unicode.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        yield csv.writer(file, lineterminator="\n")


def _video_lines(filled: Filled) -> Iterator[Sequence[Any]]:
    for place, video in enumerate(filled.videos):
        label = "" if video.label is None else label_text(video.label)
        yield video.name, label, filled.known.facts(place).num_frames, filled.errors.get(place, "")


def _write_rows(folder: Path, clips: Any, filled: Filled, each: bool) -> np.ndarray:
    """Write the lines of clips.csv, and with `each` a file for each video.

    Returns:
        Without `each`, the features of all views (R, ...) float32.
    """
    reader, rows = Reader(filled.store), filled.readable
    views, *shape = filled.store.tensors[0].shape
    together = np.empty((0 if each else len(rows) * views, *shape), np.float32)
    for number, place in enumerate(track(rows, total=len(rows), label="writing", unit="videos")):
        features, times = (tensor[0].numpy() for tensor in reader.rows([place]))
        (clip, crop), frames = filled.views(place)
        seconds, name = times[clip], filled.videos[place].name
        for view in range(views):
            indices = " ".join(map(str, frames[view].tolist()))
            said = " ".join(f"{time:.6f}" for time in seconds[view] if not np.isnan(time))
            clips.writerow((name, clip[view], crop[view], indices, said))
        if each:
            path = folder / f"{name}.npz"
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                about = {"clip": clip, "crop": crop, "frames": frames, "times": seconds}
                np.savez(path, features=features, **about)
        else:
            together[number * views :][:views] = features
    return together


def _write_together(path: Path, features: np.ndarray, filled: Filled, form: str) -> None:
    """Write one table: row r of each column or tensor is line r of clips.csv."""
    places = filled.readable
    clip, crop = np.concatenate([filled.views(place)[0] for place in places], axis=1)
    video = np.repeat(np.array(places), len(clip) // len(places))
    columns = {"video": video, "clip": clip, "crop": crop}
    with replaced(path) as partial:
        if form == "safetensors":
            arrays = {name: np.ascontiguousarray(column) for name, column in columns.items()}
            save_file({"features": features, **arrays}, partial)
            return
        arrow = importlib.import_module("pyarrow")
        values = arrow.FixedSizeListArray.from_arrays(features.ravel(), features.shape[1])
        paths = [filled.videos[place].name for place in video.tolist()]
        table = arrow.table({"path": paths, **columns, "features": values})
        importlib.import_module("pyarrow.parquet").write_table(table, partial)


def read_about(folder: Path) -> dict[str, Any] | None:
    """Read features.json of a folder; None: there is none.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        found = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        found["key"]["format"], found["features"]["shape_of_a_view"]
        (
            found["videos"],
            found["readable"],
            [(one["path"], one["error"]) for one in found["unreadable"]],
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"--out: {folder / ABOUT} is damaged ({error!r}); delete {folder}"
        ) from error
    return found


def check_whole(folder: Path, videos: Sequence[GivenVideo], about: Mapping[str, Any]) -> None:
    """Refuse a folder from which a file was deleted.

    Raises:
        ConfigError: names the first one.
    """
    form = about["key"]["format"]
    unreadable = {one["path"] for one in about["unreadable"]}
    files = [folder / VIDEOS, folder / CLIPS]
    if form == "npz":
        names = [video.name for video in videos if video.name not in unreadable]
        files += [folder / FOLDER / f"{name}.npz" for name in names]
    else:
        files.append(folder / f"{FOLDER}.{form}")
    for file in files:
        if not file.is_file():
            raise ConfigError(
                f"--out: {file} is missing; delete {folder}, then give the command again"
            )


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Write features.json."""
    write_json(folder / ABOUT, about)


def pooled(folder: Path, videos: Sequence[GivenVideo], form: str) -> np.ndarray:
    """Read the features of videos from their files: one (N, D) float32, the mean of all its views.

    Tokens are averaged, too.

    Args:
        videos: readable ones, in the order of videos.csv.

    Raises:
        ConfigError: a file is damaged.
    """
    if form == "npz":
        files = [folder / FOLDER / f"{video.name}.npz" for video in videos]
        return np.concatenate([_mean(_features_in(file, folder)[None]) for file in files])
    values = _features_in(folder / f"{FOLDER}.{form}", folder)
    return _mean(values.reshape(len(videos), -1, *values.shape[1:]))


def _features_in(path: Path, folder: Path) -> np.ndarray:
    """Read the features of a file, in whatever format its ending says."""
    try:
        if path.suffix == ".npz":
            with np.load(path) as file:
                return file["features"]
        if path.suffix == ".safetensors":
            return load_file(path)["features"]
        column = importlib.import_module("pyarrow.parquet").read_table(path)["features"]
        return np.stack(column.to_numpy())
    except ImportError:
        raise
    except Exception as error:  # each library has errors of its own
        raise ConfigError(
            f"--out: {path} is damaged ({error}); delete {folder}, then give the command again"
        ) from error


def _mean(values: np.ndarray) -> np.ndarray:
    """(N, V, ..., D) to the mean (N, D) float32 over all but the first and the last axis."""
    return torch.from_numpy(values).flatten(1, -2).mean(dim=1).numpy()
