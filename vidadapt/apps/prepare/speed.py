"""Measure the clips a second of the training loader, side by side for several sets."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from vidadapt.config import DataConfig
from vidadapt.data import (
    SAMPLINGS,
    Augmentation,
    DataPlan,
    SampleKey,
    TrainLoader,
    VideoList,
    train_loader,
)
from vidadapt.lists import Videos


def loader_rates(
    sets: Mapping[str, Videos],
    num_frames: int,
    *,
    num_workers: int,
    rounds: int = 3,
    clips_per_round: int = 192,
    batch_size: int = 8,
    crop_size: int = 224,
) -> dict[str, tuple[float, ...]]:
    """Measure clips a second of `data.train_loader`, by set and round.

    The time includes decoding, multi-scale crop, collation and the transfer from the workers, but
    no augmentation. Frames are spread over the whole video (`uniform8`), the same ones in every
    set. In each round the sets take turns, so that other load on the machine hits all of them; one
    round before the first, not counted, starts the workers and fills the system's file cache.

    Args:
        sets: readable videos by name; all hold the same ones in the same order.
        num_frames: T of a clip.
        num_workers: loader processes; 0: this one, with one thread like a loader process.
        clips_per_round: at least; a round reads all videos once or several times.

    Raises:
        ReadError: a video cannot be read.
        ValueError: a set without videos.
    """
    loaders = {}
    for name, videos in sets.items():
        if not videos:
            raise ValueError(f"{name}: no video to time")
        config = DataConfig(
            root=videos.root,
            num_workers=num_workers,
            # One batch at least, which an epoch must have; `_batches` are those that are timed.
            repeated_augmentation=math.ceil(batch_size / len(videos)),
        )
        plan = DataPlan(
            dataset=config.dataset,
            num_classes=1 + int(videos.labels.max()),
            label_names=None,
            sampling=replace(SAMPLINGS["uniform8"], num_frames=num_frames),
            augmentation=Augmentation(),
            num_clips=1,
            num_crops=1,
            crop_size=crop_size,
            normalization=config.normalization,
        )
        listed = VideoList(name, videos)
        loaders[name] = train_loader(config, plan, listed, batch_size=batch_size, seed=0)
    rates: dict[str, list[float]] = {name: [] for name in sets}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number in range(rounds + 1):
            for name, loader in loaders.items():
                rates[name].append(
                    _rate(loader, _batches(loader, number, clips_per_round, batch_size))
                )
    finally:
        torch.set_num_threads(threads)
    return {name: tuple(values[1:]) for name, values in rates.items()}


def _batches(
    loader: TrainLoader, number: int, clips: int, batch_size: int
) -> list[list[SampleKey]]:
    """Whole batches of a round: clips of all videos, then again, so that few share a decode."""
    videos = len(loader.dataset)
    epochs = math.ceil(max(clips, batch_size) / videos)
    first = number * epochs
    keys = [(epoch, i, 0) for epoch in range(first, first + epochs) for i in range(videos)]
    whole = len(keys) // batch_size * batch_size
    return [keys[start : start + batch_size] for start in range(0, whole, batch_size)]


def _rate(loader: TrainLoader, batches: list[list[SampleKey]]) -> float:
    start = time.perf_counter()
    clips = sum(len(batch["label"]) for batch in loader.of(batches))
    return clips / (time.perf_counter() - start)


def gain(rates: Mapping[str, Sequence[float]], name: str, over: str) -> float:
    """Return the median over the rounds of one set's rate as a multiple of another's.

    >>> gain({"source": [10, 10, 5], "copy": [40, 50, 25]}, "copy", "source")
    5.0
    """
    pairs = zip(rates[name], rates[over], strict=True)
    return float(statistics.median(new / old for new, old in pairs))
