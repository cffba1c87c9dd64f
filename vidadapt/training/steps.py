"""An optimiser step: its figures, and what the processes tell each other with its gradients."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch

from vidadapt.config import TrainConfig
from vidadapt.console import track
from vidadapt.data import Batches
from vidadapt.distributed import PeerError, World, mean_over_ranks
from vidadapt.models import NonFinite
from vidadapt.training.profiling import WAIT
from vidadapt.training.state import UNHARMED, Progress, StepRecord
from vidadapt.video import ReadError


class DivergedElsewhere(PeerError):
    """The loss of another process is not finite, which raises `NonFinite` there."""


@dataclass(frozen=True)
class Told:
    """Figures that a process sends with a step's gradients; summed, those that it receives.

    Attributes:
        stop: 1 where a signal asks for an end.
        save: 1 where a checkpoint is overdue.
        skipped: clips that were skipped in the epoch.
    """

    stop: float = 0
    save: float = 0
    skipped: float = 0


@dataclass(frozen=True)
class Step:
    """An optimiser step on this process.

    Attributes:
        number: of the run's steps, from 0.
        lr: learning rate.
        files: list paths of this process's clips.
        figures: (7,) on the device: the sum of this process's losses over its number of clips if
            none was skipped; how many of its clips the model was right about (NaN: clips have no
            single label); and summed over all
            processes the share of the clips that were there, those whose loss is not finite, and
            what was `Told`.
    """

    number: int
    lr: float
    files: list[str]
    figures: torch.Tensor
    _on_host: Callable[[], list[float]] = field(repr=False)

    @classmethod
    def taken(cls, number: int, lr: float, files: list[str], figures: torch.Tensor) -> Step:
        """A step whose figures are on their way to the host."""
        return cls(number, lr, files, figures, _to_host(figures))

    def heard(self) -> Told:
        """Wait for the figures, check them, and return the sums of what all processes told.

        Raises:
            NonFinite: the loss is not finite.
            DivergedElsewhere: the loss of another process is not.
            ReadError: no clip of the step was there.
        """
        loss, _, share, lost, *told = self._on_host()
        if share == 0:
            raise ReadError(
                f"every clip of step {self.number} was skipped (skipped.jsonl has them): mend the "
                "files or raise train.batch_size, then go on with --resume"
            )
        if not math.isfinite(loss):
            more = f" and {len(self.files) - 8} more" if len(self.files) > 8 else ""
            raise NonFinite(
                f"the loss is {loss} at step {self.number}, on {', '.join(self.files[:8])}{more}. "
                + UNHARMED
            )
        if lost:
            raise DivergedElsewhere(f"step {self.number}: the loss of another process diverged")
        return Told(*told)


def figures_lag(device: torch.device) -> int:
    """Return how many steps late the figures of a step are read."""
    return 0 if device.type == "cpu" else 1


class Stretch:
    """The steps since the last checkpoint or the start of the epoch.

    Figures of a GPU are read a step late, so that no step waits for its own.

    Attributes:
        steps: those taken so far.
        waited: seconds for data, see `followed`.
    """

    def __init__(self, device: torch.device, recipe: TrainConfig) -> None:
        self.steps: list[Step] = []
        self._clips = recipe.batch_size * recipe.accumulation
        self._lag = figures_lag(device)
        self.waited, self._began = 0.0, time.monotonic()

    def heard(self) -> Told:
        """Return what the newest step heard whose figures need no waiting for; see `Step.heard`."""
        return self.steps[-1 - self._lag].heard() if len(self.steps) > self._lag else Told()

    def settle(self, world: World, progress: Progress) -> None:
        """Add the steps' figures and times to `progress`, all processes together; begin anew."""
        now = time.monotonic()
        progress.train_seconds += now - self._began
        progress.seconds += now - self._began
        progress.waited += self.waited
        if self.steps:
            loss, hits, share = torch.stack([step.figures[:3] for step in self.steps]).unbind(1)
            means = mean_over_ranks(world, loss.contiguous()) * (world.size / share)
            top1 = self._accuracies(mean_over_ranks(world, hits.contiguous()) * world.size, share)
            progress.records += [
                StepRecord(loss=mean, lr=step.lr, top1=accuracy)
                for mean, accuracy, step in zip(means.tolist(), top1, self.steps, strict=True)
            ]
        self.steps.clear()
        self.waited, self._began = 0.0, now

    def _accuracies(self, hits: torch.Tensor, share: torch.Tensor) -> list[float | None]:
        """Return the per cent of hits (N,) among the clips that were there, of N steps."""
        counts = zip(hits.tolist(), (share * self._clips).tolist(), strict=True)
        return [
            None if math.isnan(right) else 100 * round(right) / round(clips)
            for right, clips in counts
        ]


def followed(
    batches: Batches,
    recipe: TrainConfig,
    world: World,
    phase: Callable[[str], AbstractContextManager[None]],
    stretches: Sequence[Stretch],
) -> Iterator:
    """Yield the batches left of an epoch; show progress, and add waiting to the stretches."""
    clips_per_batch = recipe.batch_size * world.size
    return track(
        _timed(batches, phase, stretches),
        total=len(batches) * clips_per_batch,
        label=f"epoch {batches.batch_sampler.epoch + 1}/{recipe.epochs}",
        unit="clips",
        units_per_item=clips_per_batch,
        shown=world.is_main,
    )


def _timed(
    batches: Iterable,
    phase: Callable[[str], AbstractContextManager[None]],
    stretches: Sequence[Stretch],
) -> Iterator:
    left, end = iter(batches), object()
    while True:
        began = time.monotonic()
        with phase(WAIT):
            batch = next(left, end)
        for stretch in stretches:
            stretch.waited += time.monotonic() - began
        if batch is end:
            return
        yield batch


def mixes(recipe: TrainConfig) -> bool:
    """Return whether clips are mixed, which then have no single label."""
    return recipe.mixup > 0 or recipe.cutmix > 0


def batch_seed(seed: int, place: int) -> int:
    """Return the seed of torch's generator (dropout, drop path) in the batch at this place."""
    return (seed * 1_000_003 * 65_537 + place) % 2**63


def _to_host(figures: torch.Tensor) -> Callable[[], list[float]]:
    """Start copying figures to the host; the function waits for them."""
    on_host = figures.to("cpu", non_blocking=True)
    copied = torch.cuda.Event() if figures.is_cuda else None
    if copied is not None:
        copied.record()

    def values() -> list[float]:
        if copied is not None:
            copied.synchronize()
        return on_host.tolist()

    return values
