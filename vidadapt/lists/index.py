"""The video index beside a list: what one full decode found in each file, and its frames' checks.

`train.txt` gets `train.txt.index`. A row is valid while its file keeps its size and modification
time; a changed file is counted again. A file's error is kept, too, unless it may not be the file's
fault. `read_index` reads an index, `tools/prepare.py index --show` prints it. Delete it to have
everything counted again.

The file is a sequence of segments, see `index_file`: the rows of a later one replace those of an
earlier one on the same path and requested reader.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import socket
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from vidadapt.files.locks import Held
from vidadapt.files.writing import NO_ROOM, WriteError
from vidadapt.lists import index_file
from vidadapt.lists.index_file import COLUMNS, Mapped, Segment
from vidadapt.video.bounds import MAX_FRAMES
from vidadapt.video.readers import READERS

TEXTS = (
    *("path", "requested", "reader", "error", "codec", "container", "pixel_format"),
    *("doubt", "cause", "counted_with"),
)
SERVING = {name.encode() for name in (*READERS, "packed")}  # what `Video.reader` may be
NO_CHECKS = np.empty(0, "<u8")
INTEGERS = ("size", "mtime_ns", "num_frames", "width", "height", "rotation", "digest")
MOST_SEGMENTS = 8  # more are merged into one
AT_ONCE = 1 << 14  # paths that are looked up together
KEPT = 0.75  # an index is rewritten if a smaller share of its rows is needed


@dataclass(frozen=True)
class VideoFacts:
    """What is known of one video file.

    Attributes:
        path: as in the list.
        requested: the reader that was asked for, key of `READERS`.
        size: in bytes, for a packed video that of its tar; -1: there is no file.
        mtime_ns: modification time in nanoseconds, of the same file.
        num_frames: frames that decode; 0: the file is unreadable.
        header_frames: frames that the header promises, without those that an edit list hides; None:
            it gives no number.
        reader: name of the reader that is exact on this file, for `open_counted`.
        codec, container, pixel_format: by FFmpeg's names; empty: not known.
        width, height: in pixels, as shown; 0: not known.
        rotation: in degrees, as it is in the file.
        frame_rate: mean frames per second by the header, or else by the timestamps.
        duration: in seconds, of what decodes.
        doubt: why a reader that seeks may not be exact on this file; empty: no reason found.
        cause: the first error in a file that can be read nevertheless.
        error: why the file cannot be read; empty if it can be.
        counted_with: versions of PyAV and of FFmpeg's decoders.
        digest: of the checks, XXH3; 0: there are none.
        checks: (num_frames,) uint64, see `Survey.checks`; empty: none were taken.
        holds: False: the error may not be the file's fault, so an index does not keep it.
    """

    path: str
    requested: str
    size: int = -1
    mtime_ns: int = 0
    num_frames: int = 0
    header_frames: int | None = None
    reader: str = ""
    codec: str = ""
    container: str = ""
    pixel_format: str = ""
    width: int = 0
    height: int = 0
    rotation: int = 0
    frame_rate: float | None = None
    duration: float | None = None
    doubt: str = ""
    cause: str = ""
    error: str = ""
    counted_with: str = ""
    digest: int = 0
    checks: np.ndarray = field(default_factory=lambda: NO_CHECKS, repr=False, compare=False)
    holds: bool = True

    @property
    def truncated(self) -> str:
        """How many frames the video lacks, in words; empty if it is whole."""
        return cut_short(self.path, self.header_frames, self.num_frames)

    def with_checks(self, checks: np.ndarray) -> VideoFacts:
        """The facts with the checks of the frames, and their digest."""
        digest = xxhash.xxh3_64_intdigest(checks.tobytes()) if len(checks) else 0
        return replace(self, checks=checks, digest=digest)


REPORTED = [one.name for one in fields(VideoFacts) if one.name not in ("checks", "holds")]


def cut_short(path: str, promised: int | None, decoded: int) -> str:
    """How many frames a truncated video lacks, in words; empty if it is whole.

    It is truncated if its header promises at least two frames more than decode. One is tolerated:
    every HMDB51 AVI with packed B-frames promises one too many.

    >>> cut_short("a.avi", 90, 50), cut_short("a.avi", 90, 89), cut_short("a.webm", None, 3)
    ('a.avi: the header promises 90 frames, 50 decode', '', '')
    """
    if not decoded or promised is None or promised <= decoded + 1:
        return ""
    return f"{path}: the header promises {promised} frames, {decoded} decode"


def index_path(list_path: str | Path, index_dir: str | Path | None = None) -> Path:
    """Path of the index of a list: beside it, or in `index_dir`."""
    name = Path(list_path).name + ".index"
    return Path(index_dir or Path(list_path).parent) / name


class Index:
    """A mapped index file. Rows are numbered across its segments, the oldest first.

    A pickle holds the file's path and no row. Loading it maps the same file again, without
    verifying it: the process that made the pickle has done that, and must still be running if the
    file has been replaced meanwhile.
    """

    def __init__(self, mapped: Mapped) -> None:
        self._mapped = mapped
        self._first = np.cumsum([0, *(one.rows for one in mapped.segments)]).tolist()

    @property
    def path(self) -> Path:
        return self._mapped.path

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getstate__(self) -> tuple[Any, ...]:
        descriptor = self._mapped.file.fileno()
        here = f"/proc/{os.getpid()}/fd/{descriptor}"
        return self.path, self._mapped.segments, socket.gethostname(), here

    def __setstate__(self, state: tuple[Path, tuple[Segment, ...], str, str]) -> None:
        path, segments, host, there = state
        places = [Path(there), path] if host == socket.gethostname() else [path]
        for place in places:
            if file := index_file.with_segments(place, segments):
                self.__init__(Mapped(path, file, segments))  # type: ignore[misc]
                return
        raise ValueError(
            f"{path}: the processes see different video indexes, or it was overwritten in its "
            "place: put lists and indexes (data.index_dir) on a disk that all machines share, and "
            "start again"
        )

    def take(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Values (N,) of a column at rows (N,)."""
        found = np.empty(len(rows), COLUMNS[name])
        for number, first in enumerate(self._first[:-1]):
            column = self._mapped.column(number, name)
            mine = (rows >= first) & (rows < first + len(column))
            found[mine] = column[rows[mine] - first]
        return found

    def find(self, paths: Iterable[str], reader: str) -> np.ndarray:
        """Row of each path (N,) int64 for the requested reader; -1 where there is no sound one."""
        left = iter(paths)
        found = [np.empty(0, np.int64)]
        while block := [_begin(path, reader) for path in itertools.islice(left, AT_ONCE)]:
            found.append(self._find(block))
        return np.concatenate(found)

    def _find(self, names: list[bytes]) -> np.ndarray:
        """Newest sound row whose text begins with each of `names`, (N,) int64; -1: none."""
        keys = np.fromiter(map(xxhash.xxh3_64_intdigest, names), "<u8", len(names))
        found = np.full(len(names), -1, np.int64)
        for number in reversed(range(len(self._mapped.segments))):
            missing = np.flatnonzero(found < 0)
            column = self._mapped.column(number, "key")
            places = np.searchsorted(column, keys[missing])
            same = places < len(column)
            same[same] = column[places[same]] == keys[missing[same]]
            places, missing = places[same], missing[same]
            frames = self._mapped.column(number, "num_frames")[places].tolist()
            texts, wanted = (
                self._mapped.texts(number, places),
                map(names.__getitem__, missing.tolist()),
            )
            sound = [
                text.startswith(name) and _is_sound(text[len(name) :], count)
                for text, name, count in zip(texts, wanted, frames, strict=True)
            ]
            found[missing[sound]] = self._first[number] + places[sound]
        return found

    def newest(self) -> np.ndarray:
        """Rows that no later one replaces, (N,) int64, in the order of their keys."""
        keys = self.take("key", np.arange(len(self)))
        _, last = np.unique(keys[::-1], return_index=True)
        return len(keys) - 1 - last

    def table(self, rows: np.ndarray) -> index_file.Table:
        """Rows in the order of their keys, to be written."""
        columns = {name: self.take(name, rows) for name in COLUMNS}
        places = [self._place(row) for row in rows.tolist()]
        for name, part in (("text_end", self._mapped.text), ("checks_end", self._mapped.checks)):
            columns[name] = np.cumsum([len(part(*place)) for place in places], dtype="<u8")
        texts = (self._mapped.text(*place) for place in places)
        checks = (self._mapped.checks(*place).tobytes() for place in places)
        return index_file.Table(columns, texts, checks)

    def path_of(self, row: int) -> str:
        """List path of a row."""
        return self._text(row).partition(b"\0")[0].decode("utf-8", "surrogateescape")

    def __getitem__(self, row: int) -> VideoFacts:
        number, place = self._place(row)
        texts = self._text(row).decode("utf-8", "surrogateescape").split("\0")
        values: dict[str, Any] = dict(zip(TEXTS, texts, strict=False))
        for name in INTEGERS:
            values[name] = int(self._mapped.column(number, name)[place])
        promised = int(self._mapped.column(number, "header_frames")[place])
        for name in ("frame_rate", "duration"):
            value = float(self._mapped.column(number, name)[place])
            values[name] = None if np.isnan(value) else value
        checks = self._checks(row)
        header_frames = None if promised < 0 else promised
        return VideoFacts(**values, header_frames=header_frames, checks=checks)

    def reading(self, row: int) -> tuple[str, int, np.ndarray, int, int]:
        """Arguments of `open_counted` for a row: reader, number of frames, their checks; then the
        size and modification time that the file had."""
        number, place = self._place(row)
        reader = self._text(row).split(b"\0", 3)[2].decode()
        num_frames, size, mtime_ns = (
            int(self._mapped.column(number, name)[place])
            for name in ("num_frames", "size", "mtime_ns")
        )
        return reader, num_frames, self._checks(row), size, mtime_ns

    def _checks(self, row: int) -> np.ndarray:
        number, place = self._place(row)
        checks = self._mapped.checks(number, place)
        sound = len(checks) == self._mapped.column(number, "num_frames")[place]
        return checks if sound else NO_CHECKS

    def _text(self, row: int) -> bytes:
        return self._mapped.text(*self._place(row))

    def _place(self, row: int) -> tuple[int, int]:
        number = bisect_right(self._first, row) - 1
        return number, row - self._first[number]


