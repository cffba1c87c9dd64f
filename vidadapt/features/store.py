"""Features of a list of clips in a folder: one large file a tensor, read as memory maps.

    key.json        what the features depend on, and the tensors' shapes and types; made before rows
    <tensor>.bin    the rows one after the other, little-endian, without a header
    checks.bin      a checksum a row, xxh3_64 of its bytes in all tensors, which each read compares
    done.bin        a byte a row: still to compute, there, or the video could not be read

A row is marked once it is on the disk, so that an interrupted filling continues with the rows that
are missing, and nothing half-written counts.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import xxhash
from torch import Tensor

KEY, CHECKS, DONE = "key.json", "checks.bin", "done.bin"
MISSING, THERE, UNREADABLE = 0, 0x5A, 0xA5  # no flipped bit turns one into another
FORMAT = "vidadapt-cache-2"
SECONDS_BETWEEN_MARKS = 10.0

# numpy has no bfloat16: its bits are handled as integers.
BITS = {torch.float32: "<f4", torch.float16: "<f2", torch.bfloat16: "<i2"}
NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
TYPES = {name: dtype for dtype, name in NAMES.items()}


class CacheError(ValueError):
    """A cache of features cannot be used, made or written as asked, naming key or folder."""


@dataclass(frozen=True)
class Kept:
    """One tensor of every row.

    Attributes:
        name: of its file.
        shape: of one row.
        computed, stored: `fp32`, `bf16` or `fp16`.
    """

    name: str
    shape: tuple[int, ...]
    computed: str
    stored: str

    @property
    def row_bytes(self) -> int:
        return prod(self.shape) * TYPES[self.stored].itemsize


@dataclass(frozen=True)
class Store:
    """What a folder holds, or is to hold.

    Attributes:
        folder: its own.
        key: what the features depend on: configuration key or fact -> value.
        num_rows: clips.
        tensors: of each row.
    """

    folder: Path
    key: dict[str, Any]
    num_rows: int
    tensors: tuple[Kept, ...]

    @property
    def bytes(self) -> int:
        return self.num_rows * sum(tensor.row_bytes for tensor in self.tensors)


def kept_as(names: Sequence[str], one_clip: Sequence[Tensor], dtype: str) -> tuple[Kept, ...]:
    """Return how tensors are stored: in the type they are computed in, but no wider than `dtype`.

    Args:
        one_clip: features of one clip, (1, ...) each.
        dtype: `fp32` or `bf16`.
    """
    return tuple(
        Kept(
            name,
            tuple(tensor.shape[1:]),
            NAMES[tensor.dtype],
            dtype if tensor.dtype == torch.float32 else NAMES[tensor.dtype],
        )
        for name, tensor in zip(names, one_clip, strict=True)
    )


def check_room(stores: Sequence[Store], folder: Path, max_gb: float) -> None:
    """Refuse caches above the bound, or that the disk has no room for.

    Raises:
        CacheError: with the size and what would make it smaller.
    """
    needed = sum(store.bytes for store in stores)
    smaller = (
        "lower cache.draws, take cache.dtype bf16, a smaller list, or leave cache.dir out to "
        "compute the features in every epoch"
    )
    if needed > max_gb * 1e9:
        raise CacheError(
            f"cache.max_gb: the features take {size(needed)}, which is above {max_gb:g} GB; raise "
            f"it, {smaller}"
        )
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    there = sum(
        file.stat().st_blocks * 512 for store in stores for file in store.folder.glob("*.bin")
    )
    free = shutil.disk_usage(nearest).free
    if needed - there > free:
        raise CacheError(
            f"cache.dir: the features take {size(needed - there)} more, and {folder} has "
            f"{size(free)} free; give a folder on another disk, {smaller}"
        )


def check_key(store: Store) -> None:
    """Refuse a folder that holds other features; one that holds none is accepted.

    Raises:
        CacheError: with every difference; or a file is not whole.
    """
    file = store.folder / KEY
    if not file.exists():
        return
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        old, new, form = found["key"], _description(store)["key"], found["format"]
        names = sorted(old.keys() | new.keys())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CacheError(f"{file}: damaged ({error!r}); delete {store.folder}") from error
    if form != FORMAT:
        raise CacheError(
            f"{file}: features in the format {form!r}, another version's; this one writes "
            f"{FORMAT}, with a checksum a row. Delete {store.folder}, and they are computed anew"
        )
    differing = [
        f"{name}: {old.get(name)!r} in the cache, {new.get(name)!r} here"
        for name in names
        if old.get(name) != new.get(name)
    ]
    if not differing and found != _description(store):
        differing = ["shapes or types of the features"]
    if differing:
        raise CacheError(
            f"cache.dir: {store.folder} holds features of another run; {'; '.join(differing)}. "
            "Use the same, give another cache.dir, or delete that folder"
        )
    for path, length in _files(store).items():
        if not path.exists() or path.stat().st_size != length:
            raise CacheError(f"{path}: is missing or not whole; delete {store.folder}")


def create(store: Store) -> None:
    """Make the folder and its files, empty, unless they are there.

    Raises:
        CacheError: the folder cannot be written, or another run has made it since it was checked,
            for other features.
    """
    if not (store.folder / KEY).exists():
        try:
            _make(store)
        except OSError as error:
            raise CacheError(f"cache.dir: cannot write to {store.folder} ({error})") from error
    check_key(store)


def marks(store: Store) -> np.ndarray:
    """(rows,) uint8: MISSING, THERE or UNREADABLE; all missing where there is no folder yet.

    Raises:
        CacheError: other marks are found.
    """
    if not (store.folder / KEY).exists():
        return np.full(store.num_rows, MISSING, np.uint8)
    found = np.fromfile(store.folder / DONE, np.uint8)
    if not np.isin(found, (MISSING, THERE, UNREADABLE)).all():
        raise CacheError(f"{store.folder / DONE}: damaged; delete {store.folder}")
    return found


class StoreWriter:
    """Writes rows into a store; several processes may, each its own rows. See `writing_rows`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.files: list[BinaryIO] = [
            (store.folder / f"{tensor.name}.bin").open("r+b") for tensor in store.tensors
        ]
        self.checks: BinaryIO = (store.folder / CHECKS).open("r+b")
        self.done: BinaryIO = (store.folder / DONE).open("r+b")
        self.unmarked: list[tuple[int, int]] = []
        self.marked = time.monotonic()

    def write(self, rows: Sequence[int], features: Sequence[Tensor]) -> None:
        """Write rows of features, (len(rows), ...) each, on any device.

        Raises:
            CacheError: the disk refused a write.
        """
        stored = [
            values.to(TYPES[tensor.stored]).cpu().contiguous()
            for tensor, values in zip(self.store.tensors, features, strict=True)
        ]
        with _refused(self.store):
            for tensor, file, values in zip(self.store.tensors, self.files, stored, strict=True):
                for row, value in zip(rows, _as_numpy(values), strict=True):
                    file.seek(row * tensor.row_bytes)
                    file.write(value.data)
            for row, check in zip(rows, _checksums(stored), strict=True):
                self.checks.seek(row * check.nbytes)
                self.checks.write(check.data)
        self._mark_later(rows, THERE)

    def unreadable(self, rows: Sequence[int]) -> None:
        """Note that the videos of rows could not be read."""
        self._mark_later(rows, UNREADABLE)

    def mark(self) -> None:
        """Flush everything written so far to the disk, then mark it.

        Raises:
            CacheError: the disk refused. What was written since the last call is never marked.
        """
        # Cleared first: after a failure Linux drops what it could not write, and a second fsync
        # does not report it.
        unmarked, self.unmarked = self.unmarked, []
        with _refused(self.store):
            for file in (*self.files, self.checks):
                file.flush()
                os.fsync(file.fileno())
            for row, value in unmarked:
                self.done.seek(row)
                self.done.write(bytes([value]))
            self.done.flush()
        self.marked = time.monotonic()

    def _mark_later(self, rows: Sequence[int], value: int) -> None:
        self.unmarked += [(row, value) for row in rows]
        if time.monotonic() - self.marked > SECONDS_BETWEEN_MARKS:
            self.mark()


