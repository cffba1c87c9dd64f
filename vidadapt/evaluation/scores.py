"""Per-view scores of videos, and their file.

scores.npz is a NumPy archive with a row per (video, view), whose CRC-32 each read compares. It is
read as untrusted: no code runs, and all that it says is checked.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vidadapt.console import printable
from vidadapt.files import replaced
from vidadapt.video import control_character

# Array -> dimensions and kind of the values, by NumPy's letters. Texts without dimensions are JSON.
ARRAYS = {
    "label": (1, "i"),  # or (2, "b"): of a multi-label list, a row of all classes for each
    "id": (1, "U"),
    "clip": (1, "i"),
    "crop": (1, "i"),
    "logits": (2, "f"),
    "errors": (0, "U"),
    "about": (0, "U"),
}

# Place in the list, logits (V, K) or None, why it could not be read.
Entry = tuple[int, np.ndarray | None, str]


@dataclass(frozen=True)
class Scores:
    """Per-view logits of a list of videos.

    Attributes:
        paths: (N,) list paths, in list order.
        labels: (N,) int64 in [0, K); of a multi-label list (N, K) bool.
        clips, crops: (V,) int64: which clip and crop each view is.
        logits: (N, V, K) float32; NaN for an unreadable video.
        errors: path -> why it could not be read.
    """

    paths: list[str]
    labels: np.ndarray
    clips: np.ndarray
    crops: np.ndarray
    logits: np.ndarray
    errors: dict[str, str]


def in_list_order(
    entries: Sequence[Entry],
    paths: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    num_classes: int,
    num_clips: int,
    num_crops: int,
) -> Scores:
    """Scores of the videos that have entries, in list order.

    Args:
        entries: at most one of each video; V = num_clips * num_crops.
        paths, labels: the whole list.
    """
    entries = sorted(entries, key=lambda entry: entry[0])
    places = [index for index, _, _ in entries]
    clips, crops = np.divmod(np.arange(num_clips * num_crops), num_crops)
    logits = np.full((len(entries), len(clips), num_classes), np.nan, np.float32)
    for row, (_, values, _) in zip(logits, entries, strict=True):
        if values is not None:
            row[:] = values
    errors = {paths[index]: error for index, values, error in entries if values is None}
    chosen = [paths[index] for index in places]
    kept = np.asarray(labels)[places]
    kept = kept if kept.ndim == 2 else kept.astype(np.int64)
    return Scores(chosen, kept, clips, crops, logits, errors)


def save_scores(
    path: Path, scores: Scores, about: dict[str, Any], *, compressed: bool = True
) -> None:
    """Write per-view scores as npz: one row per (video, view) with id, clip, crop, logits, label.

    Args:
        about: JSON-able facts kept with the scores (label names, list, manifest hash, ...).
        compressed: takes a fifth of the room less, and 100 times as long.

    Raises:
        WriteError: the disk refused the file.
    """
    num_videos, num_views, _ = scores.logits.shape
    with replaced(path) as partial:
        (np.savez_compressed if compressed else np.savez)(
            partial,
            id=np.repeat(np.asarray(scores.paths), num_views),
            clip=np.tile(scores.clips, num_videos),
            crop=np.tile(scores.crops, num_videos),
            logits=scores.logits.reshape(num_videos * num_views, -1),
            label=np.repeat(scores.labels, num_views, axis=0),
            errors=np.array(json.dumps(scores.errors)),
            about=np.array(json.dumps(about)),
        )


def load_scores(path: Path) -> tuple[Scores, dict[str, Any]]:
    """Read what `save_scores` wrote: the scores and the facts kept with them.

    Raises:
        ValueError: not a scores file, or a damaged or inconsistent one; names the file and what
            is wrong.
    """
    try:
        rows = _arrays(path)
        return _by_video(rows), rows["about"]
    except ValueError as error:
        raise ValueError(
            f"{path}: not a scores file of vidadapt evaluate, or a damaged one: {error}"
        ) from error


def _by_video(rows: Mapping[str, Any]) -> Scores:
    """The rows of a scores file by video; a `ValueError` says why they do not fit each other."""
    ids, labels, clips, crops, logits = (
        rows[name] for name in ("id", "label", "clip", "crop", "logits")
    )
    if not len(ids) or len({len(ids), len(labels), len(logits), len(clips), len(crops)}) != 1:
        raise ValueError("its columns are empty or of different lengths")
    if min(int(clips.min()), int(crops.min())) < 0:
        raise ValueError("clips or crops have negative numbers")
    num_crops = int(crops.max()) + 1
    num_views = (int(clips.max()) + 1) * num_crops
    paths = ids[::num_views].tolist()
    if len(ids) != len(set(paths)) * num_views or (ids != np.repeat(paths, num_views)).any():
        raise ValueError(f"some videos lack views; every one needs {num_views}")
    of_clip, of_crop = np.divmod(np.arange(num_views), num_crops)
    if (clips.reshape(-1, num_views) != of_clip).any() or (
        crops.reshape(-1, num_views) != of_crop
    ).any():
        raise ValueError("the views of a video are not those of every other, in their order")
    if (labels != np.repeat(labels[::num_views], num_views, axis=0)).any():
        raise ValueError("a video has different labels")
    if labels.ndim == 2 and labels.shape[1] != logits.shape[1]:
        raise ValueError(f"labels of {labels.shape[1]} classes, scores of {logits.shape[1]}")
    if labels.ndim == 1 and (int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]):
        raise ValueError(f"labels lie outside 0..{logits.shape[1] - 1}")
    errors = {name: printable(str(why)) for name, why in rows["errors"].items()}
    names = rows["about"].get("label_names")
    if names is not None and not (
        isinstance(names, list)
        and len(names) == logits.shape[1]
        and all(isinstance(name, str) for name in names)
    ):
        raise ValueError(f"label_names: expected {logits.shape[1]} names")
    if not errors.keys() <= set(paths):
        raise ValueError("errors of videos that it does not hold")
    if any(control_character(name) for name in paths):  # as in lists
        raise ValueError("paths with control characters")
    by_video = logits.reshape(len(paths), num_views, -1)
    readable = np.array([name not in errors for name in paths])
    if not np.isfinite(by_video[readable]).all() or not np.isnan(by_video[~readable]).all():
        raise ValueError("scores that are not finite, or scores of an unreadable video")
    return Scores(paths, labels[::num_views], of_clip, of_crop, by_video, errors)


def _arrays(path: Path) -> dict[str, Any]:
    """Read the arrays: whole numbers as int64, others as float32, and the values in JSON texts.

    No array is allocated before its header is checked.

    Raises:
        ValueError: no such arrays, or damaged ones.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name, (dimensions, kind) in ARRAYS.items():
                size = archive.getinfo(f"{name}.npy").file_size
                with archive.open(f"{name}.npy") as file:
                    np.lib.format.read_magic(file)
                    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                    promised = file.tell() + dtype.itemsize * int(np.prod(shape, dtype=object))
                if name == "label" and dtype.kind == "b":
                    dimensions, kind = 2, "b"
                if len(shape) != dimensions or dtype.kind != kind or promised != size:
                    raise ValueError(f"{name}: {dtype} of shape {shape} in {size} bytes")
        found: dict[str, Any] = {}
        with np.load(path, allow_pickle=False) as file:
            for name, (dimensions, kind) in ARRAYS.items():
                if kind == "U":
                    found[name] = file[name] if dimensions else json.loads(str(file[name]))
                else:
                    wanted = np.int64 if kind == "i" else np.float32
                    values = file[name]
                    kept = values.dtype == bool
                    found[name] = values if kept else values.astype(wanted, copy=False)
    except Exception as error:  # zipfile, zlib and NumPy's parser of headers may fail in any way
        raise ValueError(str(error)) from error
    if not all(isinstance(found[name], dict) for name in ("errors", "about")):
        raise ValueError("its errors or facts are no names and values")
    return found


def in_each_order(scores: Scores, num_orders: int) -> list[Scores]:
    """Split the scores of `score_views` by the orders of the frames, in their order."""
    num_views = len(scores.clips) // num_orders
    clips, crops = scores.clips[:num_views], scores.crops[:num_views]
    return [
        replace(scores, clips=clips, crops=crops, logits=logits)
        for logits in np.split(scores.logits, num_orders, axis=1)
    ]
