"""Training from features that were computed once: keys, filling, batches, validation.

    cached = plan_cache(cfg, plan, parts, lists, loaders, ...)  # checked, nothing written
    fill(cached)                               # all processes, each its share; resumable
    CachedBatches(cached)                      # in the place of the training loader
    score_features(cached, split, ...)         # in the place of `evaluate.score_views`

Draw d of sample i is the training clip of key (d // repeats, i, d % repeats), so with as many draws
as epochs x repeats a run sees what it would see without a cache; with fewer, its epochs go through
the draws again and again. Row d * samples + i holds it. Validation lists have one draw, the centre
view.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vidadapt.config import Config
from vidadapt.data import DataPlan, VideoList, worker_options
from vidadapt.data.clips import view_chunks
from vidadapt.data.epochs import EpochBatches, Key
from vidadapt.data.transforms import normalize
from vidadapt.differences import NOT_OF_THE_BACKBONE
from vidadapt.distributed import World, gather_objects, together
from vidadapt.evaluate import Scores, collected
from vidadapt.feature_store import (
    MISSING,
    UNREADABLE,
    CacheError,
    Reader,
    Store,
    check_key,
    check_room,
    create,
    kept_as,
    marks,
    size,
    writing,
)
from vidadapt.features import Split
from vidadapt.precision import autocast
from vidadapt.progress import track


@dataclass(frozen=True, eq=False)
class Cache:
    """Features of the lists of a run, and what they are computed with.

    Attributes:
        parts: the model, cut in two.
        stores: by split; `train` has rows for its draws, any other list one a video.
        loaders: of the same splits, over `TrainClips` for `train`, else over `EvalViews` with one
            view. Filling uses their data sets and options.
        draws: of each training sample.
        repeats: copies of a sample in an epoch, see `data.epochs`.
        batch_size: clips of one forward pass.
        normalization: key of `data.transforms.NORMALIZATIONS`.
        precision: resolved; features are computed under it.
    """

    parts: Split
    stores: dict[str, Store]
    loaders: dict[str, DataLoader[Any]]
    draws: int
    repeats: int
    batch_size: int
    normalization: str
    precision: str
    world: World


def plan_cache(
    cfg: Config,
    plan: DataPlan,
    parts: Split,
    lists: Mapping[str, VideoList],
    loaders: dict[str, DataLoader[Any]],
    *,
    backbone: str,
    precision: str,
    world: World,
) -> Cache:
    """What is to be kept; nothing is written yet.

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
    return Cache(
        parts=parts,
        stores=stores,
        loaders=loaders,
        draws=cfg.cache.draws,
        repeats=cfg.data.repeated_augmentation,
        batch_size=cfg.train.batch_size,
        normalization=plan.normalization,
        precision=precision,
        world=world,
    )


