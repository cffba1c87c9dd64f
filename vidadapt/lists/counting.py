"""Look up the videos of a list in its index, and decode once those that it does not know."""

from __future__ import annotations

import itertools
import os
import stat
import sys
import time
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vidadapt.console import track
from vidadapt.files import absolute, is_url, joined, states_of
from vidadapt.lists.file_counting import CountJob, count_file, facts_in, failed_count, patience
from vidadapt.lists.index import Index, add_to_index, index_path, read_index, tidy_index
from vidadapt.lists.names import spelling_hint
from vidadapt.lists.quarantine import barring
from vidadapt.lists.reading import MOST_LISTED, ListError, Sample, Samples, listing
from vidadapt.lists.segments import count_with_films
from vidadapt.lists.stored import add_stored_index
from vidadapt.lists.videos import Videos
from vidadapt.processes import run_isolated
from vidadapt.video import VideoFacts, check_reader, file_of, film_of, make_packed_indexes

NOT_COUNTED = "not counted yet"
IRREGULAR = "not a regular file"
NAMED_SO = "a segment is named FILM#t=START,END in seconds, or FILM#frames=FIRST,STOP"
LIMIT_KEY = "data.count_timeout"
READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH


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
    """Look at the files of a list, each once: the tar of packed videos, the film of segments.

    Objects of a store are asked for together; `State.version` stands for their time.

    Args:
        barred: what is not looked at, with the cause, see `barring`.
    """
    sizes, mtimes, causes = array("q"), array("q"), {}
    tars: dict[str, tuple[int, int, str]] = {}
    folder = os.path.join(root, "")  # noqa: PTH118
    objects: dict[int, str] = {}
    for place, path in enumerate(paths):
        size, mtime_ns, cause = -1, 0, barring(barred, path, root)
        if not cause:
            file = path if path.startswith("/") or is_url(path) else folder + path
            if is_url(file):
                objects[place] = file_of(file)
            else:
                size, mtime_ns, cause = _state(file, tars)
        sizes.append(size)
        mtimes.append(mtime_ns)
        if cause:
            causes[place] = cause
    found = states_of(objects.values())
    for place, url in objects.items():
        state = found[url]
        if isinstance(state, OSError):
            causes[place] = str(state.strerror)
        else:
            sizes[place], mtimes[place] = state
    return FileStates(np.array(sizes, np.int64), np.array(mtimes, np.int64), causes)


def _state(file: str, tars: dict[str, tuple[int, int, str]]) -> tuple[int, int, str]:
    """Size, modification time and what is wrong; `tars` holds those of tars and films seen before.

    A file with the name of a segment is refused: nobody can tell which of the two is meant.
    """
    if "#" in file and (film := film_of(file)) != file:
        if os.path.lexists(file):
            return -1, 0, "the name of a file and of a segment; rename the file (no # at its end)"
        if film not in tars:
            tars[film] = _state(film, tars)
        return tars[film]
    if ".tar/" not in file:
        size, mtime_ns, cause = _stat(file)
        if cause and ("#t=" in file or "#frames=" in file):
            cause += f"; {NAMED_SO}"
        return size, mtime_ns, cause
    tar = file[: file.index(".tar/") + 4]
    if tar not in tars:
        tars[tar] = _stat(tar)
    return _stat(file_of(file)) if tars[tar][2] == IRREGULAR else tars[tar]


def _stat(file: str) -> tuple[int, int, str]:
    try:
        facts = patience().call(partial(os.stat, file))
    except OSError as error:
        return -1, 0, error.strerror or str(error)
    if not stat.S_ISREG(facts.st_mode):
        return -1, 0, IRREGULAR
    if facts.st_mode & READABLE != READABLE and not os.access(file, os.R_OK):
        return -1, 0, "may not be read"
    return facts.st_size, facts.st_mtime_ns, ""


