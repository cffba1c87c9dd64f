"""Copy videos one by one in processes of their own, and keep a table of the copies on disk.

`copies.csv` in the folder of copies is both the table that a person reads and the journal from
which a killed call is resumed: a row is added when a copy is whole.
"""

from __future__ import annotations

import csv
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np

from vidadapt.apps.prepare.encoders import compare_h264, psnr, write_h264, write_jpegs
from vidadapt.apps.prepare.report import Report
from vidadapt.console import track
from vidadapt.files import NO_ROOM, replaced
from vidadapt.processes import run_isolated
from vidadapt.video import VideoFacts, cut_short, open_video, promised_frames

READER = "auto"  # data.reader's default: the video index is filled for it
TABLE = "copies.csv"


@dataclass(frozen=True)
class Copy:
    """One copied video, a row of the table.

    Attributes:
        path: of the source, as in its list.
        copy: its path in the new list; empty while the copy is in no shard yet.
        source_bytes, source_mtime_ns: of the source's file when it was copied.
        bytes: of the copy; in a shard, with the headers of its frames.
        frames: their number, the same in both.
        width, height: of the copy in pixels.
        psnr: of the whole clip against its source, scaled where the copy is: from the mean squared
            error over all pixels and channels of all frames, in dB; inf where they are equal.
        worst_psnr: of the worst frame, which is compared with the floor.
    """

    path: str
    copy: str
    source_bytes: int
    source_mtime_ns: int
    bytes: int
    frames: int
    width: int
    height: int
    psnr: float
    worst_psnr: float


@dataclass(frozen=True)
class Settings:
    """Settings of the copies of a set.

    Attributes:
        encoder: `h264`: to a file each; `jpeg`: to frames in tar files.
        short_side: of the copies in pixels; a smaller source is not enlarged.
        quality: H.264's CRF (less is better), JPEG's quality (more is better).
        min_psnr: floor of the worst frame of each copy in dB.
        gop: frames from one key frame to the next, of H.264.
        shard_bytes: of a tar file; it is larger only if it holds one video.
    """

    encoder: Literal["h264", "jpeg"]
    short_side: int
    quality: int
    min_psnr: float
    gop: int = 0
    shard_bytes: int = 0


@dataclass(frozen=True)
class CopyJob:
    """A video to copy.

    Attributes:
        path: in the list.
        source: its file.
        name: of the copy: list path of an H.264 file, folder in the tar of a packed video.
        target: file to write.
        partial: file that it is written to first, on the same disk.
        settings: how it is copied.
    """

    path: str
    source: str
    name: str
    target: Path
    partial: Path
    settings: Settings


@dataclass(frozen=True)
class Outcome:
    """Result of a job.

    Attributes:
        copy: the copy; None if there is none.
        facts: what a reader finds in an H.264 copy, as the video index keeps it.
        error: why there is no copy.
        disk_full: there is no room to write it, which holds for all other jobs, too.
        notes: (title, line) of what is worth knowing about the source and its copy.
    """

    copy: Copy | None = None
    facts: VideoFacts | None = None
    error: str = ""
    disk_full: bool = False
    notes: tuple[tuple[str, str], ...] = ()


def run_jobs(
    jobs: Sequence[CopyJob],
    function: Callable[[CopyJob], Outcome],
    out: Path,
    report: Report,
    *,
    num_processes: int,
    time_limit: float,
    progress: bool,
) -> Iterator[tuple[CopyJob, Outcome]]:
    """Make copies and add each to the table as soon as it is whole, in any order.

    Args:
        function: makes one copy, importable by name; it raises nothing.
        report: gets a problem for each video that is not copied, and the notes on the others.
        time_limit: seconds after which one copy counts as hung.

    Raises:
        OSError: the disk is full; says how many videos are left.
    """
    results = run_isolated(function, jobs, num_processes, time_limit)
    shown = track(results, total=len(jobs), label=f"copy to {out}", unit="videos", shown=progress)
    for done, (job, result, death) in enumerate(shown):
        outcome = result or Outcome(error=f"{job.source}: {death}")
        if outcome.disk_full:
            left = len(jobs) - done
            raise OSError(errno.ENOSPC, f"{outcome.error}; {left} of {len(jobs)} videos are left")
        if outcome.copy is not None:
            append_table(out, [outcome.copy])
        if outcome.error:
            report.problem("videos that were not copied", outcome.error)
        for title, line in outcome.notes:
            report.note(title, line)
        yield job, outcome


