"""The file of a video index: segments of arrays, appended and mapped.

A segment is a `HEADER` of 64 bytes, then one array for each of `COLUMNS`, sorted by key, then the
texts of its rows one after the other, then the checks (uint64) of their frames; each begins at a
multiple of 8 bytes. The header is written last, when the rest is on disk: what a killed writer left
at the end is ignored, and cut off by the next one. Header and body have a digest (XXH3) each, which
is compared when a file is opened: a damaged body is left out, a damaged header with all after it.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import struct
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from vidadapt.files import held, replaced
from vidadapt.files import writing as refusing

MAGIC = b"vidadapt index 1"
HEADER = struct.Struct("<16s5Q8x")  # MAGIC, rows, bytes of text, checks, digest of body, of header
COLUMNS = {
    "key": "<u8",  # of the path and the requested reader
    "size": "<i8",
    "mtime_ns": "<i8",
    "num_frames": "<i8",
    "header_frames": "<i8",  # -1: not known
    "width": "<i8",
    "height": "<i8",
    "rotation": "<i8",
    "frame_rate": "<f8",  # nan: not known
    "duration": "<f8",  # nan: not known
    "digest": "<u8",  # of the checks
    "text_end": "<u8",  # within the segment's texts
    "checks_end": "<u8",  # within the segment's checks
}
OWN = HEADER.size - 16  # bytes of a header before its own digest
PIECE = 1 << 24  # bytes that are read at once
PATIENCE = 600.0  # seconds to wait for another process that writes the same index


class Segment(NamedTuple):
    """Place of a segment in its file, the sizes of its parts, and its body's digest."""

    start: int
    rows: int
    text: int
    checks: int
    digest: int

    @property
    def text_start(self) -> int:
        return self.start + HEADER.size + 8 * len(COLUMNS) * self.rows

    @property
    def checks_start(self) -> int:
        return self.text_start + self.text + -self.text % 8

    @property
    def end(self) -> int:
        return self.checks_start + 8 * self.checks

    def columns(self, content: Any) -> dict[str, np.ndarray]:
        """Columns (rows,) of the segment, in the mapped bytes of its file."""
        first, size = self.start + HEADER.size, 8 * self.rows
        return {
            name: np.frombuffer(content, kind, self.rows, first + place * size)
            for place, (name, kind) in enumerate(COLUMNS.items())
        }


class Table(NamedTuple):
    """Rows to be written, in the order of their keys.

    Attributes:
        columns: by the names of `COLUMNS`, (N,) each.
        texts: of each row.
        checks: (number of frames,) uint64 of each row.
    """

    columns: dict[str, np.ndarray]
    texts: Sequence[bytes]
    checks: Sequence[np.ndarray]

    @classmethod
    def of(
        cls, columns: Mapping[str, Any], texts: Sequence[bytes], checks: Sequence[np.ndarray]
    ) -> Table:
        """Make a table of columns, to which the ends of the texts and checks are added."""
        ends = {
            "text_end": np.cumsum([len(text) for text in texts]),
            "checks_end": np.cumsum([len(some) for some in checks]),
        }
        values = {**columns, **ends}
        arrays = {name: np.array(values[name], kind) for name, kind in COLUMNS.items()}
        return cls(arrays, texts, checks)


def with_segments(path: Path, segments: Sequence[Segment]) -> FileIO | None:
    """Open a file if its headers are those of these segments; else return None."""
    with contextlib.suppress(OSError):
        file = path.open("rb", buffering=0)
        heads = [os.pread(file.fileno(), HEADER.size, one.start) for one in segments]
        if [_header(head, s.start) for head, s in zip(heads, segments, strict=True)] == [*segments]:
            return file
        file.close()
    return None


