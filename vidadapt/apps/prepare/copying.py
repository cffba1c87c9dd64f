"""Copy a set of videos: keep the copies that are there already, and make the rest."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidadapt.apps.prepare.copies import (
    Copy,
    CopyJob,
    Outcome,
    append_table,
    load_table,
    run_jobs,
    time_limit,
    write_table,
)
from vidadapt.apps.prepare.pack import pack_video, write_shard
from vidadapt.apps.prepare.report import Report
from vidadapt.apps.prepare.sources import Sources, copy_names
from vidadapt.apps.prepare.transcode import transcode_video
from vidadapt.files.locks import Held
from vidadapt.files.writing import NO_ROOM, WriteError
from vidadapt.video import VideoFacts, file_of, open_video, tar_and_name

CLAIM = "copy.json"
PARTIAL = ".partial"  # folder of unfinished files
PARTS = "parts"
SHARDS = "shards"


@dataclass(frozen=True)
class Settings:
    """How videos are copied, see `CopyJob`; a shard exceeds `shard_bytes` only with one video."""

    short_side: int
    quality: int
    min_psnr: float
    gop: int = 0
    shard_bytes: int = 0


@dataclass(frozen=True)
class Copied:
    """Result of a copy.

    Attributes:
        copies: by source path, in the order of the lists.
        counts: frame counts of copies, by the copy's list path; where copies are files of their
            own, only of those made in this call.
    """

    copies: dict[str, Copy]
    counts: dict[str, VideoFacts]


@contextlib.contextmanager
def claimed(out: Path, claim: dict[str, Any]) -> Iterator[None]:
    """Lock the folder of copies for one call, which continues what an earlier one left unfinished.

    Raises:
        FileExistsError: it holds something else, or copies made with other settings.
        Held: another process is copying to it.
        WriteError: the disk is full; says how much is done, and that the next call continues.
    """
    record = out / CLAIM
    if record.exists():
        found = json.loads(record.read_text(encoding="utf-8"))
        differing = [key for key in {**claim, **found} if claim.get(key) != found.get(key)]
        if differing:
            raise FileExistsError(
                f"{out} holds copies made with other settings ({', '.join(sorted(differing))}): "
                "choose another folder, or delete this one to make them anew"
            )
    else:
        if out.exists() and any(out.iterdir()):
            raise FileExistsError(f"{out} is not empty and holds no {CLAIM}: choose another folder")
        out.mkdir(parents=True, exist_ok=True)
        partial = out / f".{CLAIM}.partial"
        partial.write_text(json.dumps(claim, indent=2) + "\n", encoding="utf-8")
        partial.replace(record)
    with record.open(encoding="utf-8") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Held(f"{out}: another process is copying to this folder") from error
        try:
            shutil.rmtree(out / PARTIAL, ignore_errors=True)
            (out / PARTIAL).mkdir()
            yield
            shutil.rmtree(out / PARTIAL)
        except OSError as error:
            if not {error.errno, getattr(error.__cause__, "errno", None)} & NO_ROOM:
                raise
            raise WriteError(
                f"the disk is full: {len(load_table(out))} videos are copied to {out} so far; free "
                f"some space and give the same command again, which goes on from there "
                f"({error.strerror or error})"
            ) from error


def transcode_set(
    sources: Sources,
    out: Path,
    settings: Settings,
    report: Report,
    *,
    num_processes: int,
    progress: bool,
) -> Copied:
    """Copy every listed video to an H.264 file of its own.

    Raises:
        WriteError: the disk is full, see `claimed`.
    """
    rows = load_table(out)
    copies: dict[str, Copy] = {}
    jobs = []
    for job in _jobs(sources, out, settings, ".mp4", report):
        row = rows.get(job.path)
        if row and row.copy == job.name and _holds(row, job) and _size(job.target) == row.bytes:
            copies[job.path] = row
        else:
            jobs.append(job)
    counts: dict[str, VideoFacts] = {}
    for job, outcome in _run(jobs, transcode_video, out, report, num_processes, progress):
        if outcome.copy is not None and outcome.count is not None:
            copies[job.path] = outcome.copy
            counts[job.name] = outcome.count
    return _finished(sources, out, copies, counts)


def pack_set(
    sources: Sources,
    out: Path,
    settings: Settings,
    report: Report,
    *,
    num_processes: int,
    progress: bool,
) -> Copied:
    """Copy every listed video to JPEG frames in tar files.

    A shard is written once each video before its end is made or has failed; then its parts go.

    Raises:
        WriteError: the disk is full, see `claimed`.
    """
    rows = load_table(out)
    copies: dict[str, Copy] = {}
    parts: dict[str, Copy] = {}
    waiting: deque[CopyJob] = deque()  # in the order of the lists
    jobs = []
    for job in _jobs(sources, out, settings, None, report):
        row = rows.get(job.path)
        if row and row.copy and _holds(row, job) and file_of(out / row.copy).is_file():
            copies[job.path] = row
            continue
        waiting.append(job)
        if row and _holds(row, job) and _size(job.target) == row.bytes:
            parts[job.path] = row
        else:
            jobs.append(job)
    open_jobs = {job.path for job in jobs}
    number = 1 + max((int(tar.stem) for tar in (out / SHARDS).glob("*.tar")), default=-1)
    batch: list[CopyJob] = []
    batch_bytes = 0

    def close_batch() -> None:
        nonlocal number, batch_bytes
        shard = f"{SHARDS}/{number:05d}.tar"
        made = {j.path: replace(parts[j.path], copy=f"{shard}/{j.name}") for j in batch}
        append_table(out, made.values())  # before the shard: a kill leaves its parts valid
        write_shard(out / shard, [job.target for job in batch])
        for job in batch:
            job.target.unlink()
        copies.update(made)
        batch.clear()
        batch_bytes = 0
        number += 1

    def settle() -> None:
        nonlocal batch_bytes
        while waiting and waiting[0].path not in open_jobs:
            job = waiting.popleft()
            if job.path not in parts:
                continue
            if batch and batch_bytes + parts[job.path].bytes > settings.shard_bytes:
                close_batch()
            batch.append(job)
            batch_bytes += parts[job.path].bytes

    settle()
    for job, outcome in _run(jobs, pack_video, out, report, num_processes, progress):
        open_jobs.remove(job.path)
        if outcome.copy is not None:
            parts[job.path] = outcome.copy
        settle()
    if batch:
        close_batch()
    shutil.rmtree(out / PARTS, ignore_errors=True)
    counts = {}
    for copy in copies.values():
        with open_video(out / copy.copy) as video:
            counts[copy.copy] = replace(video.facts, path=copy.copy)
    return _finished(sources, out, copies, counts)


def _finished(
    sources: Sources, out: Path, copies: dict[str, Copy], counts: dict[str, VideoFacts]
) -> Copied:
    ordered = {path: copies[path] for path in sources.paths if path in copies}
    write_table(out, ordered.values())
    return Copied(ordered, counts)


def _jobs(
    sources: Sources, out: Path, settings: Settings, suffix: str | None, report: Report
) -> list[CopyJob]:
    """Return a job for every listed video that has a file; report the others as problems."""
    jobs = []
    for path, name in copy_names(sources.paths, sources.root, suffix).items():
        source = sources.root / path
        key = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        if tar_and_name(source) is not None:
            report.problem("packed videos are not copied again", f"{path}: list its source")
        elif not source.is_file():
            report.problem("videos without a file", str(source))
        else:
            job = CopyJob(
                path=path,
                source=str(source),
                name=name,
                target=out / name if suffix else out / PARTS / key,
                partial=out / PARTIAL / (key + (suffix or "")),
                short_side=settings.short_side,
                quality=settings.quality,
                gop=settings.gop,
                min_psnr=settings.min_psnr,
            )
            jobs.append(job)
    return jobs


def _run(
    jobs: Sequence[CopyJob],
    function: Callable[[CopyJob], Outcome],
    out: Path,
    report: Report,
    num_processes: int,
    progress: bool,
) -> Iterator[tuple[CopyJob, Outcome]]:
    for job, outcome in run_jobs(
        jobs,
        function,
        out,
        num_processes=num_processes,
        time_limit=time_limit(jobs),
        progress=progress,
    ):
        if outcome.error:
            report.problem("videos that were not copied", outcome.error)
        for title, line in outcome.notes:
            report.note(title, line)
        yield job, outcome


def _holds(row: Copy, job: CopyJob) -> bool:
    """Whether an earlier copy still fits this source, and is good enough."""
    facts = os.stat(job.source)  # noqa: PTH116
    now = (facts.st_size, facts.st_mtime_ns)
    return now == (row.source_bytes, row.source_mtime_ns) and row.worst_psnr >= job.min_psnr


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None
