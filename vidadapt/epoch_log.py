"""What an epoch of training came to: lines in the run's logs, and one on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from vidadapt import runs
from vidadapt.progress import duration


def write_log(
    run_dir: Path,
    board: SummaryWriter,
    steps: int,
    losses: list[float],
    lrs: list[float],
    latest: dict[str, Any],
) -> None:
    """The epoch's lines in `steps.jsonl` and `log.jsonl`, and the same curves in TensorBoard.

    Args:
        steps: optimiser steps of the run so far, this epoch's included.
        losses, lrs: of each of this epoch's.
        latest: the epoch's line of `log.jsonl`.
    """
    epoch, first = latest["epoch"], steps - len(losses)
    lines = [
        {"step": first + number, "epoch": epoch, "loss": loss, "lr": lr}
        for number, (loss, lr) in enumerate(zip(losses, lrs, strict=True))
    ]
    runs.append_lines(run_dir / "steps.jsonl", lines)
    runs.append_lines(run_dir / "log.jsonl", [latest])
    for line in lines:
        board.add_scalar("train/loss", line["loss"], line["step"])
        board.add_scalar("train/lr", line["lr"], line["step"])
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