def known_rows(
    index: Index | None,
    samples: Samples,
    files: FileStates,
    reader: str,
    whole: bool,
    timed: bool = False,
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
        if timed:
            same &= index.is_timed(rows[there])
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
    index_dir: str | Path | None = None,
    check_files: bool = False,
    decode: bool = True,
    whole: bool = False,
    timed: bool = False,
    **counting: Any,
) -> Videos:
    """Bring the index up to date; return the videos of a list with all that is known of them.

    Only new or changed files are decoded, see `count_unknown`, and a film once for all its
    segments, see `count_with_films`. Several processes that count for one index at the same time
    keep each other's rows, but each counts all of its own list.

    Args:
        list_path: the list; only its name and folder are used.
        root: folder that the paths are relative to.
        samples: of the list.
        reader: key of `READERS`.
        barred: what is not looked at, with the cause, see `barring`.
        index_dir: folder of the index (`data.index_dir`); default: the list's.
        check_files: refuse the list if a file is missing, before any is decoded.
        decode: False: only look up; videos that would have to be decoded get the error
            `NOT_COUNTED`.
        whole: packed videos count as known only if all their frames were decoded.
        timed: videos count as known only if the times of their frames were looked for.
        counting: options of `count_unknown`.

    Raises:
        ListError: a missing file, with `check_files`.
        OSError: the index cannot be read or written; names `data.index_dir`.
        ValueError: the file in its place is no index; names it.
        ValueError, ImportError: see `check_reader`.
    """
    check_reader(reader)
    listed, path = Samples.of(samples), index_path(list_path, index_dir)
    files = look_at(root, listed.paths(), barred or {})
    if check_files:
        _refuse_missing(list_path, root, listed, files, barred or {})
    if is_url(list_path):
        add_stored_index(str(list_path), path)
    index, decoded = read_index(path), 0
    rows, unknown = known_rows(index, listed, files, reader, whole, timed)
    loose = {place: _unread(listed.path(place), reader, why) for place, why in files.causes.items()}
    if unknown and decode:
        _say_of_earlier(list_path, path)
        if is_url(list_path):
            print(f"{list_path}: what is counted is kept in {path}", file=sys.stderr, flush=True)
        jobs = {
            place: _job(root, listed.path(place), files, place, reader)._replace(timed=timed)
            for place in unknown
        }
        count = partial(count_unknown, list_path, path, **counting)
        found, decoded = count_with_films(path, jobs, count)
        loose |= found
        index = read_index(path)
        rows, unknown = known_rows(index, listed, files, reader, whole, timed)
    why = f"its row in {path} was changed meanwhile; run this again" if decode else NOT_COUNTED
    for place in unknown:
        loose.setdefault(place, _unread(listed.path(place), reader, why))
    _name_files(root, loose, files)
    videos = Videos(str(root), listed.labels, rows, loose, index)
    videos.decoded, videos.timed = decoded, timed
    videos.has_segments = listed.may_name_segments
    return videos


def count_unknown(
    list_path: str | Path,
    index: Path,
    jobs: Mapping[int, CountJob],
    *,
    others: Sequence[Path] = (),
    num_workers: int = 0,
    progress: bool = True,
    time_limit: float | None = 300.0,
    limit_key: str = LIMIT_KEY,
    store_every: float = 60.0,
    count: Callable[[CountJob], VideoFacts] | None = None,
    label: str = "counting frames for",
) -> tuple[dict[int, VideoFacts], int]:
    """Decode each file once, in max(1, num_workers) processes, and store the facts that hold.

    A crash or a hang in a decoder becomes its file's `error`. An error that may not be the file's
    fault does not hold and is not stored: missing and forbidden files, dead and hung processes,
    input/output errors, lack of memory. Rows are stored at intervals, so that a kill loses little.

    Args:
        list_path: the list, for the progress.
        index: file of the index.
        jobs: the files, by place in the list.
        others: other indexes, whose rows on the same paths are valid here, too.
        progress: show it on stderr, as plain lines where that is no terminal.
        time_limit: seconds after which the decoding of one file counts as hung; None: never.
        limit_key: key or option of this limit, for messages.
        store_every: seconds between two stores of rows.
        count: decodes a file; default: `count_file`.

    Returns:
        Facts that do not hold, by place in the list; and how many files were decoded and stored.
    """
    add_to_index(index, [])  # an index that cannot be written is an error before the work
    if taken := facts_in(others, list(jobs.values())):
        add_to_index(index, taken.values())
    place_of = {job.path: place for place, job in jobs.items() if job.path not in taken}
    left = [jobs[place] for place in place_of.values()]
    make_packed_indexes(job.file for job in left)
    results = run_isolated(count or count_file, left, max(1, num_workers), time_limit, limit_key)
    title = f"{label} {Path(list_path).name}"
    loose: dict[int, VideoFacts] = {}
    found: list[VideoFacts] = []
    stored = time.monotonic()
    try:
        for job, result, death in track(
            results, total=len(left), label=title, unit="videos", shown=progress
        ):
            facts = result or failed_count(job, death, holds=False)
            found.append(facts)
            if not facts.holds:
                loose[place_of[job.path]] = facts
            if time.monotonic() - stored >= store_every:
                add_to_index(index, found)
                found, stored = [], time.monotonic()
    finally:
        add_to_index(index, found)
    tidy_index(index)
    return loose, len(left) - len(loose)


def _name_files(root: str | Path, loose: dict[int, VideoFacts], files: FileStates) -> None:
    """Let errors name the file, and paths that differ from it in their spelling only, too."""
    for place, facts in loose.items():
        if facts.error:
            loose[place] = replace(facts, error=f"{joined(root, facts.path)}: {facts.error}")
    for place in itertools.islice(
        (p for p in files.causes if not loose[p].path.isascii()), MOST_LISTED
    ):
        file = film_of(joined(root, loose[place].path))
        if not is_url(file) and not os.path.lexists(file):
            hint = spelling_hint(root, loose[place].path)
            loose[place] = replace(loose[place], error=loose[place].error + hint)


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


def _unread(path: str, reader: str, cause: str) -> VideoFacts:
    return VideoFacts(path, reader, error=cause, holds=False)


def _job(root: str | Path, path: str, files: FileStates, place: int, reader: str) -> CountJob:
    file = absolute(joined(root, path))
    return CountJob(file, path, reader, int(files.sizes[place]), int(files.mtimes_ns[place]))


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
        if not barring(barred, path, root):
            hint = spelling_hint(root, path) if len(lines) < MOST_LISTED else ""
            lines.append(f"{list_path}:{samples.lines[place]}: {joined(root, path)}: {cause}{hint}")
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
