"""A run's checkpoints: what they hold, when they are due, and where they go."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from vidadapt.files.locks import Lock
from vidadapt.runs.checkpoints import CheckpointWriter
from vidadapt.training.resuming import Progress, TrainingState
from vidadapt.training.sharding import is_sharded

Copies = tuple[dict[str, torch.Tensor], dict[str, Any]]  # to be evaluated, and to resume


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
        """Whether the last one lies too far back; the main process says it for all."""
        minutes = (time.monotonic() - self._saved_at) / 60
        return self.state.world.is_main and 0 < self.minutes <= minutes

    def taken(self, buffers: list[dict[str, torch.Tensor]]) -> Copies | None:
        """What a checkpoint of now holds, on the main process; all processes call it together.

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
