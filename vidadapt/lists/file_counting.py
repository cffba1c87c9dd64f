"""Decode one file of a list: count its frames, and find out all that its index keeps."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vidadapt.console import printable
from vidadapt.files import Patience
from vidadapt.lists.index import read_index
from vidadapt.video import (
    COUNTED_WITH,
    NO_TIMES,
    ReadError,
    TransientReadError,
    VideoFacts,
    file_of,
    open_video,
    unreadable_bytes,
)

UNTIMED = "it is not known when its frames are shown"


class CountJob(NamedTuple):
    """A file to decode: its absolute path, list path, requested reader and state.

    With `timed` the times of its frames are kept.
    """

    file: str
    path: str
    requested: str
    size: int
    mtime_ns: int
    timed: bool = False


def count_file(job: CountJob) -> VideoFacts:
    """Decode one file; any failure becomes its error.

    After a failure that may not be the file's fault, it is decoded once more, as soon as its bytes
    can be read.
    """
    try:
        try:
            return _counted(job)
        except TransientReadError:
            patience().call(partial(_require_bytes, job.file), (TransientReadError,))
            return _counted(job)
    except Exception as error:
        return facts_of_failure(job, error)


@functools.cache
def patience() -> Patience:
    """The patience of this process, for all files that it decodes."""
    return Patience()


def _counted(job: CountJob) -> VideoFacts:
    with open_video(job.file, job.requested) as video:
        times, remark = (video.facts.times, video.facts.remark) if job.timed else (NO_TIMES, "")
        if job.timed and not len(times):  # the remark says in the index that they were looked for
            times, remark = (np.zeros(1), "") if len(video) == 1 else (times, UNTIMED)
        return replace(
            video.facts,
            times=times,
            remark=remark,
            path=job.path,
            requested=job.requested,
            size=job.size,
            mtime_ns=job.mtime_ns,
        )


def _require_bytes(file: str) -> None:
    if why := unreadable_bytes(file_of(file)):
        raise TransientReadError(f"{file}: {why}")


def facts_of_failure(job: CountJob, error: Exception) -> VideoFacts:
    """Facts of a file whose decoding raised this; they hold where the file is at fault."""
    if not isinstance(error, ReadError):
        return failed_count(job, repr(error), holds=False)
    return failed_count(job, str(error), holds=not isinstance(error, TransientReadError))


def failed_count(job: CountJob, error: str, holds: bool) -> VideoFacts:
    """Facts of a file that cannot be read."""
    cause = printable(error.removeprefix(f"{job.file}: "))
    state = {"size": job.size, "mtime_ns": job.mtime_ns, "counted_with": COUNTED_WITH}
    return VideoFacts(job.path, job.requested, error=cause, holds=holds, **state)  # type: ignore[arg-type]


def facts_in(indexes: Iterable[Path], jobs: Sequence[CountJob]) -> dict[str, VideoFacts]:
    """Facts from some indexes on files in the same state, by list path."""
    found: dict[str, VideoFacts] = {}
    for path in indexes:
        index = read_index(path)
        left = [job for job in jobs if job.path not in found]
        if index is None or not left:
            continue
        rows = index.find((job.path for job in left), left[0].requested)
        for job, row in zip(left, rows.tolist(), strict=True):
            if row < 0:
                continue
            facts = index[row]
            lacks_times = job.timed and not index.is_timed(np.array([row]))[0]
            if (facts.size, facts.mtime_ns) == (job.size, job.mtime_ns) and not lacks_times:
                found[job.path] = facts
    return found
