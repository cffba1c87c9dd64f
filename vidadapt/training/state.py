"""State of a training run: how far it is, what training changes, and its checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from vidadapt.config import TrainConfig
from vidadapt.distributed import GradientMeans, World, own_buffers
from vidadapt.files import Lock
from vidadapt.methods import load_trainable_state, trainable_state
from vidadapt.models import NonFinite, VideoModel, autocast
from vidadapt.runs import CheckpointWriter, RunError, checkpoints
from vidadapt.training.optim import WeightAverage, build_optimizer, parameter_groups
from vidadapt.training.sharding import gathered, is_sharded, placed, placed_optimizer

Copies = tuple[dict[str, torch.Tensor], dict[str, Any]]  # to be evaluated, and to resume

UNHARMED = (
    "The last checkpoint is unharmed; lower train.base_lr, set train.clip_grad, or use "
    "train.precision bf16 or fp32"
)


@dataclass(frozen=True)
class StepRecord:
    """Figures of an optimiser step, logged under the names of its fields.

    A new field needs a default, which it has in the steps that an older version made.

    Attributes:
        loss: mean over the step's clips.
        lr: learning rate.
        top1: share of the step's clips, in per cent, whose label had the highest score, as they
            were trained on: augmented, and with dropout. None where clips are mixed, which have no
            single label, and in a step that an older version made.
    """

    loss: float
    lr: float
    top1: float | None = None


@dataclass
class Progress:
    """Progress of a run.

    Attributes:
        epoch: finished ones.
        consumed: clips of the epoch begun that all processes together have trained on.
        steps: optimiser steps of the run.
        seconds: that the run has taken.
        train_seconds, waited: of the epoch begun: for its steps, and waiting for data in them.
        records: one for each step of the epoch begun.
        joined: whether the buffers of all processes were averaged after its last step.
        best: results of the best epoch.
        improved: the last epoch whose results were better than all before; `best` may be a later
            one with the same.
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
    improved: int = 0
    latest: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, saved: dict[str, Any]) -> Progress:
        """Read the progress in a checkpoint; what an older version did not keep has its default.

        Raises:
            RunError: a newer version has kept what this one does not know.
        """
        known = dict(saved)
        if known.get("best"):
            known.setdefault("improved", known["best"]["epoch"])
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

    def is_best(self, results: dict[str, float], select: str) -> bool:
        """Return whether results of validation are at least as good as the best ones before.

        A run that an older version began has no loss of its best epoch.

        Args:
            select: metric that decides, see `train.select`.
        """
        return self.best is None or _worth(results, select) >= _worth(self.best, select)

    def stalled(self, patience: int) -> bool:
        """Return whether so many epochs have passed since the last better one; 0: never."""
        return self.best is not None and 0 < patience <= self.epoch - self.improved

    def after_step(self, clips: int) -> None:
        """Count a step.

        Args:
            clips: of all processes together.
        """
        self.steps += 1
        self.consumed += clips
        self.joined = False

    def after_epoch(
        self,
        results: dict[str, float],
        *,
        clips: int,
        validate_seconds: float,
        select: str,
        is_best: bool,
    ) -> Progress:
        """Return the progress at the start of the next epoch.

        Args:
            results: of validation.
            clips: of the epoch, those of all processes together.
            select: see `is_best`.
        """
        epoch = self.epoch + 1
        is_better = is_best and (
            self.best is None or _worth(results, select) > _worth(self.best, select)
        )
        hits = [record.top1 for record in self.records if record.top1 is not None]
        whole = len(hits) == len(self.records)
        latest = {
            "epoch": epoch,
            "train_loss": sum(record.loss for record in self.records) / len(self.records),
            **({"train_top1": sum(hits) / len(hits)} if whole else {}),
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
            improved=epoch if is_better else self.improved,
            latest=latest,
        )

    def result(self, epochs: int) -> dict[str, Any]:
        """Return what a summary has from a run of so many epochs."""
        return {
            "epochs": self.epoch,
            "steps": self.steps,
            "seconds": self.seconds,
            "stopped_early": self.epoch < epochs,
            "best": self.best,
            "last": self.latest,
        }


def _worth(results: dict[str, Any], select: str) -> tuple[float, float]:
    """Return what epochs are ordered by."""
    return results[f"dev_{select}"], -results.get("dev_loss", math.inf)


