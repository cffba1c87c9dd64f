"""What an epoch of training came to: lines in the run's logs, and one on the terminal."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from vidadapt import runs
from vidadapt.console.progress import duration
from vidadapt.training.resuming import StepRecord


def write_log(
    run_dir: Path,
    board: SummaryWriter,
    steps: int,
    records: list[StepRecord],
    latest: dict[str, Any],
) -> None:
    """The epoch's lines in `steps.jsonl` and `log.jsonl`, and the same curves in TensorBoard.

    Args:
        steps: optimiser steps of the run so far, this epoch's included.
        records: of each of this epoch's.
        latest: the epoch's line of `log.jsonl`.
    """
    epoch, first = latest["epoch"], steps - len(records)
    figures = [asdict(record) for record in records]
    lines = [
        {"step": first + number, "epoch": epoch, **found} for number, found in enumerate(figures)
    ]
    runs.append_lines(run_dir / "steps.jsonl", lines)
    runs.append_lines(run_dir / "log.jsonl", [latest])
    for number, found in enumerate(figures):
        for key, value in found.items():
            board.add_scalar(f"train/{key}", value, first + number)
    for key, value in latest.items():
        board.add_scalar(f"epoch/{key}", value, epoch)
    board.flush()


def say_epoch(latest: dict[str, Any], seconds: float, epochs: int) -> None:
    """One line for the terminal: results, speed and the time that is left.

    Args:
        latest: the epoch's line of `log.jsonl`.
        seconds: of all epochs so far.
        epochs: of the whole run.
    """
    left = seconds / latest["epoch"] * (epochs - latest["epoch"])
    accuracies = "".join(
        f", {key.replace('_', ' ').replace('top', 'top-')} {value:.2f}"
        for key, value in latest.items()
        if key.endswith("_top1")
    )
    print(
        f"epoch {latest['epoch']}/{epochs}: loss {latest['train_loss']:.4f}{accuracies}, "
        f"lr {latest['lr']:.3g}, {latest['clips_per_second']:.0f} clips/s, "
        f"loader wait {100 * latest['loader_wait_share']:.0f} %, {duration(left)} left",
        flush=True,
    )
