"""Write the rows of a store, and read them again with their checksums compared."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import xxhash
from torch import Tensor

from vidadapt.features.store import (
    CHECKS,
    DONE,
    MISSING,
    THERE,
    TYPES,
    UNREADABLE,
    CacheError,
    Store,
    files_of,
)

SECONDS_BETWEEN_MARKS = 10.0


class StoreWriter:
    """Writes rows into a store; several processes may, each its own rows. See `writing_rows`.

    Not through the memory maps: a full disk would end the process with a signal.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.files = {name: (store.folder / name).open("r+b") for name in files_of(store)}
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
            for tensor, values in zip(self.store.tensors, stored, strict=True):
                self._put(f"{tensor.name}.bin", rows, _bits(values))
            self._put(CHECKS, rows, _checksums(stored))
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
            for name, file in self.files.items():
                if name != DONE:
                    file.flush()
                    os.fsync(file.fileno())
            rows = [row for row, _ in unmarked]
            self._put(DONE, rows, np.array([value for _, value in unmarked], np.uint8))
            self.files[DONE].flush()
        self.marked = time.monotonic()

    def _put(self, name: str, rows: Sequence[int], values: np.ndarray) -> None:
        file = self.files[name]
        for row, value in zip(rows, values, strict=True):
            file.seek(row * value.nbytes)
            file.write(value.data)

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
            f"cache.dir: cannot write to {store.folder} ({error}); make room, then start again: "
            "what is marked there is kept"
        ) from error


class Reader:
    """The rows of a store as memory maps."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.maps = {
            name: np.memmap(store.folder / name, row, "r", shape=(store.num_rows,))
            for name, row in files_of(store).items()
        }

    def rows(self, chosen: Sequence[int], *, pin_memory: bool = False) -> tuple[Tensor, ...]:
        """Features (len(chosen), ...) in the stored types, on the CPU.

        Raises:
            CacheError: a row is not what was written. Its mark is removed, so that it is computed
                again when the training run is resumed.
        """
        gathered = []
        for tensor in self.store.tensors:
            values = torch.empty(
                (len(chosen), *tensor.shape), dtype=TYPES[tensor.stored], pin_memory=pin_memory
            )
            # With mode "raise" numpy would make a copy; the rows are known to be there.
            rows = self.maps[f"{tensor.name}.bin"]
            np.take(rows, chosen, axis=0, out=_bits(values), mode="clip")
            gathered.append(values)
        odd = np.flatnonzero(_checksums(gathered) != self.maps[CHECKS][list(chosen)])
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


def _checksums(features: Sequence[Tensor]) -> np.ndarray:
    """(rows,) uint64, xxh3_64 of each row's bytes in all tensors, one after the other."""
    digests = [xxhash.xxh3_64() for _ in range(len(features[0]))]
    for values in features:
        rows = _bits(values).reshape(len(digests), -1)
        for digest, row in zip(digests, rows, strict=True):
            digest.update(row.data)
    return np.array([digest.intdigest() for digest in digests], "<u8")


def _bits(values: Tensor) -> np.ndarray:
    """The same memory as an array; bfloat16 as its bits."""
    return (values.view(torch.int16) if values.dtype == torch.bfloat16 else values).numpy()
