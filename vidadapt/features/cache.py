"""Compute the features of a run's lists once, see `plan` for what is kept.

Draw d of sample i is the training clip of key (d // repeats, i, d % repeats), so with as many draws
as epochs x repeats a run sees what it would see without a cache; with fewer, its epochs repeat the
draws. Row d * samples + i holds it. Validation lists have one draw, the centre
view. `cached_training` reads what was filled here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
from torch import Tensor

from vidadapt.console import duration, track
from vidadapt.data import SampleKey, TrainLoader, normalize, view_chunks
from vidadapt.distributed import World, gather_objects, held_by_main, together
from vidadapt.features.plan import Cache, size
from vidadapt.features.store import THERE, Store, create, marks, writing_rows
from vidadapt.models import autocast
from vidadapt.video import ReadError


def _announcement(cached: Cache) -> str:
    """Size, place, what is still to be computed, and how far the draws reach."""
    stores = cached.stores.values()
    rows = sum(store.num_rows for store in stores)
    missing = sum(len(_missing(store)) for store in stores)
    folder = next(iter(stores)).folder.parent
    said = (
        f"cache of {cached.parts.title}: {size(sum(store.bytes for store in stores))} in {folder}, "
        f"{rows} clips, {missing or 'none'} of them to compute"
    )
    cfg = cached.cfg
    epochs, repeats, draws = cfg.train.epochs, cfg.data.repeated_augmentation, cfg.cache.draws
    if draws < epochs * repeats:
        serve = "1 draw serves" if draws == 1 else f"{draws} draws serve"
        copies = f" x {repeats} copies" if repeats > 1 else ""
        said += f"\n{serve} {epochs} epochs{copies}: the same clips of a video come again and again"
    return said


def fill_cache(cached: Cache) -> dict[str, Any]:
    """Compute the rows that are missing, and print so; return once all of them are there.

    Validation videos that could not be read before are tried again: a disk may have been missing.

    Returns:
        `seconds`, `clips` computed now (by all processes), `bytes` in all.

    Raises:
        CacheError: the disk refused a write. What was computed is kept.
        ReadError: a training video that cannot be read, hangs its process or kills it twice.
    """
    began = time.monotonic()
    world = cached.world
    if world.is_main:
        print(_announcement(cached), flush=True)
    computed = 0
    cached.parts.model.eval()
    for split, store in cached.stores.items():
        # The main process decides: others may look when some rows are done already.
        if gather_objects(world, len(_missing(store)))[0]:
            with held_by_main(world, store.folder, "cache.dir", wait=math.inf):
                computed += _fill(cached, split)
    seconds = time.monotonic() - began
    if world.is_main:
        print(f"cache: {computed} clips computed in {duration(seconds)}", flush=True)
    return {
        "seconds": seconds,
        "clips": computed,
        "bytes": sum(store.bytes for store in cached.stores.values()),
    }


def _fill(cached: Cache, split: str) -> int:
    """Compute the rows of a list that are missing; return how many."""
    world, store = cached.world, cached.stores[split]
    videos = len(cached.loaders["train"].dataset) if split == "train" else store.num_rows
    missing, mine = rows_to_fill(store, videos, world)
    for _ in track(
        _filled(cached, split, mine),
        total=len(mine) * world.size,
        label=f"features of {split}",
        unit="clips",
        units_per_item=world.size,
        shown=world.is_main,
    ):
        pass
    return missing


def rows_to_fill(store: Store, videos: int, world: World) -> tuple[int, list[int]]:
    """Make the store's files if they are missing; all processes call it, and the main one holds it.

    Args:
        videos: row r is one of video r % videos; rows of a video follow one another.

    Returns:
        How many rows are missing, and this process's share of them.

    Raises:
        CacheError: see `store.create`.
    """
    with together(world):
        if world.is_main:
            create(store)
    missing = _by_video(gather_objects(world, _missing(store))[0], videos)
    return len(missing), np.array_split(missing, world.size)[world.rank].tolist()


def _missing(store: Store) -> np.ndarray:
    return np.flatnonzero(marks(store) != THERE)


def _by_video(rows: np.ndarray, samples: int) -> np.ndarray:
    """Order rows so that the draws of a video follow one another: a batch decodes it once.

    >>> _by_video(np.array([0, 1, 2, 3, 5]), samples=3).tolist()
    [0, 3, 1, 2, 5]
    """
    return rows[np.lexsort((rows, rows % samples))]


def _filled(cached: Cache, split: str, rows: list[int]) -> Iterator[int]:
    """Yield the rows, each once it is written."""
    device = cached.world.device
    batches = _draws(cached, rows) if split == "train" else _centre_views(cached, split, rows)
    with writing_rows(cached.stores[split]) as writer:
        for done, clips in batches:
            if clips is None:
                writer.unreadable(done)
            else:
                ready = normalize(clips.to(device, non_blocking=True), cached.plan.normalization)
                with autocast(device, cached.precision):
                    features = cached.parts.features(ready)
                writer.write(done, features)
            yield from done


def _draws(cached: Cache, rows: list[int]) -> Iterator[tuple[list[int], Tensor]]:
    """Yield rows and their training clips (B, 3, T, S, S) uint8."""
    loader: TrainLoader = cached.loaders["train"]
    cfg, samples = cached.cfg, len(loader.dataset)
    step, repeats = cfg.train.batch_size, cfg.data.repeated_augmentation
    pieces = [rows[first : first + step] for first in range(0, len(rows), step)]
    keys = [[_key_of(row, samples, repeats) for row in piece] for piece in pieces]
    with closing(loader):
        for piece, batch in zip(pieces, loader.of(keys), strict=True):
            for why in filter(None, batch["changed"]):  # the key does not show that a file changed
                raise ReadError(why)
            yield piece, batch["clip"]


def _centre_views(
    cached: Cache, split: str, rows: list[int]
) -> Iterator[tuple[list[int], Tensor | None]]:
    """Yield rows and their views (1, 3, T, S, S) uint8; None for those that cannot be read.

    One at a time, as in `views.score_views`: a view's last bits depend on how many are
    computed together, which would depend on processes and interruptions.
    """
    with closing(cached.loaders[split]) as loader:
        for row, item in zip(rows, loader.of(rows), strict=True):
            if item["error"]:
                yield [row], None
            elif item["changed"]:  # the key does not show it
                raise ReadError(item["changed"])
            else:
                [view] = view_chunks(item, 1, cached.world.device)
                yield [row], view


def _key_of(row: int, samples: int, repeats: int) -> SampleKey:
    """Return the training key whose clip a row holds.

    >>> [_key_of(row, samples=10, repeats=2) for row in (4, 14, 24)]
    [(0, 4, 0), (0, 4, 1), (1, 4, 0)]
    """
    draw, index = divmod(row, samples)
    return draw // repeats, index, draw % repeats
