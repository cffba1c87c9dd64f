"""Look up the videos of a list in its index, and decode once those that it does not know."""

from __future__ import annotations

import functools
import itertools
import os
import stat
import sys
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vidadapt.console.naming import printable
from vidadapt.console.progress import track
from vidadapt.files.retrying import Patience
from vidadapt.lists.index import Index, add_to_index, index_path, read_index, tidy_index
from vidadapt.lists.names import spelling_hint
from vidadapt.lists.reading import SHOWN, ListError, Sample, Samples, listing
from vidadapt.lists.videos import Videos
from vidadapt.processes.isolated import run_isolated
from vidadapt.video import (
    COUNTED_WITH,
    ReadError,
    TransientReadError,
    VideoFacts,
    check_reader,
    file_of,
    make_packed_indexes,
    open_video,
    unreadable_bytes,
)

NOT_COUNTED = "not counted yet"
IRREGULAR = "not a regular file"
LIMIT_KEY = "data.count_timeout"
READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH


class CountJob(NamedTuple):
    """A file to decode: its absolute path, list path, requested reader and state."""

    file: str
    path: str
    requested: str
    size: int
    mtime_ns: int


class FileStates(NamedTuple):
    """The state of a list's files, each looked at once.

    Attributes:
        sizes, mtimes_ns: (N,) int64; -1 and 0 where there is a cause.
        causes: by place, why a file is missing or must not be opened.
    """

    sizes: np.ndarray
    mtimes_ns: np.ndarray
    causes: dict[int, str]


def look_at(root: str | Path, paths: Iterable[str], barred: Mapping[str, str]) -> FileStates:
    """Look at the files of a list; for packed videos at their tar, once.

    Args:
        barred: normalised list paths that are not looked at, with the cause.
    """
    sizes, mtimes, causes = array("q"), array("q"), {}
    tars: dict[str, tuple[int, int, str]] = {}
    folder = os.path.join(root, "")  # noqa: PTH118
    for place, path in enumerate(paths):
        size, mtime_ns, cause = -1, 0, barred.get(os.path.normpath(path), "") if barred else ""
        if not cause:
            file = path if path.startswith("/") else folder + path
            size, mtime_ns, cause = _state(file, tars)
        sizes.append(size)
        mtimes.append(mtime_ns)
        if cause:
            causes[place] = cause
    return FileStates(np.array(sizes, np.int64), np.array(mtimes, np.int64), causes)


def _state(file: str, tars: dict[str, tuple[int, int, str]]) -> tuple[int, int, str]:
    """Size, modification time and what is wrong; `tars` holds those of tars seen before."""
    if ".tar/" not in file:
        return _stat(file)
    tar = file[: file.index(".tar/") + 4]
    if tar not in tars:
        tars[tar] = _stat(tar)
    return _stat(str(file_of(file))) if tars[tar][2] == IRREGULAR else tars[tar]


def _stat(file: str) -> tuple[int, int, str]:
    try:
        facts = _patience().call(partial(os.stat, file))
    except OSError as error:
        return -1, 0, error.strerror or str(error)
    if not stat.S_ISREG(facts.st_mode):
        return -1, 0, IRREGULAR
    if facts.st_mode & READABLE != READABLE and not os.access(file, os.R_OK):
        return -1, 0, "may not be read"
    return facts.st_size, facts.st_mtime_ns, ""


def known_rows(
    index: Index | None, samples: Samples, files: FileStates, reader: str, whole: bool
) -> tuple[np.ndarray, list[int]]:
    """Index row (N,) of each unchanged file, else -1; and the places that must be decoded."""
    rows = np.full(len(samples), -1)
    if index is not None:
        rows = index.find(samples.paths(), reader)
        there = np.flatnonzero(rows >= 0)
        same = index.take("size", rows[there]) == files.sizes[there]
        same &= index.take("mtime_ns", rows[there]) == files.mtimes_ns[there]
        if whole:
            same &= (index.take("width", rows[there]) > 0) | (
                index.take("num_frames", rows[there]) == 0
            )
        rows[there[~same]] = -1
    unknown = rows < 0
    unknown[list(files.causes)] = False
    return rows, np.flatnonzero(unknown).tolist()