@contextmanager
def writing_rows(store: Store) -> Iterator[StoreWriter]:
    """Yield a `StoreWriter`; what it has written is marked at the end, also after an error.

    Raises:
        CacheError: the disk refused a write.
    """
    with _refused(store):
        writer = StoreWriter(store)
    try:
        yield writer
    finally:
        with _refused(store):
            try:
                writer.mark()
            finally:
                for file in (*writer.files, writer.checks, writer.done):
                    file.close()


@contextmanager
def _refused(store: Store) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"cache.dir: cannot write to {store.folder} ({error}); make room, then start again: "
            "what is marked there is kept"
        ) from error


class Reader:
    """The rows of a store as memory maps."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.maps = [
            np.memmap(
                store.folder / f"{tensor.name}.bin",
                dtype=np.dtype(BITS[TYPES[tensor.stored]]),
                mode="r",
                shape=(store.num_rows, *tensor.shape),
            )
            for tensor in store.tensors
        ]
        self.checks = np.memmap(store.folder / CHECKS, "<u8", "r", shape=(store.num_rows,))

    def rows(self, chosen: Sequence[int], *, pin_memory: bool = False) -> tuple[Tensor, ...]:
        """Features (len(chosen), ...) in the stored types, on the CPU.

        Raises:
            CacheError: a row is not what was written. Its mark is removed, so that it is computed
                again when the training run is resumed.
        """
        gathered = []
        for tensor, rows in zip(self.store.tensors, self.maps, strict=True):
            values = torch.empty(
                (len(chosen), *tensor.shape),
                dtype=TYPES[tensor.stored],
                pin_memory=pin_memory,
            )
            # With mode "raise" numpy would make a copy; the rows are known to be there.
            np.take(rows, chosen, axis=0, out=_as_numpy(values), mode="clip")
            gathered.append(values)
        odd = np.flatnonzero(_checksums(gathered) != self.checks[list(chosen)])
        if len(odd):
            folder = self.store.folder
            with (folder / DONE).open("r+b") as done:
                for row in {chosen[place] for place in odd.tolist()}:
                    done.seek(row)
                    done.write(bytes([MISSING]))
            raise CacheError(
                f"{folder}: row {chosen[int(odd[0])]} is damaged (its checksum is another one); "
                "start again, with --resume where the run was begun: it is computed anew"
            )
        return tuple(gathered)

    def computed(self, features: Sequence[Tensor], device: torch.device) -> tuple[Tensor, ...]:
        """Return rows on a device, in the types that they were computed in."""
        return tuple(
            values.to(device, non_blocking=True).to(TYPES[tensor.computed])
            for tensor, values in zip(self.store.tensors, features, strict=True)
        )


def size(count: int) -> str:
    """Bytes for people.

    >>> size(2_500), size(31_000_000), size(7_250_000_000)
    ('2.5 kB', '31.0 MB', '7.2 GB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1e3:.1f} kB"


def _make(store: Store) -> None:
    store.folder.mkdir(parents=True, exist_ok=True)
    for path, length in _files(store).items():
        with path.open("wb") as file:
            file.truncate(length)
    # A name of its own, as several runs may start at once.
    temporary = store.folder / f"{KEY}.{socket.gethostname()}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(_description(store), indent=2) + "\n", encoding="utf-8")
    temporary.replace(store.folder / KEY)


def _description(store: Store) -> dict[str, Any]:
    """Return the content of key.json, as JSON reads it back."""
    about = {
        "format": FORMAT,
        "key": store.key,
        "num_rows": store.num_rows,
        "tensors": [asdict(tensor) for tensor in store.tensors],
    }
    return json.loads(json.dumps(about))


def _files(store: Store) -> dict[Path, int]:
    """The binary files with their lengths in bytes."""
    lengths = {
        store.folder / f"{tensor.name}.bin": store.num_rows * tensor.row_bytes
        for tensor in store.tensors
    }
    return {
        **lengths,
        store.folder / CHECKS: store.num_rows * 8,
        store.folder / DONE: store.num_rows,
    }


def _checksums(features: Sequence[Tensor]) -> np.ndarray:
    """(rows,) uint64, xxh3_64 of each row's bytes in all tensors, one after the other."""
    digests = [xxhash.xxh3_64() for _ in range(len(features[0]))]
    for values in features:
        rows = _as_numpy(values).reshape(len(digests), -1)
        for digest, row in zip(digests, rows, strict=True):
            digest.update(row.data)
    return np.array([digest.intdigest() for digest in digests], "<u8")


def _as_numpy(values: Tensor) -> np.ndarray:
    """The same memory as an array; bfloat16 as its bits."""
    return (values.view(torch.int16) if values.dtype == torch.bfloat16 else values).numpy()