def _key(
    cfg: Config,
    plan: DataPlan,
    parts: Split,
    videos: VideoList,
    training: bool,
    backbone: str,
    precision: str,
) -> dict[str, Any]:
    """What features depend on, under the names of the configuration where they have one."""
    counts = [videos.counts[sample.path] for sample in videos.samples]
    frames = json.dumps([[count.num_frames, count.reader, count.error == ""] for count in counts])
    key = {
        "features": parts.title,
        "backbone": backbone,
        **{f"model.{k}": v for k, v in vars(cfg.model).items() if k not in NOT_OF_THE_BACKBONE},
        "videos": videos.manifest,
        "frame counts": hashlib.sha256(frames.encode()).hexdigest(),
        "data.sampling": plan.sampling.policy,
        "data.num_frames": plan.sampling.num_frames,
        "data.stride": plan.sampling.stride,
        "data.crop_size": plan.crop_size,
        "data.normalization": plan.normalization,
        "data.reader": ", ".join(sorted({count.reader for count in counts})),
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


def describe(cached: Cache, epochs: int) -> str:
    """Size, place, what is still to be computed, and how far the draws reach, for people."""
    stores = cached.stores.values()
    rows = sum(store.num_rows for store in stores)
    missing = sum(int((marks(store) == MISSING).sum()) for store in stores)
    folder = next(iter(stores)).folder.parent
    said = (
        f"cache of {cached.parts.title}: {size(sum(store.bytes for store in stores))} in {folder}, "
        f"{rows} clips, {missing or 'none'} of them to compute"
    )
    wanted = epochs * cached.repeats
    if cached.draws < wanted:
        draws = "1 draw serves" if cached.draws == 1 else f"{cached.draws} draws serve"
        copies = f" x {cached.repeats} copies" if cached.repeats > 1 else ""
        said += f"\n{draws} {epochs} epochs{copies}: the same clips of a video come again and again"
    return said


def fill(cached: Cache) -> dict[str, Any]:
    """Compute the rows that are missing; returns once all of them are there.

    Returns:
        `seconds`, `clips` computed now (by all processes), `bytes` in all.

    Raises:
        CacheError: the disk refused. What was computed is kept.
        ReadError: a training video that cannot be read.
    """
    began = time.monotonic()
    world = cached.world
    computed = 0
    cached.parts.model.eval()
    for split, store in cached.stores.items():
        with together(world):
            if world.is_main:
                create(store)
        # The main process's view of it: others may start when some rows are done already.
        missing = np.flatnonzero(gather_objects(world, marks(store))[0] == MISSING)
        computed += len(missing)
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
        gather_objects(world, None)
    return {
        "seconds": time.monotonic() - began,
        "clips": computed,
        "bytes": sum(store.bytes for store in cached.stores.values()),
    }


def _filled(cached: Cache, split: str, rows: list[int]) -> Iterator[int]:
    """The rows, each once it is written."""
    device = cached.world.device
    batches = _draws(cached, rows) if split == "train" else _centre_views(cached, split, rows)
    with writing(cached.stores[split]) as writer:
        for done, clips in batches:
            if clips is None:
                writer.unreadable(done)
            else:
                ready = normalize(clips.to(device, non_blocking=True), cached.normalization)
                with autocast(device, cached.precision):
                    features = cached.parts.features(ready)
                writer.write(done, features)
            yield from done


def _draws(cached: Cache, rows: list[int]) -> Iterator[tuple[list[int], Tensor]]:
    """Rows and their training clips (B, 3, T, S, S) uint8."""
    loader = cached.loaders["train"]
    samples = len(loader.dataset)  # type: ignore[arg-type]
    pieces = [
        rows[first : first + cached.batch_size] for first in range(0, len(rows), cached.batch_size)
    ]
    keys = [[_key_of(row, samples, cached.repeats) for row in piece] for piece in pieces]
    options = worker_options(loader.num_workers, loader.pin_memory)
    clips = DataLoader(loader.dataset, batch_sampler=keys, **options)
    for piece, batch in zip(pieces, clips, strict=True):
        yield piece, batch["clip"]


def _centre_views(
    cached: Cache, split: str, rows: list[int]
) -> Iterator[tuple[list[int], Tensor | None]]:
    """Rows and their views (B, 3, T, S, S) uint8; None for those that cannot be read."""
    loader = cached.loaders[split]
    options = worker_options(loader.num_workers, loader.pin_memory)
    items = DataLoader(loader.dataset, batch_size=None, sampler=rows, **options)
    ready: dict[int, Tensor] = {}
    for row, item in zip(rows, items, strict=True):
        if item["error"]:
            yield [row], None
        else:
            [ready[row]] = view_chunks(item, 1, cached.world.device)
        if ready and (len(ready) == cached.batch_size or row == rows[-1]):
            yield list(ready), torch.cat(list(ready.values()))
            ready = {}


def _key_of(row: int, samples: int, repeats: int) -> Key:
    """The training key whose clip a row holds.

    >>> [_key_of(row, samples=10, repeats=2) for row in (4, 14, 24)]
    [(0, 4, 0), (0, 4, 1), (1, 4, 0)]
    """
    draw, index = divmod(row, samples)
    return draw // repeats, index, draw % repeats


def _row_of(key: Key, samples: int, draws: int, repeats: int) -> int:
    """The row that stands for a training key (epoch, index, copy).

    >>> [_row_of((epoch, 4, 0), samples=10, draws=2, repeats=1) for epoch in range(3)]
    [4, 14, 4]
    >>> [_row_of(key, samples=10, draws=4, repeats=2) for key in [(0, 4, 0), (0, 4, 1), (1, 4, 0)]]
    [4, 14, 24]
    """
    epoch, index, copy = key
    return (epoch * repeats + copy) % draws * samples + index


class CachedBatches:
    """Batches of features in the place of the training loader's clips, in the same order.

    A batch is a dict: `features`, a tuple of tensors (B, ...) in the stored types; `label` and
    `index` (B,) int64. The next one is gathered by a thread while one is worked on.

    Args:
        cached: filled.
        labels: of the training samples.
    """

    def __init__(self, cached: Cache, labels: Sequence[int]) -> None:
        loader = cached.loaders["train"]
        self.cached, self.reader = cached, _whole(cached.stores["train"])
        self.batch_sampler = cast(EpochBatches, loader.batch_sampler)
        self.pin_memory = loader.pin_memory
        self.labels = torch.tensor(labels)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        coming: Future[dict[str, Any]] | None = None
        # Pinned memory belongs to the device that is current in the thread.
        device = self.cached.world.device
        current = partial(torch.cuda.set_device, device) if self.pin_memory else None
        with ThreadPoolExecutor(1, initializer=current) as thread:
            for keys in self.batch_sampler:
                ready, coming = coming, thread.submit(self._batch, keys)
                if ready is not None:
                    yield ready.result()
            if coming is not None:
                yield coming.result()

    def _batch(self, keys: list[Key]) -> dict[str, Any]:
        draws, repeats = self.cached.draws, self.cached.repeats
        rows = [_row_of(key, len(self.labels), draws, repeats) for key in keys]
        index = torch.tensor([index for _, index, _ in keys])
        return {
            "features": self.reader.rows(rows, pin_memory=self.pin_memory),
            "label": self.labels[index],
            "index": index,
        }

    def prepare(self, batch: dict[str, Any]) -> tuple[Tensor, ...]:
        """The features of a batch as the model takes them, see `features.run_from_features`."""
        return self.reader.computed(batch["features"], self.cached.world.device)


@torch.no_grad()
def score_features(
    cached: Cache,
    split: str,
    *,
    paths: list[str],
    labels: list[int],
    num_classes: int,
) -> Scores:
    """Scores of one view of every video, see `evaluate.score_views`, from its features.

    The batches are the same with any number of processes.
    """
    model, store, world = cached.parts.model, cached.stores[split], cached.world
    model.eval()
    reader, found = _whole(store), marks(store)
    mine: list[tuple[int, np.ndarray | None, str]] = []
    step = cached.batch_size
    for first in range(world.rank * step, len(paths), world.size * step):
        rows = range(first, min(first + step, len(paths)))
        readable = [row for row in rows if found[row] != UNREADABLE]
        why = f"could not be read when {store.folder} was filled"
        mine += [(row, None, why) for row in rows if found[row] == UNREADABLE]
        if readable:
            features = reader.computed(reader.rows(readable), world.device)
            with autocast(world.device, cached.precision):
                logits = cached.parts.logits(features).float().cpu().numpy()
            mine += [(row, logits[i : i + 1], "") for i, row in enumerate(readable)]
    return collected(mine, paths, labels, num_classes, 1, 1, world)


def _whole(store: Store) -> Reader:
    if missing := int((marks(store) == MISSING).sum()):
        raise CacheError(
            f"{store.folder}: {missing} of {store.num_rows} clips are missing; is another run "
            "writing to it, or has a file been changed? Delete the folder and start again"
        )
    return Reader(store)