@dataclass(frozen=True)
class TrainingState:
    """All that training changes beside `Progress`; `average` is None without one.

    All processes copy sharded weights together, and the main process alone gets the copies.
    """

    world: World
    model: VideoModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None
    gradients: GradientMeans

    @classmethod
    def begun(cls, world: World, model: VideoModel, recipe: TrainConfig) -> TrainingState:
        """Make the state before the first step of a model that is ready to train."""
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
            GradientMeans(world, model, model.head),
        )

    def computing(self, precision: str) -> AbstractContextManager[Any]:
        """Return the context of forward passes."""
        # Remembered copies of weights would stay whole until the forward pass has ended.
        return autocast(self.world.device, precision, remember=not is_sharded(self.model))

    def snapshot(
        self, buffers: list[dict[str, torch.Tensor]], facts: dict[str, Any]
    ) -> dict[str, Any]:
        """Copy to the CPU all that resuming needs beside `Progress`.

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
        """Put the averages, where there are some, in the place of the parameters within."""
        if self.average is None:
            yield
            return
        self.average.swap(self.model)
        try:
            yield
        finally:
            self.average.swap(self.model)

    def evaluated(self) -> dict[str, torch.Tensor]:
        """Copy to the CPU the tensors that are evaluated."""
        with self.averaged():
            return copied(trainable_state(self.model), kept=self.world.is_main)


@dataclass
class Saving:
    """The checkpoints `last`, of which the newest few are kept, and `best` of a run.

    Attributes:
        writer: writes them while training goes on.
        description: written beside the weights, with the results of the epoch as `metrics`.
        facts: kept with what resuming needs.
        keep: how many of `last`.
        minutes: between two of `last` within an epoch; 0: any time.
        lock: of the run folder, on the main process.
    """

    writer: CheckpointWriter
    state: TrainingState
    run_dir: Path
    description: dict[str, Any]
    facts: dict[str, Any]
    keep: int
    minutes: float
    lock: Lock | None = None
    _saved_at: float = field(default_factory=time.monotonic)

    def overdue(self) -> bool:
        """Return whether a checkpoint is overdue; the main process says it for all."""
        minutes = (time.monotonic() - self._saved_at) / 60
        return self.state.world.is_main and 0 < self.minutes <= minutes

    def taken(self, buffers: list[dict[str, torch.Tensor]]) -> Copies | None:
        """Copy what a checkpoint of now holds, on the main process; all processes call it together.

        Args:
            buffers: as for `TrainingState.snapshot`.
        """
        is_main = self.state.world.is_main
        if not is_main and not is_sharded(self.state.model):
            return None
        copies = self.state.evaluated(), self.state.snapshot(buffers, self.facts)
        return copies if is_main else None

    def check_lock(self) -> None:
        """Raise `Held` where another process has taken over the run folder."""
        if self.lock is not None:
            self.lock.check()

    def save(self, copies: Copies | None, progress: Progress, is_best: bool = False) -> None:
        """Write what `taken` gave, as `last`, and as `best` too where it is that.

        Raises:
            WriteError: an older one could not be written.
            Held: another process has taken over the run folder; nothing is written.
        """
        self._saved_at = time.monotonic()
        if copies is None:
            return
        self.check_lock()
        evaluated, state = copies
        state["progress"] = asdict(progress)
        known = progress.latest.items()
        results = {k: v for k, v in known if k.startswith(("epoch", "dev_", "test_"))}
        about = {**self.description, "metrics": results}
        if is_best:
            self.writer.save(self.run_dir / "best", evaluated, about)
        self.writer.save(self.run_dir / "last", evaluated, about, state, keep=self.keep)


def check_finite(model: VideoModel, when: str) -> None:
    """Check everything that is trained.

    Args:
        when: for the message.

    Raises:
        NonFinite: names the first tensor that is not finite.
    """
    for name, tensor in trainable_state(model).items():
        if tensor.is_floating_point() and not gathered(torch.isfinite(tensor).all()):
            raise NonFinite(f"{name} is no longer finite {when}. {UNHARMED}")


def copied(value: Any, kept: bool = True) -> Any:
    """Copy every tensor in nested dicts, lists and tuples to the CPU, sharded ones whole.

    Args:
        kept: False: each tensor becomes None, on a process that does not need it.
    """
    if isinstance(value, torch.Tensor):
        tensor = gathered(value.detach())
        return tensor.to("cpu", copy=True) if kept else None
    if isinstance(value, dict):
        return {key: copied(item, kept) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(item, kept) for item in value)
    return value