def counted_videos(
    list_path: str | Path,
    root: str | Path,
    samples: Iterable[Sample],
    reader: str = "auto",
    *,
    barred: Mapping[str, str] | None = None,
    others: Sequence[Path] = (),
    index_dir: str | Path | None = None,
    num_workers: int = 0,
    progress: bool = True,
    time_limit: float | None = 300.0,
    limit_key: str = LIMIT_KEY,
    store_every: float = 60.0,
    check_files: bool = False,
    decode: bool = True,
    whole: bool = False,
    count: Callable[[CountJob], VideoFacts] | None = None,
    label: str = "counting frames for",
) -> Videos:
    """Bring the index up to date; return the videos of a list with all that is known of them.

    Only new or changed files are decoded, in max(1, num_workers) separate processes: a crash or a
    hang in a decoder becomes that file's `error`. An error that may not be the file's fault is
    returned but not stored: missing and forbidden files, dead and hung processes, input/output
    errors, lack of memory. Rows are stored at intervals, so that a kill loses little. Several
    processes that count for one index at the same time keep each other's rows, but each counts
    all of its own list.

    Args:
        list_path: the list; only its name and folder are used.
        root: folder that the paths are relative to.
        samples: of the list.
        reader: key of `READERS`.
        barred: normalised list paths that are not looked at, with the cause.
        others: other indexes, whose rows on the same paths are valid here, too.
        index_dir: folder of the index (`data.index_dir`); default: the list's.
        num_workers: decoding processes.
        progress: show it on stderr, as plain lines where that is no terminal.
        time_limit: seconds after which the decoding of one file counts as hung; None: never.
        limit_key: key or option of this limit, for messages.
        store_every: seconds between two stores of rows.
        check_files: refuse the list if a file is missing, before any is decoded.
        decode: False: only look up; videos that would have to be decoded get the error
            `NOT_COUNTED`.
        whole: packed videos count as known only if all their frames were decoded.
        count: decodes a file; default: `count_file`.

    Raises:
        ListError: a missing file, with `check_files`.
        OSError: the index cannot be read or written; names `data.index_dir`.
        ValueError: the file in its place is no index; names it.
        ValueError, ImportError: see `check_reader`.
    """
    check_reader(reader)
    decoded = 0
    path, listed = index_path(list_path, index_dir), Samples.of(samples)
    files = look_at(root, listed.paths(), barred or {})
    if check_files:
        _refuse_missing(list_path, root, listed, files, barred or {})
    index = read_index(path)
    rows, unknown = known_rows(index, listed, files, reader, whole)
    loose = {place: _unread(listed.path(place), reader, why) for place, why in files.causes.items()}
    if unknown and not decode:
        loose |= {place: _unread(listed.path(place), reader, NOT_COUNTED) for place in unknown}
    elif unknown:
        _say_of_earlier(list_path, path)
        add_to_index(path, [])  # an index that cannot be written is an error before the work
        jobs = [_job(root, listed.path(place), files, place, reader) for place in unknown]
        place_of = {job.path: place for job, place in zip(jobs, unknown, strict=True)}
        if taken := _of_others(others, jobs):
            add_to_index(path, taken.values())
        jobs = [job for job in jobs if job.path not in taken]
        make_packed_indexes(job.file for job in jobs)
        results = count_jobs(
            count or count_file, jobs, path, max(1, num_workers), time_limit, limit_key, store_every
        )
        title = f"{label} {Path(list_path).name}"
        for facts in track(results, total=len(jobs), label=title, unit="videos", shown=progress):
            decoded += facts.holds
            if not facts.holds:
                loose[place_of[facts.path]] = facts
        tidy_index(path)
        index = read_index(path)
        rows, unknown = known_rows(index, listed, files, reader, whole)
        lost = f"its row in {path} was changed meanwhile; run this again"
        for place in unknown:
            loose.setdefault(place, _unread(listed.path(place), reader, lost))
    for place, facts in loose.items():
        if facts.error:
            file = os.path.join(root, facts.path)  # noqa: PTH118
            loose[place] = replace(facts, error=f"{file}: {facts.error}")
    for place in itertools.islice((p for p in files.causes if not loose[p].path.isascii()), SHOWN):
        if not os.path.lexists(os.path.join(root, loose[place].path)):  # noqa: PTH118
            hint = spelling_hint(root, loose[place].path)
            loose[place] = replace(loose[place], error=loose[place].error + hint)
    videos = Videos(str(root), listed.labels, rows, loose, index)
    videos.decoded = decoded
    return videos


def frame_counts(
    list_path: str | Path,
    root: str | Path,
    paths: Sequence[str],
    reader: str = "auto",
    **options: Any,
) -> dict[str, VideoFacts]:
    """Facts of some videos by list path; their errors name the file.

    Args:
        options: see `counted_videos`. With `decode=False` videos that would have to be decoded are
            left out.
    """
    distinct = [Sample(path, 0) for path in dict.fromkeys(paths)]
    videos = counted_videos(list_path, root, distinct, reader, **options)
    found = {facts.path: facts for facts in map(videos.facts, range(len(videos)))}
    return {path: facts for path, facts in found.items() if not facts.error.endswith(NOT_COUNTED)}


