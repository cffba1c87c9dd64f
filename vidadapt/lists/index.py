"""The video index beside a list: what one full decode found in each file, and its frames' checks.

`train.txt` gets `train.txt.index`. A row is valid while its file keeps its size and modification
time; a changed file is counted again. A file's error is kept, too, unless it may not be the file's
fault. `read_index` reads an index, `vidadapt prepare index --show` prints it. Delete it to have
everything counted again.

The file is a sequence of segments, see `index_file`: the rows of a later one replace those of an
earlier one on the same path and requested reader.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import mmap
import os
import socket
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from vidadapt.files import NO_ROOM, Held, WriteError, folder_of, is_url, store_cache
from vidadapt.lists import index_file
from vidadapt.lists.index_file import COLUMNS, Segment, Table
from vidadapt.video import IMAGE_READER, MAX_FRAMES, READERS, VideoFacts

TEXTS = (
    *("path", "requested", "reader", "error", "codec", "container", "pixel_format"),
    *("doubt", "cause", "counted_with"),
)
PART = ("first_frame", "remark")  # more texts of segments and of files whose times are kept
SERVING = {
    name.encode() for name in (*READERS, "packed", IMAGE_READER)
}  # what `VideoFacts.reader` may be
UNKNOWN = {"header_frames": -1, "frame_rate": np.nan, "duration": np.nan}  # stored for None
NUMBERS = ("size", "mtime_ns", "num_frames", "width", "height", "rotation", *UNKNOWN)
OF_STORES = "indices"  # folder in the cache of stores
MOST_SEGMENTS = 8  # more are merged into one
AT_ONCE = 1 << 14  # paths that are looked up together
KEPT = 0.75  # an index is rewritten if a smaller share of its rows is needed


def index_path(list_path: str | Path, index_dir: str | Path | None = None) -> Path:
    """Path of the index of a list: beside it, or in `index_dir`.

    That of a list in a store is in the cache of `files.store_cache`, outside its bound.
    """
    name = Path(list_path).name + ".index"
    if index_dir is None and is_url(list_path):
        key = xxhash.xxh3_128_hexdigest(folder_of(list_path).encode())
        return store_cache().folder / OF_STORES / key / name
    return Path(index_dir or Path(list_path).parent) / name


class Index:
    """Whole segments of an index file, mapped; they stay readable when the file is replaced.

    Rows are numbered across the segments, the oldest first.

    A pickle holds the file's path and no row. Loading it maps the same file again, without
    verifying it: the process that made the pickle has done that, and must still be running if the
    file has been replaced meanwhile.
    """

    def __init__(self, path: Path, file: FileIO, segments: Sequence[Segment]) -> None:
        self.path, self._file, self.segments = path, file, tuple(segments)
        self._first = np.cumsum([0, *(one.rows for one in segments)]).tolist()
        length = max((one.end for one in segments), default=0)
        self._bytes: Any = mmap.mmap(file.fileno(), length, prot=mmap.PROT_READ) if length else b""
        self._columns = [one.columns(self._bytes) for one in segments]

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getstate__(self) -> tuple[Any, ...]:
        here = f"/proc/{os.getpid()}/fd/{self._file.fileno()}"
        return self.path, self.segments, socket.gethostname(), here

    def __setstate__(self, state: tuple[Path, tuple[Segment, ...], str, str]) -> None:
        path, segments, host, there = state
        places = [Path(there), path] if host == socket.gethostname() else [path]
        for place in places:
            if file := index_file.with_segments(place, segments):
                self.__init__(path, file, segments)  # type: ignore[misc]
                return
        raise ValueError(
            f"{path}: the processes see different video indexes, or it was overwritten in its "
            "place: put lists and indexes (data.index_dir) on a disk that all machines share, and "
            "start again"
        )

    def adds_up(self) -> bool:
        """Check that the ends of the texts and checks ascend, up to the total sizes."""
        for segment, columns in zip(self.segments, self._columns, strict=True):
            for name, total in (("text_end", segment.text), ("checks_end", segment.checks)):
                ends = columns[name]
                if (ends[1:] < ends[:-1]).any() or (int(ends[-1]) if len(ends) else 0) != total:
                    return False
        return True

    def take(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Values (N,) of a column at rows (N,)."""
        found = np.empty(len(rows), COLUMNS[name])
        for first, columns in zip(self._first, self._columns, strict=False):
            mine = (rows >= first) & (rows < first + len(columns[name]))
            found[mine] = columns[name][rows[mine] - first]
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
        for number, columns in reversed([*enumerate(self._columns)]):
            missing = np.flatnonzero(found < 0)
            places = np.searchsorted(columns["key"], keys[missing])
            same = places < len(columns["key"])
            same[same] = columns["key"][places[same]] == keys[missing[same]]
            places, missing = places[same], missing[same]
            sound = [
                text.startswith(name) and _is_sound(text[len(name) :], count)
                for text, name, count in zip(
                    self._texts(number, places),
                    map(names.__getitem__, missing.tolist()),
                    columns["num_frames"][places].tolist(),
                    strict=True,
                )
            ]
            found[missing[sound]] = self._first[number] + places[sound]
        return found

    def _texts(self, number: int, places: np.ndarray) -> list[bytes]:
        """Texts of rows (N,) of a segment: for many rows, a quarter of the time of `text`."""
        start, ends = self.segments[number].text_start, self._columns[number]["text_end"]
        begins = np.where(places > 0, ends[places - 1], 0) + np.uint64(start)
        spans = zip(begins.tolist(), (ends[places] + np.uint64(start)).tolist(), strict=True)
        return [self._bytes[begin:end] for begin, end in spans]

    def newest(self) -> np.ndarray:
        """Rows that no later one replaces, (N,) int64, in the order of their keys."""
        keys = self.take("key", np.arange(len(self)))
        _, last = np.unique(keys[::-1], return_index=True)
        return len(keys) - 1 - last

    def table(self, rows: np.ndarray) -> Table:
        """Rows in the order of their keys, to be written."""
        return Table.of(
            {name: self.take(name, rows) for name in COLUMNS},
            [self.text(row) for row in rows.tolist()],
            [self.kept(row) for row in rows.tolist()],
        )

    def text(self, row: int) -> bytes:
        """`TEXTS`, and maybe `PART`, of a row, with a zero between two of them."""
        number, begin, end = self._span(row, "text_end")
        start = self.segments[number].text_start
        return bytes(self._bytes[start + begin : start + end])

    def is_timed(self, rows: np.ndarray) -> np.ndarray:
        """Whether rows (N,) have the times of their frames, if their files tell them, (N,) bool."""
        timed = [len(self.text(row).split(b"\0")) > len(TEXTS) for row in rows.tolist()]
        return np.array(timed, bool) | (self.take("num_frames", rows) == 0)

    def path_of(self, row: int) -> str:
        """List path of a row."""
        return self.text(row).partition(b"\0")[0].decode("utf-8", "surrogateescape")

    def part_of(self, row: int) -> tuple[int, str]:
        """First frame of a row in its file, and its remark; quicker than all facts."""
        fields = self.text(row).decode("utf-8", "surrogateescape").split("\0")[len(TEXTS) :]
        return (int(fields[0]), fields[1]) if fields else (0, "")

    def reader_of(self, row: int) -> str:
        """Name of the reader that serves a row's video."""
        return self.text(row).split(b"\0", 3)[2].decode()

    def kept(self, row: int) -> np.ndarray:
        """Checks uint64 of a row's frames, if they are known, and then maybe the bits of times."""
        number, begin, end = self._span(row, "checks_end")
        start = self.segments[number].checks_start + 8 * begin
        return np.frombuffer(self._bytes, "<u8", end - begin, start)

    def __getitem__(self, row: int) -> VideoFacts:
        number, place = self._place(row)
        texts = self.text(row).decode("utf-8", "surrogateescape").split("\0")
        values: dict[str, Any] = dict(zip((*TEXTS, *PART), texts, strict=False))
        values["first_frame"] = int(values.get("first_frame", 0))
        for name in NUMBERS:
            values[name] = self._columns[number][name][place].item()
        values |= {name: None for name in UNKNOWN if not values[name] >= 0}
        kept, count = self.kept(row), values["num_frames"]
        if len(kept) in (count, 2 * count):
            values["checks"] = kept[:count]
            values["times"] = kept[count:].view("<f8")
        return VideoFacts(**values)

    def _span(self, row: int, name: str) -> tuple[int, int, int]:
        """Segment of a row; begin and end of its part of the texts or checks there."""
        number, place = self._place(row)
        ends = self._columns[number][name]
        return number, int(ends[place - 1]) if place else 0, int(ends[place])

    def _place(self, row: int) -> tuple[int, int]:
        number = bisect_right(self._first, row) - 1
        return number, row - self._first[number]


