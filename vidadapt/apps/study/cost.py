"""The cost of one configuration: parameters, file, FLOPs, memory, step time, loading time.

Everything is of the configuration's own run: its model (with random weights, which cost the same),
method, batch size, precision, optimiser and recomputation, and its own training loader. Step and
loader are measured one after the other, each in a process of its own; what both come to in an epoch
is projected from them, see `projected`. Figures of `cell_cost`:

step_seconds            median of a forward, a backward and an optimiser step on `batch_size` clips
                        that are on the device, normalised: without mixing, clipping of gradients,
                        averaging of weights, and the exchange between processes
peak_memory_bytes       see `benchmark.Measurements`
peak_process_bytes      most that the whole process held, torch and the CUDA runtime included; null
                        where the system does not tell
matmul_tflops           10^12 FLOPs a second of plain matrix products, measured after the steps
matmul_share            the training FLOPs by the time of the step, over that rate
data_seconds_per_clip   the training loader alone, median of rounds; files are in the system's cache
                        where they fit
data_share              data / (data + step), both per clip
clips_per_second, epoch_seconds   see `projected`
noisy                   names of the spreads above `NOISY_PERCENT`
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from os import environ
from pathlib import Path
from typing import Any

import torch

from vidadapt import data
from vidadapt.apps.study import benchmark
from vidadapt.apps.study.benchmark import NOISY_PERCENT, Counts, Setting, spread_percent
from vidadapt.apps.study.loading import Batching, data_cost
from vidadapt.apps.study.matmul import DTYPES, block_products, matmul_turn
from vidadapt.config import Config, ConfigError
from vidadapt.data import DataPlan, cores
from vidadapt.lists import with_lists
from vidadapt.models import RANDOM, WITHOUT_FILE, Precision, is_hub_name, resolved_precision
from vidadapt.runs import all_settings
from vidadapt.training import process_memory

MATMUL_TURNS, MATMUL_SECONDS = 3, 0.5  # at least, both


@dataclass(frozen=True)
class Machine:
    """What this machine trains in.

    Attributes:
        device: its type.
        auto: what `train.precision: auto` is on it.
    """

    device: str
    auto: Precision

    def precision(self, settings: Mapping[str, Any]) -> str:
        """Return the number format in which a run with these settings trains here."""
        asked = all_settings(settings)["train.precision"]
        return self.auto if asked == "auto" else asked


def this_machine() -> Machine:
    """Look at this machine, without holding its GPU."""
    return benchmark.in_fresh_process(_machine) if torch.cuda.is_available() else _machine()


def _machine() -> Machine:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Machine(device.type, resolved_precision(device, "auto"))


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
    """Count and measure a configuration without training it to the end; keys: see the module.

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
    step = benchmark.in_fresh_process(step_cost, cfg, steps, threads, plugins=cfg.plugins)
    step_per_clip = step["step_seconds"] / cfg.train.batch_size
    data_per_clip = statistics.median(loading.seconds_per_clip)
    tflops = known.training_flops_per_clip / step_per_clip / 1e12
    workers, available = loading.num_workers, cores() // processes
    beside = overlapping(step["device"], step["threads"], workers, available)
    rate = projected(step_per_clip, data_per_clip, processes=processes, overlapping=beside)
    spreads = {
        "step_spread_percent": step.pop("step_spread_percent"),
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
        **step,
        "matmul_share": tflops / step["matmul_tflops"],
        "data_seconds_per_clip": data_per_clip,
        **spreads,
        "data_share": data_per_clip / (data_per_clip + step_per_clip),
        "clips_per_second": rate,
        "epoch_seconds": loading.clips_per_epoch / rate,
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
    """Check that a training process loads clips beside its computation.

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
    shape = {key: getattr(plan, key) for key in ("crop_size", "num_classes")}
    known = {**vars(cfg.model), **vars(cfg.train), **shape, "device": device}
    known |= {"num_frames": plan.sampling.num_frames, "precision": precision}
    return Setting(**{field.name: known[field.name] for field in fields(Setting)})


def step_cost(cfg: Config, steps: int, threads: int | None) -> dict[str, Any]:
    """Training steps, then matrix products, on the device that training takes; fresh process.

    Returns:
        Those figures of `cell_cost` that are measured on it.

    Raises:
        MemoryError: the device has too little.
    """
    device = torch.device(_machine().device)
    precision = resolved_precision(device, cfg.train.precision)
    setting = setting_of(cfg, _plan(cfg), device=device.type, precision=precision)
    try:
        measured = benchmark.measure(setting, cfg.method, steps=steps, threads=threads)
    except torch.OutOfMemoryError as error:
        raise MemoryError(
            f"a training step does not fit into the {device.type} device's memory; lower "
            "train.batch_size or the number of frames, or set train.recompute"
        ) from error
    peak = process_memory("VmHWM")
    gc.collect()
    with torch.device("meta"):
        model = benchmark.bare_model(setting)
    tokens, shapes = block_products(model)
    turn = matmul_turn(setting.batch_size * tokens, shapes, model.depth, DTYPES[precision], device)
    turn()
    began, turns = time.perf_counter(), list[float]()
    while len(turns) < MATMUL_TURNS or time.perf_counter() - began < MATMUL_SECONDS:
        turns.append(turn())
    return {
        "precision": precision,
        "device": device.type,
        "batch_size": setting.batch_size,
        "threads": measured.threads,
        "step_seconds": measured.step_seconds,
        "step_spread_percent": measured.step_spread_percent,
        "peak_memory_bytes": measured.peak_memory_bytes,
        "peak_process_bytes": peak,
        "matmul_tflops": 1 / statistics.median(turns),
    }


def _plan(cfg: Config) -> DataPlan:
    return data.resolve(with_lists(cfg.data), cfg.eval)
