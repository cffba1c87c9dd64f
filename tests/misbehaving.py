"""Stands for a decoder that hangs on one file and dies on another: a light import."""

from __future__ import annotations

import ctypes
import inspect
import os
import signal
import struct
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import Dataset

from vidadapt.config import DataConfig
from vidadapt.data import DataPlan, SampleKey
from vidadapt.data.clips import EvalViews, TrainClips
from vidadapt.data.loaders import TrainLoader
from vidadapt.data.worker_count import loader_processes
from vidadapt.lists import CountJob, Videos, count_file
from vidadapt.video import ReadError, VideoFacts


def count(job: CountJob) -> VideoFacts:
    """Hang on b.webm, die on sub/c.avi, and decode anything else."""
    if job.path == "b.webm":
        time.sleep(1000)
    if job.path == "sub/c.avi":
        os.kill(os.getpid(), signal.SIGSEGV)
    return count_file(job)


class Clips(Dataset[dict[str, Any]]):
    """Clips (3, 2, 4, 5) by key (epoch, index, copy), some of which do what decoders do.

    Args:
        size: number of samples.
        faults: what happens at which index, a name of `misbehave`.
        log: file with a line "index\n" for every clip that was begun.
    """

    def __init__(self, size: int, faults: dict[int, str], log: Path) -> None:
        self.size, self.faults, self.log = size, faults, log
        self.samples = Videos.of("/", [], {})

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: tuple[int, int, int]) -> dict[str, Any]:
        index = key[1]
        begun = self.log.read_text().split() if self.log.exists() else []
        with self.log.open("a") as file:
            file.write(f"{index}\n")
        misbehave(self.faults.get(index, ""), before=str(index) in begun)
        generator = torch.Generator().manual_seed(key[0] * 1000 + index * 10 + key[2])
        clip = torch.randint(0, 256, (3, 2, 4, 5), dtype=torch.uint8, generator=generator)
        return {"clip": clip, "label": index % 3, "index": index, "again": "", "changed": ""}

    def together(self, keys: Iterable[SampleKey]) -> None:
        """Share nothing: these clips have no files."""


def misbehave(how: str, *, before: bool) -> None:
    """Do what a decoder does wrong; "killed once" only if it was not begun `before`."""
    if how == "hang":
        # Nothing but SIGKILL ends this; Python's lock is free.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        ctypes.CDLL(None).pause()
    elif how == "hang locked":
        ctypes.PyDLL(None).pause()
    elif how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "exit":
        os._exit(1)
    elif how == "exit sending":
        # As when it is killed while it sends a result.
        frame = inspect.currentframe()
        while frame is not None and "pipe" not in frame.f_locals:
            frame = frame.f_back
        assert frame is not None
        os.write(frame.f_locals["pipe"].fileno(), struct.pack("!i", 1000) + b"half a result")
        os._exit(1)
    elif how == "killed once" and not before:
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "unreadable":
        raise ReadError("file.mp4: moov atom not found")


class Views(EvalViews):
    """`EvalViews` of which some indices `misbehave`.

    Args:
        faults, log: see `Clips`.
    """

    def __init__(self, *arguments: Any, faults: dict[int, str], log: Path, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.faults, self.log = faults, log

    def __getitem__(self, index: int) -> dict[str, Any]:
        with self.log.open("a") as file:
            file.write(f"{index}\n")
        misbehave(self.faults.get(index, ""), before=False)
        return super().__getitem__(index)


def die_joining(items: list[Any]) -> None:
    """Die outside any item, as by a lack of memory."""
    os._exit(7)


class Faulty(Dataset[Any]):
    """A data set with keys (epoch, index, copy) of which some indices `misbehave`.

    Args:
        faults, log: see `Clips`.
    """

    def __init__(self, dataset: TrainClips, faults: dict[int, str], log: Path) -> None:
        self.dataset, self.faults, self.log = dataset, faults, log
        self.samples = dataset.samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int, int]) -> Any:
        misbehave(self.faults.get(key[1], ""), before=False)
        return self.dataset[key]

    def together(self, keys: Iterable[SampleKey]) -> None:
        self.dataset.together(keys)


def faulty(
    train_loader: Callable[..., TrainLoader], faults: dict[int, str], log: Path
) -> Callable[..., TrainLoader]:
    """A function like `data.train_loader` whose loaders' clips of some indices `misbehave`."""

    def make(config: DataConfig, plan: DataPlan, *arguments: Any, **options: Any) -> TrainLoader:
        loader = train_loader(config, plan, *arguments, **options)
        return TrainLoader(
            cast(TrainClips, Faulty(loader.dataset, faults, log)),
            loader.batch_sampler,
            normalization=plan.normalization,
            clip_timeout=config.clip_timeout,
            num_workers=loader_processes(config.num_workers),
        )

    return make