def count_jobs(
    count: Callable[[CountJob], VideoFacts],
    jobs: Sequence[CountJob],
    index: Path,
    num_workers: int,
    time_limit: float | None,
    limit_key: str,
    store_every: float,
) -> Iterator[VideoFacts]:
    """Decode each file once, in separate processes; facts that hold are stored at intervals."""
    found: list[VideoFacts] = []
    stored = time.monotonic()
    results = run_isolated(count, jobs, num_workers, time_limit, limit_key)
    try:
        for job, result, death in results:
            facts = result or failed(job, death, holds=False)
            found.append(facts)
            yield facts
            if time.monotonic() - stored >= store_every:
                add_to_index(index, found)
                found, stored = [], time.monotonic()
    finally:
        add_to_index(index, found)


def count_file(job: CountJob) -> VideoFacts:
    """Decode one file; any failure becomes its error.

    After a failure that may not be the file's fault, it is decoded once more, as soon as its bytes
    can be read.
    """
    try:
        try:
            return _counted(job)
        except TransientReadError:
            _patience().call(partial(_require_bytes, job.file), (TransientReadError,))
            return _counted(job)
    except TransientReadError as error:
        return failed(job, str(error), holds=False)
    except ReadError as error:
        return failed(job, str(error), holds=True)
    except Exception as error:
        return failed(job, repr(error), holds=False)


@functools.cache
def _patience() -> Patience:
    """The patience of this process, for all files that it decodes."""
    return Patience()


def _counted(job: CountJob) -> VideoFacts:
    with open_video(job.file, job.requested) as video:
        return replace(
            video.facts,
            path=job.path,
            requested=job.requested,
            size=job.size,
            mtime_ns=job.mtime_ns,
        )


def _require_bytes(file: str) -> None:
    if why := unreadable_bytes(str(file_of(file))):
        raise TransientReadError(f"{file}: {why}")


def failed(job: CountJob, error: str, holds: bool) -> VideoFacts:
    """Facts of a file that cannot be read."""
    cause = printable(error.removeprefix(f"{job.file}: "))
    state = {"size": job.size, "mtime_ns": job.mtime_ns, "counted_with": COUNTED_WITH}
    return VideoFacts(job.path, job.requested, error=cause, holds=holds, **state)  # type: ignore[arg-type]


def _unread(path: str, reader: str, cause: str) -> VideoFacts:
    return VideoFacts(path, reader, error=cause, holds=False)


def _job(root: str | Path, path: str, files: FileStates, place: int, reader: str) -> CountJob:
    file = os.path.abspath(os.path.join(root, path))  # noqa: PTH100, PTH118
    return CountJob(file, path, reader, int(files.sizes[place]), int(files.mtimes_ns[place]))


def _of_others(others: Iterable[Path], jobs: Sequence[CountJob]) -> dict[str, VideoFacts]:
    """Facts from other indexes on files in the same state, by list path."""
    found: dict[str, VideoFacts] = {}
    for other in others:
        index = read_index(other)
        left = [job for job in jobs if job.path not in found]
        if index is None or not left:
            continue
        rows = index.find((job.path for job in left), left[0].requested)
        for job, row in zip(left, rows.tolist(), strict=True):
            if row >= 0:
                facts = index[row]
                if (facts.size, facts.mtime_ns) == (job.size, job.mtime_ns):
                    found[job.path] = facts
    return found


def _refuse_missing(
    list_path: str | Path,
    root: str | Path,
    samples: Samples,
    files: FileStates,
    barred: Mapping[str, str],
) -> None:
    lines: list[str] = []
    for place, cause in files.causes.items():
        path = samples.path(place)
        if os.path.normpath(path) not in barred:
            hint = spelling_hint(root, path) if len(lines) < SHOWN else ""
            lines.append(f"{list_path}:{samples.lines[place]}: {Path(root) / path}: {cause}{hint}")
    if lines:
        raise ListError(listing(f"{list_path} has {len(lines)} line(s) without a file", lines))


def _say_of_earlier(list_path: str | Path, index: Path) -> None:
    earlier = index.with_name(Path(list_path).name + ".frames.csv")
    if earlier.exists() and not index.exists():
        print(
            f"{earlier} is of an earlier version and not used: the frames are counted again, "
            f"for {index.name}",
            file=sys.stderr,
            flush=True,
        )
