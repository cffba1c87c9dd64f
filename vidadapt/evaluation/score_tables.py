"""Read the arrays of an untrusted scores file: no code runs, and all parts are checked."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vidadapt.console.naming import printable

# Name -> dimensions and kind of the values, by NumPy's letters.
ARRAYS = {
    "id": (1, "U"),
    "clip": (1, "i"),
    "crop": (1, "i"),
    "logits": (2, "f"),
    "label": (1, "i"),
    "errors": (0, "U"),
    "about": (0, "U"),
}


class ScoreTable(NamedTuple):
    """Per-view scores of N videos in V views of C clips x R crops and K classes.

    `paths` (N,), `labels` (N,) int64 in [0, K), `clips` and `crops` (V,) int64, `logits` (N, V, K)
    float32, NaN where `errors`, by path, says why a video could not be read; `about`: facts.
    """

    paths: list[str]
    labels: np.ndarray
    clips: np.ndarray
    crops: np.ndarray
    logits: np.ndarray
    errors: dict[str, str]
    about: dict[str, Any]


def read_table(path: Path) -> ScoreTable:
    """Read a scores file.

    Raises:
        ValueError: not a scores file, or a damaged or inconsistent one; names the file and what
            is wrong.
    """
    try:
        arrays = _arrays(path)
        errors, about = json.loads(str(arrays["errors"])), json.loads(str(arrays["about"]))
    except Exception as error:  # zipfile, zlib and NumPy's parser of headers may fail in any way
        raise ValueError(f"{path}: not a scores file of tools/evaluate.py ({error})") from error
    ids, labels, logits = arrays["id"], arrays["label"], arrays["logits"]
    clips, crops = arrays["clip"], arrays["crop"]
    if not len(ids) or len({len(ids), len(labels), len(logits), len(clips), len(crops)}) != 1:
        raise _unfit(path, "its columns are empty or of different lengths")
    if min(int(clips.min()), int(crops.min())) < 0:
        raise _unfit(path, "clips or crops have negative numbers")
    num_crops = int(crops.max()) + 1
    num_views = (int(clips.max()) + 1) * num_crops
    paths = ids[::num_views].tolist()
    if len(ids) != len(set(paths)) * num_views or (ids != np.repeat(paths, num_views)).any():
        raise ValueError(f"{path}: some videos lack views; every one needs {num_views}")
    views = np.divmod(np.arange(num_views), num_crops)
    if any(
        (column != np.tile(view, len(paths))).any()
        for column, view in zip((clips, crops), views, strict=True)
    ):
        raise _unfit(path, "the views of a video are not those of every other, in their order")
    if (labels != np.repeat(labels[::num_views], num_views)).any():
        raise _unfit(path, "a video has different labels")
    if int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]:
        raise _unfit(path, f"labels lie outside 0..{logits.shape[1] - 1}")
    if not isinstance(about, dict) or not isinstance(errors, dict) or not _texts(errors):
        raise _unfit(path, "its errors or facts are no names and values")
    if not errors.keys() <= set(paths):
        raise _unfit(path, "errors of videos that it does not hold")
    if any(name != printable(name) for name in paths):
        raise _unfit(path, "paths with control characters")
    errors = {name: printable(why) for name, why in errors.items()}
    by_video = logits.reshape(len(paths), num_views, -1)
    readable = np.array([name not in errors for name in paths])
    if not np.isfinite(by_video[readable]).all() or not np.isnan(by_video[~readable]).all():
        raise _unfit(path, "scores that are not finite, or scores of an unreadable video")
    return ScoreTable(paths, labels[::num_views], *views, by_video, errors, about)


def _unfit(path: Path, why: str) -> ValueError:
    return ValueError(f"{path}: a scores file of tools/evaluate.py that is damaged: {why}")


def _texts(values: dict[str, Any]) -> bool:
    return all(isinstance(value, str) for value in values.values())


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays; none is allocated before its header is checked."""
    with zipfile.ZipFile(path) as archive:
        for name, (dimensions, kind) in ARRAYS.items():
            size = archive.getinfo(f"{name}.npy").file_size
            with archive.open(f"{name}.npy") as file:
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                promised = file.tell() + dtype.itemsize * int(np.prod(shape, dtype=object))
            if len(shape) != dimensions or dtype.kind != kind or promised != size:
                raise ValueError(f"{name}: {dtype} of shape {shape} in {size} bytes")
    with np.load(path, allow_pickle=False) as file:
        found = {name: file[name] for name in ARRAYS}
    whole = {name: found[name].astype(np.int64) for name in ("clip", "crop", "label")}
    return {**found, **whole, "logits": found["logits"].astype(np.float32, copy=False)}
