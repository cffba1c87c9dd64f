"""Files of what an evaluation has scored so far, so that it can be resumed.

Each process appends to a file of its own, in a folder beside the results:

    rank<r>-<n>.part    records, of which the first says what the scores depend on

A record is two little-endian uint32, the length of its content and zlib's CRC-32 of it, and the
content. A video's is its place in the list (int64), a byte that says whether it could be read,
and its logits (V, K) as float32, or why not (UTF-8). A later process never appends to a file, so
nothing follows a half-written record, which its CRC shows.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vidadapt.distributed import World, gather_objects, together
from vidadapt.files.writing import unwritten

# Place in the list, logits (V, K) or None, why it could not be read.
Entry = tuple[int, np.ndarray | None, str]

# At most so much work is lost when the process is killed. A write takes milliseconds, and one copy
# from the device, which waits for it.
SECONDS_BETWEEN_WRITES = 10.0

FORMAT = "vidadapt-parts-1"
FRAME, VIDEO = struct.Struct("<II"), struct.Struct("<q?")


class PartsError(ValueError):
    """Parts of another evaluation, which cannot be used; names the folder."""


@dataclass(frozen=True)
class Scoring:
    """What is being scored, and where.

    Attributes:
        settings: JSON-able facts that the scores depend on, by name.
        machine: device and versions, which may change the last bits.
        num_videos, num_views, num_classes: N, V, K.
    """

    settings: dict[str, Any]
    machine: str
    num_videos: int
    num_views: int
    num_classes: int


class Parts:
    """Scores of earlier processes, and a file for those of this one. See `take_up`.

    Attributes:
        done: entries of earlier processes that this one returns with its own; each belongs to
            exactly one process.
        left: places in the list of the videos not yet scored, the same in all processes.
        warnings: on entries from other machines and on reads that were tried again.
    """

    def __init__(
        self,
        folder: Path,
        job: Scoring,
        rank: int,
        done: list[Entry],
        left: list[int],
        warnings: list[str],
    ) -> None:
        self.done, self.left, self.warnings = done, left, warnings
        self._folder, self._job, self._rank = folder, job, rank
        self._file: BinaryIO | None = None
        self._written = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to `keep` what has been scored since the last call."""
        return time.monotonic() - self._written > SECONDS_BETWEEN_WRITES

    def keep(self, entries: Sequence[Entry]) -> None:
        """Write entries to the disk.

        Raises:
            WriteError: the disk refused; what was kept before is unharmed.
        """
        if entries:
            try:
                if self._file is None:
                    self._file = self._new_file()
                self._file.write(b"".join(_record(_content(entry)) for entry in entries))
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError as error:
                raise unwritten(self._folder, error) from error
        self._written = time.monotonic()

    def remove(self) -> None:
        """Delete the folder: the results are written."""
        if self._file is not None:
            self._file.close()
            self._file = None
        # Every process does, as each may have its own disk; on a shared disk one is the first.
        shutil.rmtree(self._folder, ignore_errors=True)

    def _new_file(self) -> BinaryIO:
        self._folder.mkdir(parents=True, exist_ok=True)
        taken = {path.name for path in self._folder.iterdir()}
        number = next(n for n in range(len(taken) + 1) if _name(self._rank, n) not in taken)
        file = (self._folder / _name(self._rank, number)).open("xb")
        file.write(_record(json.dumps({"format": FORMAT, **vars(self._job)}).encode()))
        return file


