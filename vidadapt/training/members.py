"""The runs that train side by side, each with what it has alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from vidadapt.config import TrainConfig
from vidadapt.distributed import Stopped, World, require_equal_weights
from vidadapt.features import Halves
from vidadapt.files import Lock
from vidadapt.launching import located, record
from vidadapt.models import NonFinite
from vidadapt.runs import CheckpointWriter
from vidadapt.training.log import open_board
from vidadapt.training.state import Progress, Saving, TrainingState
from vidadapt.training.steps import DivergedElsewhere, Stretch


@dataclass
class Member:
    """A run among those that train side by side.

    Attributes:
        name: of its folder.
        parts: its model, cut in two, which takes features.
        recipe: its own.
        description, facts, lock: as for `loop.fit`.
        resume_state: as for `loop.fit`; emptied.
        error: it diverged.
    """

    name: str
    folder: Path
    parts: Halves
    recipe: TrainConfig
    description: dict[str, Any]
    facts: dict[str, Any]
    lock: Lock | None
    resume_state: dict[str, Any] | None
    error: BaseException | None = None
    progress: Progress = field(default_factory=Progress)

    def trains_in(self, epoch: int) -> bool:
        """Return whether it has something to do in an epoch, from 0."""
        stalled = self.progress.stalled(self.recipe.early_stopping_patience)
        return self.error is None and self.progress.epoch == epoch and not stalled

    @contextmanager
    def apart(self, world: World) -> Iterator[None]:
        """Run a part of its training; where it diverges, it alone ends, on all processes."""
        try:
            with located(lambda: (self.progress.epoch + 1, self.progress.steps)):
                yield
        except (NonFinite, DivergedElsewhere) as error:
            self.error = error
            if isinstance(error, NonFinite):
                record(world, self.folder, error)
            if world.is_main:
                print(f"{self.name} has diverged, the others go on: {error}", flush=True)


@dataclass
class Running:
    """A member with all that it is trained with, while the loop runs.

    Attributes:
        lr, figures: learning rate, loss and hits of the step that is being made.
        stopped: by a signal; a checkpoint was written.
    """

    member: Member
    state: TrainingState
    saving: Saving
    board: SummaryWriter | None
    stretch: Stretch
    figures: torch.Tensor
    lr: float = 0.0
    stopped: Stopped | None = None

    @property
    def progress(self) -> Progress:
        return self.member.progress


def begun(member: Member, world: World, stack: ExitStack) -> Running:
    """Begin a member's training, or go on with it; `stack` closes its files."""
    recipe = member.recipe
    state = TrainingState.begun(world, member.parts.model, recipe)
    if member.resume_state is not None:
        require_equal_weights(world, member.resume_state["trained"])
        member.progress = state.restore(member.resume_state)
        member.resume_state.clear()
    saving = Saving(
        stack.enter_context(CheckpointWriter()),
        state,
        member.folder,
        member.description,
        member.facts,
        keep=recipe.keep_checkpoints,
        minutes=recipe.checkpoint_minutes,
        lock=member.lock,
    )
    board = stack.enter_context(open_board(member.folder, member.progress, world))
    stretch = Stretch(world.device, recipe)
    return Running(member, state, saving, board, stretch, torch.zeros(2, device=world.device))
