"""The frame-count index beside a list: exact lengths, counted once by a full decode.

`train.txt` gets `train.txt.frames.csv`. A row holds while the file keeps its size and modification
time; a changed file is counted again. Delete a row, or the index, to have a file counted again.
"""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vidadapt.data.isolated import run_isolated
from vidadapt.data.readers import ReadError, check_reader, open_video
from vidadapt.progress import track

HEADER = ["path", "size", "mtime_ns", "requested"]
HEADER += ["num_frames", "header_frames", "codec", "reader", "error"]


@dataclass(frozen=True)
class FrameCount:
    """What is known of one video.

    Attributes:
        path: as in the list.
        num_frames: frames that decode; 0 if the video is unreadable.
        header_frames: frames that the header promises, or None where it tells nothing.
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


class _Job(NamedTuple):
    stamp: Stamp
    file: str


def truncated(count: FrameCount) -> bool:
    """Whether the header promises more frames than decode by more than one.

    One is tolerated: every HMDB51 AVI with packed B-frames promises one too many.
    """
    return count.header_frames is not None and count.header_frames > count.num_frames + 1


def index_path(list_path: str | Path, index_dir: str | Path | None = None) -> Path:
    """Where the index of a list lies: beside it, or in `index_dir`."""
    name = Path(list_path).name + ".frames.csv"
    return Path(index_dir or Path(list_path).parent) / name


def frame_counts(
    list_path: str | Path,
    root: str | Path,
    paths: Sequence[str],
    reader: str = "decord",
    index_dir: str | Path | None = None,
    num_workers: int = 0,
    progress: bool = True,
    time_limit: float = 300.0,
) -> dict[str, FrameCount]:
    """Exact frame counts of a list's videos, keyed by list path; the index is brought up to date.

    Only files that are new or changed are decoded, in max(1, num_workers) processes of their own:
    one that crashes or hangs in a decoder is recorded as that file's error. What was counted is
    kept if the call is interrupted. Missing and forbidden files get an `error` that is not kept.
    Several processes should not build one index at once: nothing breaks, but work is repeated.

    Args:
        list_path: the list; only its name and folder are used.
        root: folder that `paths` are relative to.
        paths: the list's paths.
        reader: key of `READERS`.
        index_dir: folder of the index (`data.index_dir`); default: the list's.
        num_workers: decoding processes.
        progress: show it on stderr, as plain lines where that is no terminal.
        time_limit: seconds after which the decoding of one file counts as hung.

    Raises:
        OSError: the index cannot be read or written; names `data.index_dir`.
        ValueError, ImportError: see `check_reader`.
    """
    check_reader(reader)
    index = index_path(list_path, index_dir)
    known = _load(index)
    counts: dict[str, FrameCount] = {}
    jobs: list[_Job] = []
    for path in dict.fromkeys(paths):
        file = Path(root) / path
        stamp = _stamp(path, file, reader)
        if isinstance(stamp, str):
            counts[path] = FrameCount(path, 0, None, "", reader, f"{file}: {stamp}")
        elif stamp in known:
            counts[path] = known[stamp]
        else:
            jobs.append(_Job(stamp, str(file)))
    if jobs:
        counted = _count_all(jobs, known, index, max(1, num_workers), progress, time_limit)
        counts |= {stamp.path: count for stamp, count in counted.items()}
    return {path: counts[path] for path in paths}


def _stamp(path: str, file: Path, reader: str) -> Stamp | str:
    """The file's stamp, or why there is none."""
    try:
        facts = file.stat()
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISREG(facts.st_mode):
        return "not a regular file"
    if not os.access(file, os.R_OK):
        return "may not be read"
    return Stamp(path, facts.st_size, facts.st_mtime_ns, reader)


def _count_all(
    jobs: Sequence[_Job],
    known: dict[Stamp, FrameCount],
    index: Path,
    num_workers: int,
    progress: bool,
    time_limit: float,
) -> dict[Stamp, FrameCount]:
    """Count every job's frames and write the index, also if interrupted on the way."""
    counted: dict[Stamp, FrameCount] = {}
    temporary = index.with_name(f".{index.name}.{os.getpid()}.tmp")
    try:  # before the work, not after
        index.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise OSError(
            f"{index}: the frame-count index cannot be written ({error.strerror}); "
            "set data.index_dir to a folder that can"
        ) from error
    try:
        results = run_isolated(_count, jobs, num_workers, time_limit)
        label = f"counting frames for {index.name}"
        for job, count, death in track(
            results, total=len(jobs), label=label, unit="videos", shown=progress
        ):
            if death:
                stamp = job.stamp
                count = FrameCount(stamp.path, 0, None, "", stamp.requested, f"{job.file}: {death}")
            counted[job.stamp] = count
    finally:
        renewed = {(stamp.path, stamp.requested) for stamp in counted}
        kept = {s: c for s, c in known.items() if (s.path, s.requested) not in renewed}
        _store(kept | counted, temporary)
        temporary.replace(index)
    return counted


def _count(job: _Job) -> FrameCount:
    """Count one file's frames; any failure becomes its error."""
    path, requested = job.stamp.path, job.stamp.requested
    try:
        with open_video(job.file, requested) as video:
            return FrameCount(path, len(video), video.header_frames, video.codec, video.reader, "")
    except ReadError as error:
        return FrameCount(path, 0, None, "", requested, str(error))
    except Exception as error:
        return FrameCount(path, 0, None, "", requested, f"{job.file}: {error!r}")


def _load(index: Path) -> dict[Stamp, FrameCount]:
    """Rows of an index file; empty where there is none."""
    if not index.exists():
        return {}
    rows: dict[Stamp, FrameCount] = {}
    with index.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if number == 1 and row == HEADER:
                continue
            try:
                path, size, mtime_ns, requested, num, header, codec, reader, error = row
                stamp = Stamp(path, int(size), int(mtime_ns), requested)
                header_frames = int(header) if header else None
                rows[stamp] = FrameCount(path, int(num), header_frames, codec, reader, error)
            except ValueError as problem:
                raise ValueError(
                    f"{index}:{number}: no row of a frame-count index; delete the file, "
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
