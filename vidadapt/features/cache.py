"""Compute the features of a run's lists once: keys, sizes, filling.

Draw d of sample i is the training clip of key (d // repeats, i, d % repeats), so with as many draws
as epochs x repeats a run sees what it would see without a cache; with fewer, its epochs repeat the
draws. Row d * samples + i holds it. Validation lists have one draw, the centre
view. `cached_training` reads what was filled here.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidadapt.config import Config
from vidadapt.console.progress import duration, track
from vidadapt.data import DataPlan, VideoList
from vidadapt.data.clips import view_chunks
from vidadapt.data.epochs import Key
from vidadapt.data.transforms import normalize
from vidadapt.data.watchdog import Watched
from vidadapt.distributed import World, gather_objects, held_by_main, together
from vidadapt.features.halves import Halves
from vidadapt.features.rows import writing_rows
from vidadapt.features.store import (
    THERE,
    Store,
    check_key,
    check_room,
    create,
    kept_as,
    marks,
    size,
)
from vidadapt.models.precision import autocast
from vidadapt.runs.differences import NOT_OF_THE_BACKBONE
from vidadapt.video.readers import ReadError


@dataclass(frozen=True, eq=False)
class Cache:
    """Features of the lists of a run, and what they are computed with.

    Attributes:
        parts: the model, cut in two.
        stores: by split; `train` has rows for its draws, any other list one a video.
        loaders: of the same splits, `data.train_loader` for `train`, else `data.eval_loader` with
            one view. Filling uses their data sets and options.
        precision: resolved; features are computed under it.
    """

    cfg: Config
    plan: DataPlan
    parts: Halves
    stores: dict[str, Store]
    loaders: dict[str, Any]
    precision: str
    world: World


def plan_cache(
    cfg: Config,
    plan: DataPlan,
    parts: Halves,
    lists: Mapping[str, VideoList],
    loaders: dict[str, Any],
    *,
    backbone: str,
    precision: str,
    world: World,
) -> Cache:
    """Plan what is to be kept; nothing is written yet.

    Args:
        lists: at least those that `loaders` has, by split.
        backbone: fingerprint from `assemble.adapted_model`.

    Raises:
        CacheError: above `cache.max_gb` or the disk's room, or a folder of other features.
    """
    assert cfg.cache.dir is not None
    parts.model.eval()
    clip = torch.zeros((1, *parts.model.clip_shape), device=world.device)
    with autocast(world.device, precision):
        tensors = kept_as(parts.names, parts.features(clip), cfg.cache.dtype)
    stores = {}
    for split in loaders:
        videos, training = lists[split], split == "train"
        stores[split] = Store(
            folder=Path(cfg.cache.dir) / split,
            key=_key(cfg, plan, parts, videos, training, backbone, precision),
            num_rows=len(videos.samples) * (cfg.cache.draws if training else 1),
            tensors=tensors,
        )
        check_key(stores[split])
    check_room(list(stores.values()), Path(cfg.cache.dir), cfg.cache.max_gb)
    return Cache(cfg, plan, parts, stores, loaders, precision, world)


def _key(
    cfg: Config,
    plan: DataPlan,
    parts: Halves,
    videos: VideoList,
    training: bool,
    backbone: str,
    precision: str,
) -> dict[str, Any]:
    """Facts that features depend on, by configuration key where there is one."""
    sizes = videos.samples.column("size")
    key = {
        "features": parts.title,
        "backbone": backbone,
        **{f"model.{k}": v for k, v in vars(cfg.model).items() if k not in NOT_OF_THE_BACKBONE},
        "videos": videos.manifest,
        "frames": videos.samples.digest(),
        # Not their times of modification, which may change when the data set is copied.
        "file sizes": hashlib.sha256(sizes.tobytes()).hexdigest(),
        "data.sampling": plan.sampling.policy,
        "data.num_frames": plan.sampling.num_frames,
        "data.stride": plan.sampling.stride,
        "data.crop_size": plan.crop_size,
        "data.normalization": plan.normalization,
        "data.reader": ", ".join(videos.samples.readers()),
        "train.precision": precision,
        "cache.dtype": cfg.cache.dtype,
    }
    if training:
        key |= {
            "data.flip": plan.flip,
            **{
                f"data.{name}": getattr(cfg.data, name)
                for name in ("train_crop", "rand_augment", "random_erasing")
            },
            "data.repeated_augmentation": cfg.data.repeated_augmentation,
            "train.seed": cfg.train.seed,
            "cache.draws": cfg.cache.draws,
        }
    return key


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
    with together(world):
        if world.is_main:
            create(store)
    missing = gather_objects(world, _missing(store))[0]
    mine = np.array_split(missing, world.size)[world.rank].tolist()
    for _ in track(
        _filled(cached, split, mine),
        total=len(mine) * world.size,
        label=f"features of {split}",
        unit="clips",
        units_per_item=world.size,
        shown=world.is_main,
    ):
        pass
    return len(missing)


def _missing(store: Store) -> np.ndarray:
    return np.flatnonzero(marks(store) != THERE)


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
    loader = cached.loaders["train"]
    cfg, samples = cached.cfg, len(loader.dataset)
    step, repeats = cfg.train.batch_size, cfg.data.repeated_augmentation
    pieces = [rows[first : first + step] for first in range(0, len(rows), step)]
    keys = [[_key_of(row, samples, repeats) for row in piece] for piece in pieces]

    def lost(key: Key, reason: str, seconds: float) -> None:
        path = loader.dataset.samples[key[1]].path
        raise ReadError(
            f"{path}: {reason}; leave it out (data.quarantine), or raise data.clip_timeout"
        )

    with closing(
        Watched(
            loader.dataset,
            loader.collate_fn,
            num_workers=loader.num_workers,
            pin_memory=loader.pin_memory,
            limit=cfg.data.clip_timeout,
            barred=lambda key: False,
            lost=lost,
        )
    ) as watched:
        for piece, (batch, unread) in zip(pieces, watched.results(keys), strict=True):
            for why in [*(clip.reason for clip in unread), *(batch or {}).get("changed", [])]:
                if why:  # the key does not show that a file changed
                    raise ReadError(why)
            yield piece, batch["clip"]


def _centre_views(
    cached: Cache, split: str, rows: list[int]
) -> Iterator[tuple[list[int], Tensor | None]]:
    """Yield rows and their views (1, 3, T, S, S) uint8; None for those that cannot be read.

    One at a time, as in `views.score_views`: a view's last bits depend on how many are
    computed together, which would depend on processes and interruptions.
    """
    for row, item in zip(rows, cached.loaders[split].of(rows), strict=True):
        if item["error"]:
            yield [row], None
        elif item["changed"]:  # the key does not show it
            raise ReadError(item["changed"])
        else:
            [view] = view_chunks(item, 1, cached.world.device)
            yield [row], view


def _key_of(row: int, samples: int, repeats: int) -> Key:
    """Return the training key whose clip a row holds.

    >>> [_key_of(row, samples=10, repeats=2) for row in (4, 14, 24)]
    [(0, 4, 0), (0, 4, 1), (1, 4, 0)]
    """
    draw, index = divmod(row, samples)
    return draw // repeats, index, draw % repeats
