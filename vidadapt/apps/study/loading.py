"""The time of a configuration's training loader alone: decode, transforms, collation."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from vidadapt import data
from vidadapt.apps.study.benchmark import in_fresh_process
from vidadapt.config import ConfigError, DataConfig
from vidadapt.data import DataPlan, TrainLoader, VideoList, cores, default_workers
from vidadapt.lists import check_label_names, read_list

CLIPS_PER_ROUND, ROUNDS = 48, 5  # one round before them is not counted


@dataclass(frozen=True)
class Batching:
    """Settings of a training loader's batches, see `config.TrainConfig`."""

    batch_size: int
    accumulation: int
    seed: int


@dataclass(frozen=True)
class DataCost:
    """Time and size of the training loader of one process.

    Attributes:
        seconds_per_clip: of each round, wall time.
        num_workers: loader processes; 0: the training process loads.
        clips_per_epoch: of all training processes together.
    """

    seconds_per_clip: tuple[float, ...]
    num_workers: int
    clips_per_epoch: int


@cache
def data_cost(
    chosen_data: DataConfig, plan: DataPlan, batching: Batching, processes: int, threads: int | None
) -> DataCost:
    """Measure the training loader, once: all methods have the same one."""
    return in_fresh_process(loader_seconds, chosen_data, plan, batching, processes, threads)


def loader_seconds(
    chosen_data: DataConfig, plan: DataPlan, batching: Batching, processes: int, threads: int | None
) -> DataCost:
    """The training loader of the first of so many processes, alone; for a fresh process.

    The loader runs on without a stop, over as many epochs as it takes; a round is a stretch of at
    least `CLIPS_PER_ROUND` clips, as many batches from each loader process. The first one, which
    starts the loader processes, is not counted; nor is counting the frames of a list that is seen
    for the first time.

    Raises:
        ValueError: a list that cannot be used, or fewer videos than one global batch.
        ReadError: a video that cannot be read.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    videos = _training_list(chosen_data, plan)
    gpu = torch.cuda.is_available()
    workers = chosen_data.num_workers
    if workers is None:
        workers = default_workers(cores() // processes, gpu=gpu)
    loader = data.train_loader(
        replace(chosen_data, num_workers=workers),
        plan,
        videos,
        batch_size=batching.batch_size,
        accumulation=batching.accumulation,
        seed=batching.seed,
        world_size=processes,
        pin_memory=gpu,
    )
    abreast = max(1, workers)
    batches = abreast * math.ceil(CLIPS_PER_ROUND / (batching.batch_size * abreast))
    endless = _endless(loader)
    seconds = []
    for _ in range(1 + ROUNDS):
        began = time.perf_counter()
        for _ in range(batches):
            next(endless)
        seconds.append((time.perf_counter() - began) / (batches * batching.batch_size))
    return DataCost(tuple(seconds[1:]), workers, loader.batch_sampler.keys_per_epoch)


def _endless(loader: TrainLoader) -> Iterator[Any]:
    for epoch in itertools.count():
        loader.batch_sampler.set_epoch(epoch)
        yield from loader


def _training_list(chosen_data: DataConfig, plan: DataPlan) -> VideoList:
    path = chosen_data.train_list
    if path is None:
        raise ConfigError("data.train_list: is not set; give a list of `path label` lines")
    check_label_names(path, plan.label_names)
    samples = read_list(path, chosen_data.root, plan.num_classes, chosen_data.allow_outside_root)
    return data.load_list(chosen_data, plan, path, samples, training=True)
