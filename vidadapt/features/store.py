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
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidadapt import runs

KEY, CHECKS, DONE = "key.json", "checks.bin", "done.bin"
MISSING, THERE, UNREADABLE = 0, 0x5A, 0xA5  # no flipped bit turns one into another
FORMAT = "vidadapt-cache-2"

BITS = {"fp32": "<f4", "fp16": "<f2", "bf16": "<i2"}
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in TYPES.items()}


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
    def row(self) -> np.dtype:
        """Type of a row as an array; numpy has no bfloat16, whose bits are handled as integers."""
        return np.dtype((BITS[self.stored], self.shape))


@dataclass(frozen=True)
class Store:
    """Content of a folder, or what it is to hold.

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
        return self.num_rows * sum(tensor.row.itemsize for tensor in self.tensors)


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
    for name, row in files_of(store).items():
        path = store.folder / name
        if not path.exists() or path.stat().st_size != store.num_rows * row.itemsize:
            raise CacheError(f"{path}: is missing or not whole; delete {store.folder}")


def create(store: Store) -> None:
    """Make the folder and its files, empty, unless they are there.

    Raises:
        CacheError: the folder cannot be written, or another run has made it since it was checked,
            for other features.
    """
    if not (store.folder / KEY).exists():
        try:
            store.folder.mkdir(parents=True, exist_ok=True)
            for name, row in files_of(store).items():
                with (store.folder / name).open("wb") as file:
                    file.truncate(store.num_rows * row.itemsize)
            runs.write_json(store.folder / KEY, _description(store))
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


def size(count: int) -> str:
    """Bytes for people.

    >>> size(2_500), size(31_000_000), size(7_250_000_000)
    ('2.5 kB', '31.0 MB', '7.2 GB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1e3:.1f} kB"


def _description(store: Store) -> dict[str, Any]:
    """Return the content of key.json, as JSON reads it back."""
    about = {
        "format": FORMAT,
        "key": store.key,
        "num_rows": store.num_rows,
        "tensors": [asdict(tensor) for tensor in store.tensors],
    }
    return json.loads(json.dumps(about))


def files_of(store: Store) -> dict[str, np.dtype]:
    """The binary files, each with the type of a row, which may have a shape of its own."""
    tensors = {f"{tensor.name}.bin": tensor.row for tensor in store.tensors}
    return {**tensors, CHECKS: np.dtype("<u8"), DONE: np.dtype(np.uint8)}
