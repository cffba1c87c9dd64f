"""What one configuration costs: parameters, file, FLOPs, memory, step time, loading time.

Everything is of the configuration's own run: its model (with random weights, which cost the same),
method, batch size, precision, optimiser and recomputation, and its own training loader. Step and
loader are measured one after the other, each in a process of its own; what both come to in an epoch
is projected from them, see `projected`.
"""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import asdict, dataclass
from os import environ
from pathlib import Path
from typing import Any

import torch

from vidadapt import data
from vidadapt.apps.study import benchmark
from vidadapt.apps.study.benchmark import (
    NOISY_PERCENT,
    Counts,
    Measurements,
    Setting,
    spread_percent,
)
from vidadapt.apps.study.loading import Batching, data_cost
from vidadapt.apps.study.matmul import DTYPES, block_products, matmul_turn
from vidadapt.config import Config, ConfigError
from vidadapt.data import DataPlan
from vidadapt.data.workers import cores
from vidadapt.lists.prepared import with_lists
from vidadapt.models import RANDOM, WITHOUT_FILE
from vidadapt.models.hub import is_hub_name
from vidadapt.models.precision import resolved_precision

MATMUL_TURNS, MATMUL_SECONDS = 3, 0.5  # at least, both


@dataclass(frozen=True)
class StepCost:
    """What training steps took, and how fast the device multiplied matrices right after them.

    Attributes:
        device: `cuda` or `cpu`.
        precision: `fp32`, `bf16` or `fp16`.
        measured: see `benchmark.Measurements`.
        peak_process_bytes: most that the whole process held in memory, torch and the CUDA runtime
            included; None where the system does not tell.
        matmul_tflops: 10^12 FLOPs a second, see `matmul.matmul_turn`.
    """

    device: str
    precision: str
    measured: Measurements
    peak_process_bytes: int | None
    matmul_tflops: float


def counts(cfg: Config) -> Counts:
    """Parameters, file size and FLOPs, without computing anything.

    Raises:
        ValueError: the run is impossible (names, sizes, options, no such weights file), or one
            whose cost cannot be measured; naming the key.
    """
    if cfg.cache.dir is not None:
        raise ConfigError(
            "cache.dir: a run from cached features costs something else in its first epoch than "
            "later, and is not measured here; leave it out"
        )
    weights = cfg.model.weights or RANDOM
    if weights not in WITHOUT_FILE and not is_hub_name(weights) and not Path(weights).is_file():
        raise ConfigError(f"model.weights: {weights}: no such file")
    return benchmark.count(setting_of(cfg, _plan(cfg)), cfg.method)


def cell_cost(cfg: Config, *, processes: int, steps: int) -> dict[str, Any]:
    """What is known of a configuration without training it to the end, by key.

    Description (`method`, `options`, `frames`, ... `threads`), counts (`benchmark.Counts`), and
    measured figures: `step_seconds` is the median of a forward, a backward and an optimiser step on
    `batch_size` clips that lie on the device, normalised (mixing, clipping of gradients and
    averaging of weights are not in it, nor the exchange between processes); `peak_memory_bytes` see
    `benchmark.Measurements`; `matmul_share` is the training FLOPs, by the time of the step, over
    `matmul_tflops`, the rate of plain matrix products measured right after it;
    `data_seconds_per_clip` is the training loader's alone (median of rounds, files in the system's
    cache where they fit); `data_share` is data / (data + step), both per clip; for
    `clips_per_second` and `epoch_seconds` see `projected`. `noisy` names the spreads above
    `NOISY_PERCENT`.

    Args:
        processes: that train at once on this machine; one is measured, with its share of cores.
        steps: timed ones, after a warm-up.

    Raises:
        ValueError: as `counts`; or a list that cannot be used.
        ReadError: a video that cannot be read.
        MemoryError: a step that does not fit, naming what to lower.
    """
    known = counts(cfg)
    plan = _plan(cfg)
    threads = threads_of(processes)
    loading = data_cost(
        with_lists(cfg.data),
        plan,
        Batching(cfg.train.batch_size, cfg.train.accumulation, cfg.train.seed),
        processes,
        threads,
    )
    step: StepCost = benchmark.in_fresh_process(step_cost, cfg, steps, threads)
    measured, batch_size = step.measured, cfg.train.batch_size
    step_per_clip = measured.step_seconds / batch_size
    data_per_clip = statistics.median(loading.seconds_per_clip)
    tflops = known.training_flops_per_clip / step_per_clip / 1e12
    clips_per_second = projected(
        step_per_clip,
        data_per_clip,
        processes=processes,
        overlapping=overlapping(
            step.device, measured.threads, loading.num_workers, cores() // processes
        ),
    )
    spreads = {
        "step_spread_percent": measured.step_spread_percent,
        "data_spread_percent": spread_percent(loading.seconds_per_clip),
    }
    return {
        "method": cfg.method["name"],
        "options": {key: value for key, value in cfg.method.items() if key != "name"},
        "frames": plan.sampling.num_frames,
        "epochs": cfg.train.epochs,
        "base_lr": cfg.train.base_lr,
        **asdict(known),
        "backbone": cfg.model.backbone,
        "crop_size": plan.crop_size,
        "num_classes": plan.num_classes,
        "precision": step.precision,
        "device": step.device,
        "batch_size": batch_size,
        "threads": measured.threads,
        "step_seconds": measured.step_seconds,
        "peak_memory_bytes": measured.peak_memory_bytes,
        "peak_process_bytes": step.peak_process_bytes,
        "matmul_tflops": step.matmul_tflops,
        "matmul_share": tflops / step.matmul_tflops,
        "data_seconds_per_clip": data_per_clip,
        **spreads,
        "data_share": data_per_clip / (data_per_clip + step_per_clip),
        "clips_per_second": clips_per_second,
        "epoch_seconds": loading.clips_per_epoch / clips_per_second,
        "noisy": [key for key, spread in spreads.items() if spread > NOISY_PERCENT],
    }