def append(path: Path, table: Table) -> None:
    """Add a segment after the last whole one; on return it is on disk.

    Raises:
        OSError: the file cannot be written.
        ValueError: it does not begin as an index.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path):
        path.open("ab").close()
        with path.open("r+b", buffering=0) as file:
            _, end, _ = scanned(path, file, verify=False)
            file.truncate(end)
            if len(table.columns["key"]):
                file.seek(end)
                with refusing(path):
                    _write(file, table)


def locked(path: Path) -> AbstractContextManager[Any]:
    """Hold the lock of an index file; waits for another process that writes it."""
    return held(path, "data.index_dir", wait=PATIENCE)


def replace(path: Path, table: Table) -> None:
    """Replace a file by one segment, atomically; the caller holds its lock."""
    with replaced(path) as partial, partial.open("w+b", buffering=0) as file:
        _write(file, table)


def scanned(path: Path, file: FileIO, verify: bool) -> tuple[list[Segment], int, str]:
    """Segments of a file, where the next one may begin, and what is damaged, in words.

    Args:
        verify: compare the digests of bodies, too; segments that differ are left out.

    Raises:
        ValueError: it does not begin as an index.
    """
    size, at = os.fstat(file.fileno()).st_size, 0
    found: list[Segment] = []
    damage = []
    while at < size:
        head = os.pread(file.fileno(), HEADER.size, at)
        if at == 0 and not (head.startswith(MAGIC) or MAGIC.startswith(head) or not any(head)):
            raise ValueError(
                f"{path}: is no video index, or its beginning is damaged; delete it, and the "
                "videos are counted again"
            )
        if len(head) < HEADER.size or not any(head):
            break  # a writer was killed
        segment = _header(head, at)
        if segment is None or segment.end > size:
            damage.append(f"damaged from byte {at:,} on")
            break
        if verify and _digest_of(file, segment) != segment.digest:
            damage.append(f"{segment.rows:,} rows are damaged")
        else:
            found.append(segment)
        at = segment.end
    return found, at, ", ".join(damage)


def _header(head: bytes, start: int) -> Segment | None:
    """The segment that a header describes; None if it is no header, or damaged."""
    if len(head) < HEADER.size:
        return None
    magic, rows, text, checks, digest, own = HEADER.unpack(head)
    if magic != MAGIC or own != xxhash.xxh3_64_intdigest(head[:OWN]) or any(head[OWN + 8 :]):
        return None
    return Segment(start, rows, text, checks, digest)


def _digest_of(file: FileIO, segment: Segment) -> int:
    """Digest of a segment's body, which is read in pieces and not mapped."""
    digest = xxhash.xxh3_64()
    at = segment.start + HEADER.size
    while at < segment.end:
        piece = os.pread(file.fileno(), min(PIECE, segment.end - at), at)
        if not piece:
            return -1  # the file was cut meanwhile
        digest.update(piece)
        at += len(piece)
    return digest.intdigest()


def _write(file: FileIO, table: Table) -> None:
    """Write a segment at the file's position, the header last."""
    start, digest = file.tell(), xxhash.xxh3_64()
    columns = [np.ascontiguousarray(table.columns[name], kind) for name, kind in COLUMNS.items()]
    rows = len(columns[0])
    text, num_checks = (
        int(table.columns[name][-1]) if rows else 0 for name in ("text_end", "checks_end")
    )
    buffered = io.BufferedWriter(file, 1 << 20)
    buffered.write(bytes(HEADER.size))
    for part in itertools.chain(
        (column.tobytes() for column in columns),
        table.texts,
        [bytes(-text % 8)],
        (checks.tobytes() for checks in table.checks),
    ):
        digest.update(part)
        buffered.write(part)
    buffered.detach()  # flushes, and leaves the file open
    os.fsync(file.fileno())
    fields = MAGIC, rows, text, num_checks, digest.intdigest()
    own = xxhash.xxh3_64_intdigest(HEADER.pack(*fields, 0)[:OWN])
    os.pwrite(file.fileno(), HEADER.pack(*fields, own), start)
    os.fsync(file.fileno())