def make_copy(job: CopyJob) -> Outcome:
    """Encode a video, decode the copy again and compare; no file is left of a copy that fails.

    The copy is written under a partial name and renamed after the comparison. Nothing is raised.
    """
    try:
        return _checked_copy(job)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return Outcome(error=f"{error.strerror}", disk_full=True)
        said = str(error) if job.source in str(error) else f"{job.source}: {error!r}"
        return Outcome(error=said)
    finally:
        job.partial.unlink(missing_ok=True)


def _checked_copy(job: CopyJob) -> Outcome:
    how = job.settings
    job.target.parent.mkdir(parents=True, exist_ok=True)
    source = os.stat(job.source)  # noqa: PTH116
    facts = None
    if how.encoder == "h264":
        write_h264(job.source, job.partial, short_side=how.short_side, crf=how.quality, gop=how.gop)
        with open_video(job.partial) as video:
            compared = compare_h264(job.source, video, how.short_side)
            facts = video.facts
    else:
        compared = write_jpegs(
            job.source,
            job.partial,
            name=job.name,
            short_side=how.short_side,
            quality=how.quality,
        )
    errors, (height, width) = compared.errors, compared.size
    worst = psnr(max(errors))
    if worst < how.min_psnr:
        return Outcome(
            error=f"{job.source}: the worst frame of the copy has a PSNR of {worst:.1f} dB, below "
            f"the floor of {how.min_psnr:g}; choose a better quality, or a lower --min_psnr"
        )
    notes = []
    promised = promised_frames(job.source, len(errors))
    if line := cut_short(job.source, promised, len(errors)):
        notes.append(("truncated sources", f"{line}, which were copied"))
    tall, wide = compared.source_size
    if min(tall, wide) <= how.short_side and (tall, wide) != compared.size:
        line = f"{job.source}: {wide}x{tall} became {width}x{height}"
        notes.append(("last row or column left out, since H.264's sides are even", line))
    made = job.partial.stat()
    if facts is not None:
        facts = replace(
            facts,
            path=job.name,
            requested=READER,
            size=made.st_size,
            mtime_ns=made.st_mtime_ns,
        )
    copy = Copy(
        path=job.path,
        copy=job.name if facts is not None else "",
        source_bytes=source.st_size,
        source_mtime_ns=source.st_mtime_ns,
        bytes=made.st_size,
        frames=len(errors),
        width=width,
        height=height,
        psnr=psnr(float(np.mean(errors))),
        worst_psnr=worst,
    )
    job.partial.replace(job.target)
    return Outcome(copy, facts, notes=tuple(notes))


def load_table(out: Path) -> dict[str, Copy]:
    """Read the table: rows by source path, the latest of each."""
    kinds = [{"str": str, "int": int, "float": float}[str(field.type)] for field in fields(Copy)]
    rows: dict[str, Copy] = {}
    try:
        with (out / TABLE).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            for row in csv.reader(file):
                try:
                    values = [kind(text) for kind, text in zip(kinds, row, strict=True)]
                except ValueError:
                    continue  # the header, or a row that a kill cut short
                rows[str(values[0])] = Copy(*values)
    except FileNotFoundError:
        return {}
    return rows


def write_table(out: Path, copies: Iterable[Copy]) -> None:
    """Write the table, replacing it at once."""
    with (
        replaced(out / TABLE) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Copy)])
        writer.writerows(astuple(copy) for copy in copies)


def append_table(out: Path, copies: Iterable[Copy]) -> None:
    """Append rows; of two for one source the later one counts."""
    with (out / TABLE).open("a", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows(astuple(copy) for copy in copies)
