"""Features of a list of clips in a folder: NumPy arrays that are read as memory maps.

    key.json     what the features depend on, and the tensors' shapes and types; made before rows
    rows.npy     a record a row: its tensors, and `check`, xxh3_64 of them, which each read compares
    marks.npy    a byte a row: still to compute, there, or the video could not be read

A row is marked once it is on the disk, so that an interrupted filling continues with the rows that
are missing, and nothing half-written counts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.lib.format import open_memmap
from torch import Tensor

from vidadapt.console import differing
from vidadapt.files import write_json

KEY, ROWS, MARKS = "key.json", "rows.npy", "marks.npy"
MISSING, THERE, UNREADABLE = 0, 0x5A, 0xA5  # no flipped bit turns one into another
FORMAT = "vidadapt-cache-3"
SECONDS_BETWEEN_MARKS = 10.0

# numpy has no bfloat16: its bits are handled as integers.
BITS = {"fp64": "<f8", "fp32": "<f4", "fp16": "<f2", "bf16": "<i2"}
TYPES = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
NAMES = {dtype: name for name, dtype in TYPES.items()}


class CacheError(ValueError):
    """A cache of features cannot be used, made or written as asked, naming key or folder."""


@dataclass(frozen=True)
class Kept:
    """One tensor of every row.

    Attributes:
        name: of its field in a record.
        shape: of one row.
        computed, stored: key of `TYPES`.
    """

    name: str
    shape: tuple[int, ...]
    computed: str
    stored: str


@dataclass(frozen=True)
class Store:
    """Content of a folder, or what it is to hold.

    Attributes:
        folder: its own.
        key: what the features depend on: configuration key or fact -> value.
        num_rows: clips.
        tensors: of each row.
        option: that names the folder, for messages.
    """

    folder: Path
    key: dict[str, Any]
    num_rows: int
    tensors: tuple[Kept, ...]
    option: str = "cache.dir"

    @property
    def record(self) -> np.dtype:
        """Type of a row: `check`, then the tensors."""
        fields = [(tensor.name, BITS[tensor.stored], tensor.shape) for tensor in self.tensors]
        return np.dtype([("check", "<u8"), *fields])

    @property
    def bytes(self) -> int:
        return self.num_rows * self.record.itemsize


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
        differences = differing(old, new, "{key}: {old!r} in the cache, {new!r} here")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CacheError(f"{file}: damaged ({error!r}); delete {store.folder}") from error
    if form != FORMAT:
        raise CacheError(
            f"{file}: features in the format {form!r}, another version's; this one writes "
            f"{FORMAT}. Delete {store.folder}, and they are computed anew"
        )
    if not differences and found != _description(store):
        differences = ["shapes or types of the features"]
    if differences:
        raise CacheError(
            f"{store.option}: {store.folder} holds features of another run; "
            f"{'; '.join(differences)}. "
            f"Use the same, give another {store.option}, or delete that folder"
        )
    for name in (ROWS, MARKS):
        mapped(store, name)


def mapped(store: Store, name: str) -> np.memmap:
    """Map `ROWS` (rows,) of `Store.record`, or `MARKS` (rows,) uint8, to be read.

    Raises:
        CacheError: there is no such array in the file.
    """
    path = store.folder / name
    try:
        found = open_memmap(path, mode="r")
    except Exception as error:  # NumPy's parser of headers may fail in any way
        raise CacheError(f"{path}: is missing or not whole; delete {store.folder}") from error
    wanted = store.record if name == ROWS else np.dtype(np.uint8)
    if found.dtype != wanted or found.shape != (store.num_rows,):
        raise CacheError(f"{path}: is damaged; delete {store.folder}")
    return found


def create(store: Store) -> None:
    """Make the folder and its files, empty, unless they are there.

    Raises:
        CacheError: the folder cannot be written, or another run has made it since it was checked,
            for other features.
    """
    if not (store.folder / KEY).exists():
        try:
            store.folder.mkdir(parents=True, exist_ok=True)
            open_memmap(store.folder / ROWS, "w+", store.record, (store.num_rows,))
            open_memmap(store.folder / MARKS, "w+", np.uint8, (store.num_rows,))
            write_json(store.folder / KEY, _description(store))
        except OSError as error:
            raise CacheError(f"{store.option}: cannot write to {store.folder} ({error})") from error
    check_key(store)


def marks(store: Store) -> np.ndarray:
    """(rows,) uint8: MISSING, THERE or UNREADABLE; all missing where there is no folder yet.

    Raises:
        CacheError: other marks are found.
    """
    if not (store.folder / KEY).exists():
        return np.full(store.num_rows, MISSING, np.uint8)
    found = np.array(mapped(store, MARKS))
    if not np.isin(found, (MISSING, THERE, UNREADABLE)).all():
        raise CacheError(f"{store.folder / MARKS}: damaged; delete {store.folder}")
    return found


class StoreWriter:
    """Writes rows into a store; several processes may, each its own rows. See `writing_rows`.

    Not through the memory maps: where the disk is full, that would end the process with a signal.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.starts = {name: mapped(store, name).offset for name in (ROWS, MARKS)}
        self.files = {name: (store.folder / name).open("r+b") for name in (ROWS, MARKS)}
        self.unmarked: list[tuple[int, int]] = []
        self.marked = time.monotonic()

    def write(self, rows: Sequence[int], features: Sequence[Tensor]) -> None:
        """Write rows of features, (len(rows), ...) each, on any device.

        Raises:
            CacheError: the disk refused a write.
        """
        records = np.empty(len(rows), self.store.record)
        for tensor, values in zip(self.store.tensors, features, strict=True):
            records[tensor.name] = _bits(values.to(TYPES[tensor.stored]).cpu())
        records["check"] = [_checksum(record) for record in _as_bytes(records)]
        with _refused(self.store):
            self._put(ROWS, rows, _as_bytes(records))
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
            self.files[ROWS].flush()
            os.fsync(self.files[ROWS].fileno())
            values = np.array([[value] for _, value in unmarked], np.uint8)
            self._put(MARKS, [row for row, _ in unmarked], values)
            self.files[MARKS].flush()
        self.marked = time.monotonic()

    def _put(self, name: str, rows: Sequence[int], values: np.ndarray) -> None:
        """Write values (len(rows), bytes) uint8 to the places of rows."""
        for row, value in zip(rows, values, strict=True):
            self.files[name].seek(self.starts[name] + row * value.nbytes)
            self.files[name].write(value.data)

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
                for file in writer.files.values():
                    file.close()