def _begin(path: str, reader: str) -> bytes:
    """Beginning of a row's text: path and requested reader."""
    return f"{path}\0{reader}\0".encode("utf-8", "surrogateescape")


@functools.lru_cache(maxsize=1 << 14)  # most videos of a set are alike
def _is_sound(rest: bytes, num_frames: int) -> bool:
    """Whether a row can be used; `rest` is its text after path and requested reader."""
    served = rest.split(b"\0", 2)
    if rest.count(b"\0") != len(TEXTS) - 3 or not 0 <= num_frames <= MAX_FRAMES:
        return False
    return bool(served[1]) if num_frames == 0 else (not served[1] and served[0] in SERVING)


def read_index(path: str | Path) -> Index | None:
    """Map an index file after all of its bytes are verified; None where there is none.

    A part whose bytes have changed on disk is left out, with a line on stderr; its videos are
    counted again.

    Raises:
        OSError: the index cannot be read; names `data.index_dir`.
        ValueError: the file is no index, or damaged at its beginning.
    """
    try:
        mapped, damage = index_file.verified(Path(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OSError(
            f"{path}: the video index cannot be read ({error.strerror}); make it readable, or set "
            "data.index_dir to another folder"
        ) from error
    if damage:
        print(f"{path}: {damage}; what is lost is counted again", file=sys.stderr, flush=True)
    return Index(mapped)


def add_to_index(path: Path, found: Iterable[VideoFacts]) -> None:
    """Add rows to an index, which is made where there is none; on return they are on disk.

    Several processes may do so at once. Facts that do not hold are left out.

    Raises:
        OSError: the index cannot be written; names `data.index_dir`.
        ValueError: see `read_index`.
    """
    with _naming_the_key(path):
        index_file.append(path, _table([facts for facts in found if facts.holds]))


def tidy_index(path: Path) -> None:
    """Rewrite an index as one segment where it has many segments, replaced rows, or damage.

    Raises:
        OSError, ValueError: see `add_to_index`.
    """
    with _naming_the_key(path), index_file.locked(path):
        mapped, damage = index_file.verified(path)
        index = Index(mapped)
        rows = index.newest()
        if damage or len(mapped.segments) > MOST_SEGMENTS or len(rows) < KEPT * len(index):
            index_file.replace(path, index.table(rows))


@contextlib.contextmanager
def _naming_the_key(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM or isinstance(error, (WriteError, Held)):
            raise
        raise OSError(
            f"{path}: the video index cannot be written ({error.strerror or error}); "
            "set data.index_dir to a folder that can"
        ) from error


def _table(found: Iterable[VideoFacts]) -> index_file.Table:
    """Facts as rows of an index; of two with the same path and reader, the later ones."""
    facts = {xxhash.xxh3_64_intdigest(_begin(one.path, one.requested)): one for one in found}
    keys = sorted(facts)
    rows = [facts[key] for key in keys]
    texts = ["\0".join(getattr(row, name).replace("\0", " ") for name in TEXTS) for row in rows]
    encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
    columns: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in INTEGERS}
    columns["key"] = keys
    for name, unknown in (("header_frames", -1), ("frame_rate", np.nan), ("duration", np.nan)):
        values = [getattr(row, name) for row in rows]
        columns[name] = [unknown if value is None else value for value in values]
    columns["text_end"] = np.cumsum([len(text) for text in encoded], dtype="<u8")
    columns["checks_end"] = np.cumsum([len(row.checks) for row in rows], dtype="<u8")
    arrays = {name: np.array(columns[name], kind) for name, kind in COLUMNS.items()}
    return index_file.Table(arrays, encoded, (row.checks.tobytes() for row in rows))
