"""The frame-count index beside a list: exact lengths, counted once by a full decode.

`train.txt` gets `train.txt.frames.csv`. A row holds while the file keeps its size and modification
time; a changed file is counted again. Delete a row, or the index, to have a file counted again.
That a file does not decode is kept too; a fault that need not be the file's is not.
"""

from __future__ import annotations

import csv
import os
import secrets
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vidadapt.data.bounds import count_problem
from vidadapt.data.isolated import run_isolated
from vidadapt.data.packed import file_of
from vidadapt.data.readers import (
    READERS,
    ReadError,
    TransientReadError,
    check_reader,
    open_video,
)
from vidadapt.data.survey import Survey
from vidadapt.naming import printable
from vidadapt.progress import track

SERVING = {*READERS, "packed"}  # what `Video.reader` may be
HEADER = ["path", "size", "mtime_ns", "requested"]
HEADER += ["num_frames", "header_frames", "codec", "reader", "error"]


@dataclass(frozen=True)
class FrameCount:
    """What is known of one video.

    Attributes:
        path: as in the list.
        num_frames: frames that decode; 0 if the video is unreadable.
        header_frames: frames that the header promises, less those that an edit list hides, or None
            where it tells nothing.
        codec: e.g. `h264`; empty if unreadable.
        reader: name of the reader that holds its contract on this file: what `open_video` is to be
            given.
        error: why the video is unreadable; empty if it can be read.
    """

    path: str
    num_frames: int
    header_frames: int | None
    codec: str
    reader: str
    error: str


class Stamp(NamedTuple):
    """What tells that a file has not changed, and for which reader it was counted."""

    path: str
    size: int
    mtime_ns: int
    requested: str


class Job(NamedTuple):
    """A file to decode: its list path and state, and where it lies."""

    stamp: Stamp
    file: str


class Counted(NamedTuple):
    """What decoding a file came to.

    Attributes:
        row: what the index holds of it.
        lasts: False: an error that need not be the file's fault was met; not kept in the index.
        survey: all that the decode told; None if the file is unreadable.
    """

    row: FrameCount
    lasts: bool
    survey: Survey | None


def truncated(count: FrameCount) -> str:
    """See `cut_short`."""
    return cut_short(count.path, count.header_frames, count.num_frames)


def cut_short(path: str, promised: int | None, decoded: int) -> str:
    """How many frames a truncated video lacks, in words; empty if it is whole.

    It is truncated if its header promises more frames than decode by more than one. One is
    tolerated: every HMDB51 AVI with packed B-frames promises one too many.

    >>> cut_short("a.avi", 90, 50), cut_short("a.avi", 90, 89), cut_short("a.webm", None, 3)
    ('a.avi: the header promises 90 frames, 50 decode', '', '')
    """
    if promised is None or promised <= decoded + 1:
        return ""
    return f"{path}: the header promises {promised} frames, {decoded} decode"


def index_path(list_path: str | Path, index_dir: str | Path | None = None) -> Path:
    """Where the index of a list lies: beside it, or in `index_dir`."""
    name = Path(list_path).name + ".frames.csv"
    return Path(index_dir or Path(list_path).parent) / name


def frame_counts(
    list_path: str | Path,
    root: str | Path,
    paths: Sequence[str],
    reader: str = "auto",
    index_dir: str | Path | None = None,
    num_workers: int = 0,
    progress: bool = True,
    time_limit: float = 300.0,
    store_every: float = 60.0,
    decode: bool = True,
) -> dict[str, FrameCount]:
    """Exact frame counts of a list's videos, keyed by list path; the index is brought up to date.

    Only files that are new or changed are decoded, in max(1, num_workers) processes of their own:
    one that crashes or hangs in a decoder becomes that file's `error`. An error that need not be
    the file's fault is returned but not kept: missing and forbidden files, dead and hung
    processes, input/output errors, lack of memory. The index is stored on the way, so that a kill
    loses little. Several processes that build one index at once keep each other's rows, but each
    counts all of its own list.

    Args:
        list_path: the list; only its name and folder are used.
        root: folder that `paths` are relative to.
        paths: the list's paths.
        reader: key of `READERS`.
        index_dir: folder of the index (`data.index_dir`); default: the list's.
        num_workers: decoding processes.
        progress: show it on stderr, as plain lines where that is no terminal.
        time_limit: seconds after which the decoding of one file counts as hung.
        store_every: seconds between two stores of the index.
        decode: False: tell only what the index knows and which files are not there; videos that
            would have to be decoded are left out of the result.

    Raises:
        OSError: the index cannot be read or written; names `data.index_dir`.
        ValueError: the index is none; names the line.
        ValueError, ImportError: see `check_reader`.
    """
    check_reader(reader)
    index = index_path(list_path, index_dir)
    known = load_index(index)
    counts: dict[str, FrameCount] = {}
    jobs: list[Job] = []
    for path in dict.fromkeys(paths):
        file = Path(root) / path
        stamp = stamp_of(path, file, reader)
        if isinstance(stamp, str):
            counts[path] = FrameCount(path, 0, None, "", reader, f"{file}: {stamp}")
        elif stamp in known:
            counts[path] = known[stamp]
        elif decode:
            jobs.append(Job(stamp, str(file)))
    if jobs:
        label = f"counting frames for {index.name}"
        found = count_jobs(count_file, jobs, index, num_workers, time_limit, store_every)
        for _, result in track(found, total=len(jobs), label=label, unit="videos", shown=progress):
            counts[result.row.path] = result.row
    return {path: counts[path] for path in paths if path in counts}