def _begin(path: str, reader: str) -> bytes:
    """Beginning of a row's text: path and requested reader."""
    return f"{path}\0{reader}\0".encode("utf-8", "surrogateescape")


@functools.lru_cache(maxsize=1 << 14)  # most videos of a set are alike
def _is_sound(rest: bytes, num_frames: int) -> bool:
    """Check that a row can be used; `rest` is its text after path and requested reader."""
    served = rest.split(b"\0", 4)
    more = rest.count(b"\0") - (len(TEXTS) - 3)
    if more not in (0, len(PART)) or not 0 <= num_frames <= MAX_FRAMES:
        return False
    first = rest.rsplit(b"\0", len(PART))[1] if more else b"0"
    if not (first.isdigit() and len(first) < 10 and int(first) + num_frames <= MAX_FRAMES):
        return False
    if served[3].endswith(b"_pipe"):  # an image that an earlier version decoded as a video
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
        index, damage = _verified(Path(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OSError(
            f"{path}: the video index cannot be read ({error.strerror}); make it readable, or set "
            "data.index_dir to another folder"
        ) from error
    if damage:
        print(f"{path}: {damage}; what is lost is counted again", file=sys.stderr, flush=True)
    return index


def _verified(path: Path) -> tuple[Index, str]:
    """Map the segments whose bytes are as they were written; also say in words what is damaged.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no index.
    """
    file = path.open("rb", buffering=0)
    segments, _, damage = index_file.scanned(path, file, verify=True)
    index = Index(path, file, segments)
    if not index.adds_up():
        raise ValueError(f"{path}: is no video index; delete it, and the videos are counted again")
    return index, damage


def add_to_index(path: Path, found: Iterable[VideoFacts]) -> None:
    """Add rows to an index, which is made where there is none; on return they are on disk.

    Several processes may do so at once. Facts that do not hold are left out.

    Raises:
        OSError: the index cannot be written; names `data.index_dir`.
        ValueError: see `read_index`.
    """
    with _naming_the_key(path):
        index_file.append(path, _table(facts for facts in found if facts.holds))


def shard_path(list_path: Path, shard: int, number: int) -> Path:
    """Path in whose name a shard's index and tables are kept; nothing is there itself.

    >>> str(shard_path(Path("lists/train.txt"), 2, 8))
    'lists/train.txt.2-of-8'
    """
    return list_path.with_name(f"{list_path.name}.{shard}-of-{number}")


def join_indexes(path: Path, parts: Sequence[Path]) -> int:
    """Put the rows of the indices of all shards of a list into the list's; return their number.

    An index that is made so has the bytes of one that one process has counted without a pause.

    Raises:
        ValueError: an index of a shard is missing, or see `read_index`.
        OSError: see `add_to_index`.
    """
    missing = [part for part in parts if not part.is_file()]
    if missing:
        raise ValueError(
            f"{missing[0]}: there is no such index, nor {len(missing) - 1} others of "
            f"{len(parts)}; every machine's --shard is to be done first"
        )
    found: list[VideoFacts] = []
    for part in parts:
        index = read_index(part)
        if index is not None:
            found += [index[row] for row in index.newest().tolist()]
    add_to_index(path, found)
    tidy_index(path)
    return len(found)


def tidy_index(path: Path) -> None:
    """Rewrite an index as one segment where it has many segments, replaced rows, or damage.

    Raises:
        OSError, ValueError: see `add_to_index`.
    """
    with _naming_the_key(path), index_file.locked(path):
        index, damage = _verified(path)
        rows = index.newest()
        if damage or len(index.segments) > MOST_SEGMENTS or len(rows) < KEPT * len(index):
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


def _table(found: Iterable[VideoFacts]) -> Table:
    """Facts as rows of an index; of two with the same path and reader, the later ones."""
    facts = {xxhash.xxh3_64_intdigest(_begin(one.path, one.requested)): one for one in found}
    rows = [facts[key] for key in sorted(facts)]
    texts = ["\0".join(_texts_of(row)) for row in rows]
    columns: dict[str, Any] = {"key": sorted(facts)}
    for name in (*NUMBERS, "digest"):
        values = [getattr(row, name) for row in rows]
        columns[name] = [UNKNOWN.get(name) if value is None else value for value in values]
    encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
    return Table.of(columns, encoded, [_kept_of(row) for row in rows])


def _texts_of(facts: VideoFacts) -> list[str]:
    """Texts of a row. Those of a whole file without times are as they were before segments were.

    A version that knows no segments takes the others for unsound, and counts their files again.
    """
    names = (*TEXTS, *PART) if facts.first_frame or facts.remark or len(facts.times) else TEXTS
    return [str(getattr(facts, name)).replace("\0", " ") for name in names]


def _kept_of(facts: VideoFacts) -> np.ndarray:
    if not len(facts.times) or len(facts.times) != len(facts.checks):
        return facts.checks
    return np.concatenate([facts.checks, facts.times.view("<u8")])
