"""What a training needs to be continued: how far it is, its state on disk, and signals to stop."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch

from vidadapt.config import TrainConfig
from vidadapt.distributed import Stopped, World, own_buffers
from vidadapt.methods import load_trainable_state, trainable_state
from vidadapt.models import VideoModel
from vidadapt.runs import RunError, checkpoints
from vidadapt.training.optim import WeightAverage, build_optimizer, parameter_groups
from vidadapt.training.sharding import gathered, placed, placed_optimizer

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True)
class StepRecord:
    """What is logged of an optimiser step, under the names of its fields.

    A new field needs a default, which stands for it in steps that an older version has made.

    Attributes:
        loss: mean over the step's clips.
        lr: learning rate.
    """

    loss: float
    lr: float


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: finished ones.
        consumed: clips of the epoch begun that all processes together have trained on.
        steps: optimiser steps of the run.
        seconds: that the run has taken.
        train_seconds, waited: of the epoch begun: for its steps, and waiting for data in them.
        records: of each step of the epoch begun.
        joined: whether the buffers of all processes were averaged after its last step.
        best: results of the best epoch.
        latest: the last epoch's line of `log.jsonl`.
    """

    epoch: int = 0
    consumed: int = 0
    steps: int = 0
    seconds: float = 0.0
    train_seconds: float = 0.0
    waited: float = 0.0
    records: list[StepRecord] = field(default_factory=list)
    joined: bool = False
    best: dict[str, Any] | None = None
    latest: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, saved: dict[str, Any]) -> Progress:
        """The progress in a checkpoint; what an older version did not keep has its default.

        Raises:
            RunError: a newer version has kept what this one does not know.
        """
        known = dict(saved)
        if "records" not in known:
            columns = zip(known.pop("losses", []), known.pop("lrs", []), strict=True)
            known["records"] = [{"loss": loss, "lr": lr} for loss, lr in columns]
        try:
            return cls(**{**known, "records": [StepRecord(**each) for each in known["records"]]})
        except TypeError as error:
            raise RunError(
                f"{checkpoints.TRAINER} is of another version of vidadapt ({error}); resume the "
                "run with the version that wrote it"
            ) from error

    def is_best(self, results: dict[str, float]) -> bool:
        """Whether results of validation are at least as good as the best ones before.

        A run that an older version began has no loss of its best epoch.
        """
        if self.best is None:
            return True
        loss, before = results["dev_loss"], self.best.get("dev_loss", math.inf)
        return (results["dev_top1"], -loss) >= (self.best["dev_top1"], -before)

    def after_epoch(
        self, results: dict[str, float], *, clips: int, validate_seconds: float, is_best: bool
    ) -> Progress:
        """At the start of the next epoch.

        Args:
            results: of validation.
            clips: of the epoch, those of all processes together.
        """
        epoch = self.epoch + 1
        latest = {
            "epoch": epoch,
            "train_loss": sum(record.loss for record in self.records) / len(self.records),
            "lr": self.records[-1].lr,
            "clips_per_second": clips / self.train_seconds,
            "loader_wait_share": self.waited / self.train_seconds,
            "train_seconds": self.train_seconds,
            "validate_seconds": validate_seconds,
            **results,
        }
        return Progress(
            epoch=epoch,
            steps=self.steps,
            seconds=self.seconds + validate_seconds,
            best={"epoch": epoch, **results} if is_best else self.best,
            latest=latest,
        )


@dataclass
class StopRequest:
    """Whether a signal has asked for an end; `at_once`: it raises `Stopped` where it arrives."""

    number: int | None = None
    at_once: bool = False

    @contextmanager
    def heeded_at_once(self) -> Iterator[None]:
        """For work that need not be finished.

        Raises:
            Stopped: a signal came before or comes within.
        """
        if self.number is not None:
            raise Stopped(self.number)
        self.at_once = True
        try:
            yield
        finally:
            self.at_once = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """SIGTERM and SIGUSR1 (a scheduler's warning) are noted, in place of ending the process."""
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        request.number = number
        if request.at_once:
            raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class TrainingState:
    """What changes in training beside `Progress`; `average` is None without one.

    Of sharded weights all processes together take copies, and the main one alone gets them.
    """

    world: World
    model: VideoModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None

    @classmethod
    def begun(cls, world: World, model: VideoModel, recipe: TrainConfig) -> TrainingState:
        """The state before the first step of a model that is ready to train."""
        groups = parameter_groups(
            model,
            depth=model.depth,
            weight_decay=recipe.weight_decay,
            layer_decay=recipe.layer_decay,
        )
        return cls(
            world,
            model,
            build_optimizer(recipe.optimizer, groups),
            torch.amp.GradScaler(world.device.type, enabled=recipe.precision == "fp16"),
            WeightAverage(model, recipe.ema) if recipe.ema > 0 else None,
        )

    def snapshot(
        self, buffers: list[dict[str, torch.Tensor]], facts: dict[str, Any]
    ) -> dict[str, Any]:
        """A copy on the CPU of all that resuming needs beside `Progress`.

        Args:
            buffers: `own_buffers` of every process, which differ until the end of an epoch
                (BatchNorm's statistics of the clips that each has seen); or of one for all.
        """
        return copied(
            {
                "trained": trainable_state(self.model),
                "buffers": buffers,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "average": None if self.average is None else self.average.values,
                "facts": facts,
            },
            kept=self.world.is_main,
        )

    def restore(self, saved: dict[str, Any]) -> Progress:
        """Put a snapshot in place; of another number of processes, the mean of their buffers."""
        own = trainable_state(self.model)
        trained = {
            name: placed(tensor, own[name]) if name in own else tensor
            for name, tensor in saved["trained"].items()
        }
        load_trainable_state(self.model, trained, checkpoints.TRAINER)
        everyones = saved["buffers"]
        if len(everyones) == self.world.size:
            mine = everyones[self.world.rank]
        else:
            mine = {
                name: torch.stack([buffers[name] for buffers in everyones]).mean(0)
                for name in everyones[0]
            }
        with torch.no_grad():
            for name, buffer in own_buffers(self.model).items():
                buffer.copy_(mine[name])
            if self.average is not None:
                for name, value in self.average.values.items():
                    value.copy_(placed(saved["average"][name], value))
        self.optimizer.load_state_dict(placed_optimizer(saved["optimizer"], self.optimizer))
        self.scaler.load_state_dict(saved["scaler"])
        return Progress.of(saved["progress"])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """With the averages in the place of the parameters, where there are some."""
        if self.average is None:
            yield
            return
        self.average.swap(self.model)
        try:
            yield
        finally:
            self.average.swap(self.model)

    def evaluated(self) -> dict[str, torch.Tensor]:
        """A copy on the CPU of the tensors that are evaluated."""
        with self.averaged():
            return copied(trainable_state(self.model), kept=self.world.is_main)


def copied(value: Any, kept: bool = True) -> Any:
    """Nested dicts, lists and tuples with every tensor copied to the CPU, sharded ones whole.

    Args:
        kept: the tensors are wanted here; None stands in the place of each where they are not.
    """
    if isinstance(value, torch.Tensor):
        tensor = gathered(value.detach())
        return tensor.to("cpu", copy=True) if kept else None
    if isinstance(value, dict):
        return {key: copied(item, kept) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(item, kept) for item in value)
    return value
