"""Options of vidadapt bench_frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from vidadapt.config import ConfigError, Within


@dataclass(frozen=True)
class MatrixOptions:
    """Options of vidadapt bench_frames.

    Attributes:
        config: YAML of a training run; see below.
        report: only write table and plots of the results.jsonl in this folder anew.
        sweep: YAML with other `variants`.
        methods: variants or methods; default: all variants.
        frames: numbers of frames.
        seeds: seeds of training.
        rates: grid over train.base_lr: every variant gets the one with the best train.select on
            the development list, at --rates_at frames and the first seed; of equal ones the first.
            Those of a method that keeps the lower layers as they are train side by side.
        rates_at: number of frames; default: the last of --frames.
        processes: train and evaluate under torchrun with so many, batch_size clips each.
        steps: timed steps of a cost.
        cost_only: measure costs, train nothing.
        out: folder to write.
        folds: folder that vidadapt prepare --folds wrote: every cell is trained and evaluated on
            each fold, and its accuracy is that of all their test videos together. A rate of the
            grid is chosen in each fold by that fold's own development list.
        tasks: folder of the lists of several tasks, as vidadapt prepare vtab writes it: every cell
            is trained and evaluated on each task, and its accuracy is the mean over the tasks. A
            rate of the grid is chosen for each task by its own development list; then a task with a
            folder `final` is trained on the lists in that.
        plugins: modules to import first, separated by commas, in every cell, too; they may add
            methods, backbones, data sets and metrics.
    """

    config: Path | None = None
    report: Path | None = None
    sweep: Path | None = None
    methods: Sequence[str] | None = None
    frames: Sequence[int] = (2, 4, 8)
    seeds: Sequence[int] = (0,)
    rates: Sequence[float] | None = None
    rates_at: int | None = None
    processes: Annotated[int, Within("[1, inf)")] = 1
    steps: Annotated[int, Within("[2, inf)")] = 10
    cost_only: bool = False
    out: Path = Path("runs/frames")
    folds: Path | None = None
    tasks: Path | None = None
    plugins: str | None = None

    @property
    def grid_frames(self) -> int:
        """The number of frames at which the grid over rates is run."""
        return self.rates_at or self.frames[-1]

    @property
    def all_frames(self) -> list[int]:
        """The numbers of frames of all cells, those of the grid included."""
        return list(dict.fromkeys([*self.frames, self.grid_frames]))


def check_options(asked: MatrixOptions) -> None:
    """Check options that cannot be together.

    Raises:
        ConfigError: two that cannot be together, or a value twice.
    """
    if (asked.config is None) == (asked.report is None):
        raise ConfigError("give one of --config FILE and --report DIR")
    if asked.rates_at is not None and not asked.rates:
        raise ConfigError("--rates_at: is about --rates; give some")
    if asked.folds is not None and asked.tasks is not None:
        raise ConfigError("--tasks: cannot be with --folds; give one of them")
    for name in ("frames", "seeds", "rates", "methods"):
        values = getattr(asked, name) or []
        # Six digits of a rate name its folder.
        named = {f"{value:g}" if isinstance(value, float) else value for value in values}
        if len(named) < len(values):
            raise ConfigError(f"--{name}: each once, got {' '.join(map(str, values))}")
