"""A run's folder: configuration, environment, log.

    config.yaml         the resolved configuration, written by the caller
    environment.json    versions, machine, processes, git commit
    log.jsonl           one line an epoch
    steps.jsonl         one line an optimiser step
    tensorboard/        the same curves
    last/, best/        see `checkpoints`
    profile/            where the time of a step goes, if asked for
    .lock               which process writes here, while one does: see `files.locks`
    failure.json        why the run ended, if it failed: see `launching.failures`
    mirror.json         which run this is at the URL that it is copied to: see `mirror`

The folder of a grid has grid.json and the folders of its runs, see `training.grid`.

Logs get their lines appended. All other files are written under a temporary name and renamed, so
that a file with its final name is whole.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from vidadapt.files import LOCK, write_text

PROFILE, ENVIRONMENT, FAILURE = "profile", "environment.json", "failure.json"
MIRROR = "mirror.json"
GRID = "grid.json"


class RunError(ValueError):
    """A run folder or a checkpoint in it cannot be used as asked."""


def check_writable(key: str, folder: Path) -> None:
    """Make the folder and write to it, or raise `RunError` naming the configuration key."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RunError(
            f"{key}: cannot write to {folder} ({error.strerror}); choose another folder"
        ) from error


def check_free(run_dir: str | Path, resume: bool) -> None:
    """Raise `RunError` if the folder cannot be made, or holds something without `resume`.

    A profile, locks, `failure.json` or `mirror.json` may be there.
    """
    folder = Path(run_dir)
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise RunError(
            f"run_dir: cannot write to {folder} (below {nearest}); choose another folder"
        )
    names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    held = {name for name in names if not name.startswith((LOCK, f".{MIRROR}{LOCK}"))}
    if not resume and held - {PROFILE, FAILURE, MIRROR}:
        raise RunError(
            f"run_dir: {folder} exists and is not empty; continue it with --resume, or choose "
            "another folder"
        )


def create(run_dir: str | Path, resume: bool) -> None:
    """Make the run folder, or check that it may be continued.

    Raises:
        RunError: it holds something and `resume` is not asked for, or it cannot be written.
    """
    check_free(run_dir, resume)
    check_writable("run_dir", Path(run_dir))


def environment(world_size: int, device: str) -> dict[str, Any]:
    """Versions and machine: what another person needs to know to get the same numbers."""
    packages = ["torch", "torchvision", "timm", "av", "decord", "numpy", "vidadapt"]
    return {
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in packages},
        "platform": platform.platform(),
        "device": device,
        "processes": world_size,
        "cpu_threads": torch.get_num_threads(),
        "git_commit": _git_commit(),
        "command": sys.argv,
        "working_directory": str(Path.cwd()),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:
        return None


def _git_commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return found.stdout.strip() or None


def drop_lines_from(path: Path, key: str, first: int) -> None:
    """Keep the JSON lines whose `key` is below `first`.

    A resumed run calls this, so that what it computes again is not in the log twice.
    """
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if _value(line, key) < first]
    if len(kept) < len(lines):
        write_text(path, "".join(line + "\n" for line in kept))


def _value(line: str, key: str) -> float:
    try:
        return json.loads(line)[key]
    except (json.JSONDecodeError, KeyError):
        return float("inf")  # the half-written last line of a killed run
