"""Copy videos one by one in processes of their own, and keep a table of the copies on disk.

`copies.csv` in the folder of copies is both the table that a person reads and the journal from
which a killed call is resumed: a row is added when a copy is whole.
"""

from __future__ import annotations

import csv
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from PIL import Image

from vidadapt.console.progress import track
from vidadapt.files.writing import NO_ROOM, replaced
from vidadapt.processes.isolated import run_isolated
from vidadapt.video import VideoFacts, all_frames, cut_short

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
class CopyJob:
    """A video to copy.

    Attributes:
        path: in the list.
        source: its file.
        name: of the copy: list path of a transcoded file, folder in the tar of a packed video.
        target: file to write.
        partial: file that it is written to first, on the same disk.
        short_side: of the copy in pixels; a smaller source is not enlarged.
        quality: of the encoder: H.264's CRF (less is better), JPEG's quality (more is better).
        gop: frames from one key frame to the next, of H.264.
        min_psnr: floor of the worst frame in dB.
    """

    path: str
    source: str
    name: str
    target: Path
    partial: Path
    short_side: int
    quality: int
    gop: int
    min_psnr: float


@dataclass(frozen=True)
class Outcome:
    """Result of a job.

    Attributes:
        copy: the copy; None if there is none.
        count: what a reader finds in it, as the video index keeps it.
        error: why there is no copy.
        disk_full: there is no room to write it, which holds for all other jobs, too.
        notes: (title, line) of what is worth knowing about the source and its copy.
    """

    copy: Copy | None
    count: VideoFacts | None
    error: str = ""
    disk_full: bool = False
    notes: tuple[tuple[str, str], ...] = ()


def run_jobs(
    jobs: Sequence[CopyJob],
    function: Callable[[CopyJob], Outcome],
    out: Path,
    *,
    num_processes: int,
    time_limit: float,
    progress: bool,
) -> Iterator[tuple[CopyJob, Outcome]]:
    """Make copies and add each to the table as soon as it is whole, in any order.

    Args:
        function: makes one copy, importable by name; it raises nothing.
        time_limit: seconds after which one copy counts as hung.

    Raises:
        OSError: the disk is full; says how many videos are left.
    """
    results = run_isolated(function, jobs, num_processes, time_limit)
    shown = track(results, total=len(jobs), label=f"copy to {out}", unit="videos", shown=progress)
    for done, (job, result, death) in enumerate(shown):
        outcome = result or Outcome(None, None, f"{job.source}: {death}")
        if outcome.disk_full:
            left = len(jobs) - done
            raise OSError(errno.ENOSPC, f"{outcome.error}; {left} of {len(jobs)} videos are left")
        if outcome.copy is not None:
            append_table(out, [outcome.copy])
        yield job, outcome


def time_limit(jobs: Iterable[CopyJob]) -> float:
    """Seconds within which any of these copies is made unless something hangs.

    Ten minutes, plus what the largest file takes at 100 kB a second.
    """
    return 600 + max((Path(job.source).stat().st_size for job in jobs), default=0) / 100_000


def measured(
    job: CopyJob,
    copy: str,
    source: os.stat_result,
    errors: Sequence[float],
    size: tuple[int, ...],
) -> Copy:
    """Return the row of a copy that is at the job's partial path.

    Args:
        copy: its list path.
        source: of the source before it was read.
        errors: mean squared error of each frame.
        size: height and width in pixels; further values are ignored.
    """
    return Copy(
        path=job.path,
        copy=copy,
        source_bytes=source.st_size,
        source_mtime_ns=source.st_mtime_ns,
        bytes=job.partial.stat().st_size,
        frames=len(errors),
        width=size[1],
        height=size[0],
        psnr=psnr(float(np.mean(errors))),
        worst_psnr=psnr(max(errors)),
    )


def of_truncated(source: str, promised: int | None, decoded: int) -> tuple[tuple[str, str], ...]:
    """The note on a source that its header says is longer; none if it is whole."""
    line = cut_short(source, promised, decoded)
    return (("truncated sources", f"{line}, which were copied"),) if line else ()


def failed(job: CopyJob, error: Exception) -> Outcome:
    """The outcome of a job that raised."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return Outcome(None, None, f"{error.strerror}", disk_full=True)
    told = str(error) if job.source in str(error) else f"{job.source}: {error!r}"
    return Outcome(None, None, told)


def scaled_frames(source: str, size: Callable[[int, int], tuple[int, int]]) -> Iterator[np.ndarray]:
    """Yield all frames (H, W, 3) uint8 of a video in the size of its copy.

    Args:
        size: the copy's height and width from the source's. If each side stays or gets one pixel
            smaller, the frame is cut; any other change scales it, with Pillow's bicubic filter,
            which smooths before it drops pixels.
    """
    for frame in all_frames(source):
        height, width = size(*frame.shape[:2])
        if frame.shape[0] - height in (0, 1) and frame.shape[1] - width in (0, 1):
            yield np.ascontiguousarray(frame[:height, :width])
        else:
            image = Image.fromarray(np.ascontiguousarray(frame))
            yield np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def fitted(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width scaled in proportion to this short side; nothing is enlarged.

    >>> fitted(240, 426, 256), fitted(1080, 1920, 256), fitted(1921, 1080, 256)
    ((240, 426), (256, 455), (455, 256))
    """
    short = min(height, width)
    if short <= short_side:
        return height, width
    return round(height * short_side / short), round(width * short_side / short)


def squared_error(a: np.ndarray, b: np.ndarray) -> float:
    """Mean squared error of two frames (H, W, 3) uint8.

    Raises:
        ValueError: they differ in size.
    """
    if a.shape != b.shape:
        raise ValueError(f"a frame of {a.shape[1]}x{a.shape[0]} became {b.shape[1]}x{b.shape[0]}")
    difference = (a.astype(np.float32) - b).ravel()
    return float(np.dot(difference, difference)) / difference.size


def psnr(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB of 8-bit values, to two digits; inf without error.

    >>> psnr(65025 / 10**4), psnr(0)
    (40.0, inf)
    """
    if mean_squared_error == 0:
        return float("inf")
    return round(float(10 * np.log10(255**2 / mean_squared_error)), 2)


def below_floor(job: CopyJob, worst: float) -> str:
    """Why a copy is not good enough; empty if it is."""
    if worst >= job.min_psnr:
        return ""
    return (
        f"{job.source}: the worst frame of the copy has a PSNR of {worst:.1f} dB, below the floor "
        f"of {job.min_psnr:g}; choose a better quality, or a lower --min-psnr"
    )


def load_table(out: Path) -> dict[str, Copy]:
    """Rows by source path, the latest of each."""
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