def stamp_of(path: str, file: Path, reader: str) -> Stamp | str:
    """The file's stamp (a packed video's: of its tar), or why there is none."""
    file = file_of(file)
    try:
        facts = file.stat()
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISREG(facts.st_mode):
        return "not a regular file"
    if not os.access(file, os.R_OK):
        return "may not be read"
    return Stamp(path, facts.st_size, facts.st_mtime_ns, reader)


def count_jobs(
    count: Callable[[Job], Counted],
    jobs: Sequence[Job],
    index: Path,
    num_workers: int,
    time_limit: float,
    store_every: float,
) -> Iterator[tuple[Job, Counted]]:
    """Decode files, each once, as `frame_counts` does; the index is stored on the way.

    Args:
        count: `count_file`, or what does as much.
    """
    lasting: dict[Stamp, FrameCount] = {}
    merge_index({}, index)  # before the work, not after
    stored = time.monotonic()
    try:
        for job, result, death in run_isolated(count, jobs, max(1, num_workers), time_limit):
            found = result or failed(job, f"{job.file}: {death}", lasts=False)
            if found.lasts:
                lasting[job.stamp] = found.row
            yield job, found
            if time.monotonic() - stored >= store_every:
                merge_index(lasting, index)
                stored = time.monotonic()
    finally:
        merge_index(lasting, index)


def failed(job: Job, error: str, lasts: bool) -> Counted:
    """The result of a file that cannot be read."""
    count = FrameCount(job.stamp.path, 0, None, "", job.stamp.requested, error)
    return Counted(count, lasts, None)


def count_file(job: Job) -> Counted:
    """Count one file's frames; any failure becomes its error."""
    try:
        with open_video(job.file, job.stamp.requested) as video:
            num_frames = len(video)  # may decode the file, and so learn what the rest is
            facts = (num_frames, video.header_frames, video.codec, video.reader, "")
            count = FrameCount(job.stamp.path, *facts)
            return Counted(count, not video.transient, video.survey)
    except TransientReadError as error:
        return failed(job, str(error), lasts=False)
    except ReadError as error:
        return failed(job, str(error), lasts=True)
    except Exception as error:
        return failed(job, f"{job.file}: {error!r}", lasts=False)


def merge_index(rows: dict[Stamp, FrameCount], index: Path) -> None:
    """Replace the index by what it holds now, other processes' rows included, and `rows`.

    Raises:
        OSError, ValueError: see `frame_counts`.
    """
    renewed = {(stamp.path, stamp.requested) for stamp in rows}
    found = load_index(index)
    kept = {s: count for s, count in found.items() if (s.path, s.requested) not in renewed}
    unique = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
    temporary = index.with_name(f".{index.name}.{unique}.tmp")
    try:
        index.parent.mkdir(parents=True, exist_ok=True)
        try:
            _store(kept | rows, temporary)
            temporary.replace(index)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(
            f"{index}: the frame-count index cannot be written ({error.strerror}); "
            "set data.index_dir to a folder that can"
        ) from error


def load_index(index: Path) -> dict[Stamp, FrameCount]:
    """Rows of an index file; empty where there is none.

    Raises:
        OSError, ValueError: see `frame_counts`.
    """
    try:
        with index.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            return _rows(file, index)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OSError(
            f"{index}: the frame-count index cannot be read ({error.strerror}); "
            "make it readable, or set data.index_dir to another folder"
        ) from error


def _rows(file: Iterable[str], index: Path) -> dict[Stamp, FrameCount]:
    rows: dict[Stamp, FrameCount] = {}
    reader = csv.reader(file)
    try:
        for row in reader:
            if reader.line_num == 1 and row == HEADER:
                continue
            path, size, mtime_ns, requested, num, header, codec, served, error = row
            stamp = Stamp(path, int(size), int(mtime_ns), requested)
            header_frames = int(header) if header else None
            num_frames = int(num)
            if count_problem(num_frames) or (num_frames < 1) != bool(error):
                raise ValueError("frames")
            if not error and served not in SERVING:
                raise ValueError("reader")
            facts = printable(codec), served, printable(error)
            rows[stamp] = FrameCount(path, num_frames, header_frames, *facts)
    except (ValueError, csv.Error) as problem:
        raise ValueError(
            f"{index}:{reader.line_num}: no row of a frame-count index; delete the file, "
            "and the frames are counted anew"
        ) from problem
    return rows


def _store(rows: dict[Stamp, FrameCount], file: Path) -> None:
    with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as handle:
        writer = csv.writer(handle)
        writer.writerow(HEADER)
        for stamp, c in sorted(rows.items()):
            header = "" if c.header_frames is None else c.header_frames
            writer.writerow([*stamp, c.num_frames, header, c.codec, c.reader, c.error])
