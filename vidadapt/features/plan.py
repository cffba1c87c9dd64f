"""Plan a cache of features: its keys, its size, and whether the disk has room."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vidadapt.config import Config, ModelConfig
from vidadapt.data import DataPlan, VideoList
from vidadapt.distributed import World
from vidadapt.features.halves import Halves, Joined
from vidadapt.features.store import ROWS, CacheError, Store, check_key, kept_as
from vidadapt.models import autocast
from vidadapt.runs import NOT_OF_THE_BACKBONE


@dataclass(frozen=True, eq=False)
class Cache:
    """Features of the lists of a run, and what they are computed with.

    Attributes:
        parts: the model, cut in two.
        stores: by split; `train` has rows for its draws, any other list one a video.
        loaders: of the same splits, `data.train_loader` for `train`, else `data.eval_loader` with
            one view. Filling takes other batches from them.
        precision: resolved; features are computed under it.
    """

    cfg: Config
    plan: DataPlan
    parts: Halves | Joined
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
    _check_room(list(stores.values()), Path(cfg.cache.dir), cfg.cache.max_gb)
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
    key = {
        "features": parts.title,
        "videos": videos.manifest,
        **protocol(cfg.model, plan, videos, backbone, precision),
        "cache.dtype": cfg.cache.dtype,
    }
    if training:
        key |= {
            **{f"data.{name}": value for name, value in vars(plan.augmentation).items()},
            "data.repeated_augmentation": cfg.data.repeated_augmentation,
            "train.seed": cfg.train.seed,
            "cache.draws": cfg.cache.draws,
        }
    return key


def protocol(
    model: ModelConfig, plan: DataPlan, videos: VideoList, backbone: str, precision: str
) -> dict[str, Any]:
    """Facts that the features of files depend on, by configuration key where there is one.

    Args:
        backbone: fingerprint from `assemble.adapted_model`.
        precision: resolved.
    """
    samples = videos.samples
    return {
        "backbone": backbone,
        **{f"model.{k}": v for k, v in vars(model).items() if k not in NOT_OF_THE_BACKBONE},
        "frames": samples.digest(),
        # Not their times of modification, which may change when the data set is copied.
        "file sizes": hashlib.sha256(samples.column("size").tobytes()).hexdigest(),
        "data.sampling": plan.sampling.policy,
        "data.num_frames": plan.sampling.num_frames,
        "data.stride": plan.sampling.stride,
        "segments": plan.sampling.segments,
        **({} if plan.sampling.fps is None else {"data.sampling_fps": plan.sampling.fps}),
        "data.crop_size": plan.crop_size,
        "data.normalization": plan.normalization,
        **{f"data.{name}": value for name, value in plan.framing.settings().items()},
        "data.reader": ", ".join(sorted(set(samples.readers()))),
        "train.precision": precision,
    }


def _check_room(stores: Sequence[Store], folder: Path, max_gb: float) -> None:
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
    there = sum(file.stat().st_blocks * 512 for store in stores for file in store.folder.glob(ROWS))
    free = free_bytes(folder)
    if needed - there > free:
        raise CacheError(
            f"cache.dir: the features take {size(needed - there)} more, and {folder} has "
            f"{size(free)} free; give a folder on another disk, {smaller}"
        )


def free_bytes(folder: Path) -> int:
    """Room on the disk of a folder that may not be there yet."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(nearest).free


def size(count: int) -> str:
    """Bytes for people.

    >>> size(2_500), size(31_000_000), size(7_250_000_000)
    ('2.5 kB', '31.0 MB', '7.2 GB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1e3:.1f} kB"
