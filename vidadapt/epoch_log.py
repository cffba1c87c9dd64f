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
    epoch: int,
    steps: int,
    losses: list[float],
    lrs: list[float],
    latest: dict[str, Any],
) -> None:
    """The epoch's lines in `steps.jsonl` and `log.jsonl`, and the same curves in TensorBoard.

    Args:
        epoch: from 0.
        steps: optimiser steps of an epoch.
        losses, lrs: of each of them.
        latest: the epoch's line of `log.jsonl`.
    """
    first = epoch * steps
    lines = [
        {"step": first + number, "epoch": epoch + 1, "loss": loss, "lr": lr}
        for number, (loss, lr) in enumerate(zip(losses, lrs, strict=True))
    ]
    runs.append_lines(run_dir / "steps.jsonl", lines)
    runs.append_lines(run_dir / "log.jsonl", [latest])
    for line in lines:
        board.add_scalar("train/loss", line["loss"], line["step"])
        board.add_scalar("train/lr", line["lr"], line["step"])
    for key, value in latest.items():
        board.add_scalar(f"epoch/{key}", value, epoch + 1)
    board.flush()


def say_epoch(state: dict[str, Any], epochs: int) -> None:
    """One line for the terminal: results, speed and the time that is left.

    Args:
        state: of the run after this epoch: `epoch` (from 1), `seconds` of all so far, `latest`.
        epochs: of the whole run.
    """
    latest = state["latest"]
    left = state["seconds"] / state["epoch"] * (epochs - state["epoch"])
    accuracies = "".join(
        f", {key.replace('_', ' ').replace('top', 'top-')} {value:.2f}"
        for key, value in latest.items()
        if key.endswith("_top1")
    )
    print(
        f"epoch {state['epoch']}/{epochs}: loss {latest['train_loss']:.4f}{accuracies}, "
        f"lr {latest['lr']:.3g}, {latest['clips_per_second']:.0f} clips/s, "
        f"loader wait {100 * latest['loader_wait_share']:.0f} %, {duration(left)} left",
        flush=True,
    )