def take_up(folder: Path, job: Scoring, world: World) -> Parts:
    """Resume from the parts in a folder, or begin if there are none; all processes call it.

    All processes may see the same folder, or each machine its own.

    Raises:
        PartsError: it holds parts of another evaluation; names every difference.
    """
    with together(world):
        found, damaged = _read(folder, job)
    held = gather_objects(world, set(found))
    machines = set(gather_objects(world, job.machine))
    mine = {
        index: entry
        for index, entry in found.items()
        if not any(index in others for others in held[: world.rank])
    }
    elsewhere: Counter[str] = Counter()
    for counted in gather_objects(world, Counter(machine for machine, _ in mine.values())):
        elsewhere.update(counted)
    warnings = [
        f"{number} videos were scored on {machine} before the evaluation was continued on "
        f"{', '.join(sorted(machines))}: their scores may differ in the last bits"
        for machine, number in sorted(elsewhere.items())
        if machine not in machines
    ]
    known = set().union(*held)
    left = [index for index in range(job.num_videos) if index not in known]
    if world.is_main:
        for line in [*damaged, *(f"warning: {line}" for line in warnings)]:
            print(line, flush=True)
        if known:
            print(
                f"going on with {folder}: {len(known)} of {job.num_videos} videos are scored",
                flush=True,
            )
    return Parts(folder, job, world.rank, [entry for _, entry in mine.values()], left, warnings)


def _read(folder: Path, job: Scoring) -> tuple[dict[int, tuple[str, Entry]], list[str]]:
    """Place in the list -> (machine, entry); and a line on each damaged file."""
    found: dict[int, tuple[str, Entry]] = {}
    damaged = []
    for path in sorted(folder.glob("*.part")):
        content = path.read_bytes()
        used = 0
        about = None
        for payload in _payloads(content):
            if about is None:
                about = _about(payload)
                if about is None:
                    break
                _check_same(folder, about, job)
            else:
                entry = _entry(payload, job)
                if entry is None:
                    break
                found.setdefault(entry[0], (about["machine"], entry))
            used += FRAME.size + len(payload)
        if used < len(content):
            damaged.append(
                f"{path}: {len(content) - used} of {len(content)} bytes, at its end, are "
                "half-written or damaged; the videos in them are scored again"
            )
    return found, damaged


def _payloads(content: bytes) -> Iterator[bytes]:
    """The contents of the records before the first damaged one."""
    place = 0
    while place + FRAME.size < len(content):
        length, checksum = FRAME.unpack_from(content, place)
        place += FRAME.size
        payload = content[place : place + length]
        place += length
        # A crash may leave zeros, which would pass for empty records.
        if not payload or len(payload) < length or zlib.crc32(payload) != checksum:
            return
        yield payload


def _about(payload: bytes) -> dict[str, Any] | None:
    """The first record of a file; None if it is damaged."""
    try:
        about = json.loads(payload)
    except ValueError:
        return None
    of_job = {"format", *Scoring.__dataclass_fields__}
    return about if isinstance(about, dict) and about.keys() == of_job else None


def _check_same(folder: Path, about: dict[str, Any], job: Scoring) -> None:
    now = json.loads(json.dumps({"format": FORMAT, **vars(job)}))
    old, new = (
        {
            **facts["settings"],
            **{k: v for k, v in facts.items() if k not in ("settings", "machine")},
        }
        for facts in (about, now)
    )
    differing = [
        f"{name}: {old.get(name)!r} there, {new.get(name)!r} here"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if differing:
        raise PartsError(
            f"--out: {folder} holds parts of another evaluation, which was stopped; "
            f"{'; '.join(differing)}. Give the same to go on with it, choose another --out, or "
            "delete that folder"
        )


def _entry(payload: bytes, job: Scoring) -> Entry | None:
    """The entry in a record; None if it cannot be of this evaluation."""
    if len(payload) < VIDEO.size:
        return None
    index, readable = VIDEO.unpack_from(payload)
    body = payload[VIDEO.size :]
    if not 0 <= index < job.num_videos:
        return None
    if not readable:
        try:
            return index, None, body.decode()
        except UnicodeDecodeError:
            return None
    if len(body) != 4 * job.num_views * job.num_classes:
        return None
    logits = np.frombuffer(body, "<f4").reshape(job.num_views, job.num_classes)
    return index, logits, ""


def _content(entry: Entry) -> bytes:
    index, logits, error = entry
    if logits is None:
        return VIDEO.pack(index, False) + error.encode()
    return VIDEO.pack(index, True) + logits.astype("<f4", copy=False).tobytes()


def _record(payload: bytes) -> bytes:
    return FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def _name(rank: int, number: int) -> str:
    return f"rank{rank}-{number}.part"