def projected(
    step_seconds: float, data_seconds: float, *, processes: int, overlapping: bool
) -> float:
    """Clips a second of training, from what a clip takes one process to load and to compute.

    It assumes that loading is hidden behind the computation, or the other way round (where they are
    `overlapping`); or else that one waits for what the other takes; and that processes do not hold
    each other up. Starting up, validation and checkpoints come on top of an epoch.

    >>> projected(0.03, 0.01, processes=1, overlapping=False)
    25.0
    >>> projected(0.04, 0.01, processes=2, overlapping=True)
    50.0
    """
    both = (step_seconds, data_seconds)
    return processes / (max(both) if overlapping else sum(both))


def overlapping(device: str, threads: int, num_workers: int, available: int) -> bool:
    """Whether a training process's clips are loaded beside its computation.

    That takes loader processes; and, where the CPU computes, cores that are left for them.

    Args:
        threads: of the computation on a CPU.
        available: cores that the process and its loader processes share.

    >>> [overlapping("cpu", threads, num_workers=1, available=2) for threads in (1, 2)]
    [True, False]
    >>> [overlapping("cuda", 8, num_workers, available=8) for num_workers in (0, 1)]
    [False, True]
    """
    return num_workers > 0 and (device == "cuda" or threads + num_workers <= available)


def threads_of(processes: int) -> int | None:
    """CPU threads of one of so many training processes; None: as torch, or the user, chose."""
    if processes == 1 or "OMP_NUM_THREADS" in environ:
        return None
    return max(1, cores() // processes)


def setting_of(
    cfg: Config, plan: DataPlan, *, device: str = "cpu", precision: Any = "fp32"
) -> Setting:
    """The configuration as the benchmark takes it."""
    return Setting(
        backbone=cfg.model.backbone,
        num_frames=plan.sampling.num_frames,
        crop_size=plan.crop_size,
        num_classes=plan.num_classes,
        from_image=cfg.model.from_image,
        head=cfg.model.head,
        tubelet_size=cfg.model.tubelet_size,
        patch_size=cfg.model.patch_size,
        drop_path=cfg.model.drop_path,
        batch_size=cfg.train.batch_size,
        precision=precision,
        device=device,
        recompute=cfg.train.recompute,
        optimizer=cfg.train.optimizer,
        compile=cfg.train.compile,
    )


def step_cost(cfg: Config, steps: int, threads: int | None) -> StepCost:
    """Training steps, then matrix products, on the device that training takes; fresh process.

    Raises:
        MemoryError: the device has too little.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = resolved_precision(device, cfg.train.precision)
    setting = setting_of(cfg, _plan(cfg), device=device.type, precision=precision)
    try:
        measured = benchmark.measure(setting, cfg.method, steps=steps, threads=threads)
    except torch.OutOfMemoryError as error:
        raise MemoryError(
            f"a training step does not fit into the {device.type} device's memory; lower "
            "train.batch_size or the number of frames, or set train.recompute"
        ) from error
    peak = benchmark.process_memory("VmHWM")
    gc.collect()
    with torch.device("meta"):
        model = benchmark.bare_model(setting)
    tokens, shapes = block_products(model)
    turn = matmul_turn(setting.batch_size * tokens, shapes, model.depth, DTYPES[precision], device)
    turn()
    began, turns = time.perf_counter(), list[float]()
    while len(turns) < MATMUL_TURNS or time.perf_counter() - began < MATMUL_SECONDS:
        turns.append(turn())
    return StepCost(device.type, precision, measured, peak, 1 / statistics.median(turns))


def _plan(cfg: Config) -> DataPlan:
    return data.resolve(with_lists(cfg.data), cfg.eval)
