"""Copy a set of videos: keep the copies that are there already, and make the rest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidadapt.apps.prepare.copied_lists import Originals, copy_names
from vidadapt.apps.prepare.copies import (
    Copy,
    CopyJob,
    Outcome,
    Settings,
    append_table,
    load_table,
    make_copy,
    run_jobs,
    write_table,
)
from vidadapt.apps.prepare.encoders import write_shard
from vidadapt.apps.prepare.report import Report
from vidadapt.files import NO_ROOM, WriteError, held, replaced
from vidadapt.video import VideoFacts, file_of, tar_and_name

CLAIM = "copy.json"
PARTIAL = ".partial"  # folder of unfinished files
PARTS = "parts"
SHARDS = "shards"


@contextlib.contextmanager
def claimed(out: Path, claim: dict[str, Any], beside: Collection[str] = ()) -> Iterator[None]:
    """Lock the folder of copies for one call, which continues what an earlier one left unfinished.

    Args:
        beside: names that may be in the folder before.

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
        if out.exists() and any(path.name not in beside for path in out.iterdir()):
            raise FileExistsError(f"{out} is not empty and holds no {CLAIM}: choose another folder")
        out.mkdir(parents=True, exist_ok=True)
        with replaced(record) as partial:
            partial.write_text(json.dumps(claim, indent=2) + "\n", encoding="utf-8")
    with held(record, "--out"):
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


def copy_set(
    originals: Originals,
    out: Path,
    settings: Settings,
    report: Report,
    *,
    num_processes: int,
    progress: bool,
) -> tuple[dict[str, Copy], dict[str, VideoFacts]]:
    """Copy every listed video, to an H.264 file or to JPEG frames in tar files.

    Returns:
        The copies by source path, in the order of the lists; what is known of the H.264 files that
        were made in this call, by their list paths.

    Raises:
        WriteError: the disk is full, see `claimed`.
    """
    rows = load_table(out)
    copies: dict[str, Copy] = {}
    facts: dict[str, VideoFacts] = {}
    parts: dict[str, Copy | None] = {}
    unfinished, todo = [], []
    for job in _jobs(originals, out, settings, report):
        row = _earlier(rows.get(job.path), job, out)
        if row is not None and row.copy:
            copies[job.path] = row
            continue
        unfinished.append(job)
        if row is not None:
            parts[job.path] = row
        else:
            todo.append(job)
    results = run_jobs(
        todo,
        make_copy,
        out,
        report,
        num_processes=num_processes,
        time_limit=_time_limit(todo),
        progress=progress,
    )
    if settings.encoder == "jpeg":
        copies |= _pack(_in_order(unfinished, parts, results), out, settings.shard_bytes)
        shutil.rmtree(out / PARTS, ignore_errors=True)
    else:
        for job, outcome in results:
            if outcome.copy is not None and outcome.facts is not None:
                copies[job.path], facts[job.name] = outcome.copy, outcome.facts
    copies = {path: copies[path] for path in originals.paths if path in copies}
    write_table(out, copies.values())
    return copies, facts


def _jobs(originals: Originals, out: Path, settings: Settings, report: Report) -> list[CopyJob]:
    """Return a job for every listed video that has a file; report the others as problems."""
    jobs = []
    suffix = ".mp4" if settings.encoder == "h264" else ""
    for path, name in copy_names(originals.paths, originals.root, suffix or None).items():
        source = originals.root / path
        key = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        if tar_and_name(source) is not None:
            report.problem("packed videos are not copied again", f"{path}: list its source")
        elif not source.is_file():
            report.problem("videos without a file", str(source))
        else:
            target = out / name if suffix else out / PARTS / key
            partial = out / PARTIAL / f"{key}{suffix}"
            jobs.append(CopyJob(path, str(source), name, target, partial, settings))
    return jobs


def _earlier(row: Copy | None, job: CopyJob, out: Path) -> Copy | None:
    """Return what an earlier call made of a job, if it fits the source and is good enough.

    A copy has a list path, a part that is in no shard yet has none.
    """
    if row is None or row.worst_psnr < job.settings.min_psnr:
        return None
    source = os.stat(job.source)  # noqa: PTH116
    if (source.st_size, source.st_mtime_ns) != (row.source_bytes, row.source_mtime_ns):
        return None
    if job.settings.encoder == "jpeg" and row.copy and Path(file_of(out / row.copy)).is_file():
        return row
    if not job.target.is_file() or job.target.stat().st_size != row.bytes:
        return None
    return replace(row, copy="" if job.settings.encoder == "jpeg" else job.name)


def _time_limit(jobs: Iterable[CopyJob]) -> float:
    """Return seconds within which any of these copies is made unless something hangs.

    Ten minutes, plus what the largest file takes at 100 kB a second.
    """
    return 600 + max((Path(job.source).stat().st_size for job in jobs), default=0) / 100_000


def _in_order(
    jobs: Sequence[CopyJob],
    parts: dict[str, Copy | None],
    results: Iterator[tuple[CopyJob, Outcome]],
) -> Iterator[tuple[CopyJob, Copy]]:
    """Yield jobs and their parts in the order of `jobs`, each once all before it have ended.

    Args:
        parts: those that are made already, by source path.
        results: of the other jobs, in any order; those that failed are left out.
    """
    for job in jobs:
        while job.path not in parts:
            ended, outcome = next(results)
            parts[ended.path] = outcome.copy
        part = parts[job.path]
        if part is not None:
            yield job, part


def _pack(parts: Iterable[tuple[CopyJob, Copy]], out: Path, shard_bytes: int) -> dict[str, Copy]:
    """Join parts to shards in their order; return the copies by source path."""
    copies: dict[str, Copy] = {}
    batch: list[tuple[CopyJob, Copy]] = []
    size = 0
    for job, part in parts:
        if batch and size + part.bytes > shard_bytes:
            copies |= _write_batch(batch, out)
            batch, size = [], 0
        batch.append((job, part))
        size += part.bytes
    return copies | _write_batch(batch, out)


def _write_batch(batch: Sequence[tuple[CopyJob, Copy]], out: Path) -> dict[str, Copy]:
    """Write one shard, and delete its parts."""
    if not batch:
        return {}
    number = 1 + max((int(tar.stem) for tar in (out / SHARDS).glob("*.tar")), default=-1)
    shard = f"{SHARDS}/{number:05d}.tar"
    made = {job.path: replace(part, copy=f"{shard}/{job.name}") for job, part in batch}
    append_table(out, made.values())  # before the shard: a kill leaves its parts valid
    write_shard(out / shard, [job.target for job, _ in batch])
    for job, _ in batch:
        job.target.unlink()
    return made