@contextmanager
def _refused(store: Store) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"{store.option}: cannot write to {store.folder} ({error}); make room, then start "
            "again: what is marked there is kept"
        ) from error


class Reader:
    """The rows of a store as memory maps."""

    def __init__(self, store: Store) -> None:
        # Not as a memmap, each slice of which costs some microseconds.
        self.store, self.records = store, np.asarray(mapped(store, ROWS))

    def rows(self, chosen: Sequence[int], *, pin_memory: bool = False) -> tuple[Tensor, ...]:
        """Features (len(chosen), ...) in the stored types, on the CPU.

        Raises:
            CacheError: a row is not what was written. Its mark is removed, so that it is computed
                again when the training run is resumed; or it cannot be.
        """
        raw, checks = _as_bytes(self.records), self.records["check"]
        odd = [row for row in chosen if _checksum(raw[row]) != checks[row]]
        if odd:
            folder = self.store.folder
            said = f"{folder}: row {odd[0]} is damaged (its checksum is another one)"
            try:
                open_memmap(folder / MARKS, "r+")[odd] = MISSING
            except OSError as error:
                raise CacheError(
                    f"{said}, and {MARKS} cannot be changed so that it is computed anew ({error}); "
                    "make the folder writable, or delete it"
                ) from error
            raise CacheError(
                f"{said}; start again, a training run with --resume: it is computed anew"
            )
        gathered = []
        for tensor in self.store.tensors:
            shape, kind = (len(chosen), *tensor.shape), TYPES[tensor.stored]
            values = torch.empty(shape, dtype=kind, pin_memory=pin_memory)
            # Row by row: numpy would gather them in one array, then copy that.
            there, here = self.records[tensor.name], _bits(values)
            for place, row in enumerate(chosen):
                here[place] = there[row]
            gathered.append(values)
        return tuple(gathered)

    def computed(self, features: Sequence[Tensor], device: torch.device) -> tuple[Tensor, ...]:
        """Return rows on a device, in the types that they were computed in."""
        return tuple(
            values.to(device, non_blocking=True).to(TYPES[tensor.computed])
            for tensor, values in zip(self.store.tensors, features, strict=True)
        )


def _description(store: Store) -> dict[str, Any]:
    """Return the content of key.json, as JSON reads it back."""
    about = {
        "format": FORMAT,
        "key": store.key,
        "num_rows": store.num_rows,
        "tensors": [asdict(tensor) for tensor in store.tensors],
    }
    return json.loads(json.dumps(about))


def _as_bytes(records: np.ndarray) -> np.ndarray:
    """(rows, bytes of a record) uint8, the same memory."""
    return records.view(np.uint8).reshape(len(records), records.dtype.itemsize)


def _checksum(record: np.ndarray) -> int:
    """xxh3_64 of all bytes of a record behind its checksum."""
    return xxhash.xxh3_64_intdigest(record[8:].data)


def _bits(values: Tensor) -> np.ndarray:
    """The same memory as an array; bfloat16 as its bits."""
    return (values.view(torch.int16) if values.dtype == torch.bfloat16 else values).numpy()
