"""A run's folder: configuration, environment, log, checkpoints.

    config.yaml         the resolved configuration, written by the caller
    environment.json    versions, machine, processes, git commit
    log.jsonl           one line an epoch
    steps.jsonl         one line an optimiser step
    tensorboard/        the same curves
    last/, best/        adapter.safetensors + adapter.json: what the method trained, self-described
    profile/            where the time of a step goes, if that was asked
    last/trainer.pt     what only resuming needs: optimiser, scaler, average of weights

Everything is written under a temporary name and renamed, so that a file with its final name is
whole.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

PROFILE = "profile"
TENSORS, DESCRIPTION, TRAINER = "adapter.safetensors", "adapter.json", "trainer.pt"


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

    A profile is nothing that a run would overwrite.
    """
    folder = Path(run_dir)
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise RunError(
            f"run_dir: cannot write to {folder} (below {nearest}); choose another folder"
        )
    held = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    if not resume and held - {PROFILE}:
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


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, with indents and a final newline."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def environment(world_size: int, device: str) -> dict[str, Any]:
    """Versions and machine: what another person needs to know to get the same digits."""
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


def append_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Append JSON lines."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def drop_lines_from(path: Path, key: str, first: int) -> None:
    """Keep the JSON lines whose `key` is below `first`.

    A resumed run calls this, so that what it computes again does not stand in the log twice.
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


def save_checkpoint(
    folder: Path,
    tensors: dict[str, torch.Tensor],
    description: dict[str, Any],
    trainer: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint folder whole, replacing the one of the same name.

    Args:
        folder: `<run>/last` or `<run>/best`.
        tensors: trainable tensors and buffers.
        description: readable JSON: method, backbone with fingerprint, classes.
        trainer: state for resuming.

    Raises:
        RunError: the disk refused (full, read-only); the previous checkpoint stays whole.
    """
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        whole = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        save_file(whole, temporary / TENSORS)
        write_json(temporary / DESCRIPTION, description)
        if trainer is not None:
            torch.save(trainer, temporary / TRAINER)
        for file in temporary.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        previous = folder.with_name(folder.name + ".old")
        if folder.exists():
            shutil.rmtree(previous, ignore_errors=True)
            folder.rename(previous)
        temporary.rename(folder)
        shutil.rmtree(previous, ignore_errors=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunError(
            f"cannot write the checkpoint {folder}: {error}; the previous one is unharmed. Make "
            "room or choose another run_dir, then continue with --resume"
        ) from error


def find_checkpoint(folder: Path) -> Path | None:
    """The checkpoint folder, or its predecessor if a crash fell between the two renames."""
    previous = folder.with_name(folder.name + ".old")
    return folder if folder.exists() else previous if previous.exists() else None


def load_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the description of a checkpoint folder.

    Raises:
        RunError: missing, truncated or malformed, naming the file.
    """
    description_file, tensor_file = folder / DESCRIPTION, folder / TENSORS
    for file in (description_file, tensor_file):
        if not file.is_file():
            raise RunError(f"{file}: no such file; a checkpoint folder holds {file.name}")
    try:
        description = json.loads(description_file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise RunError(f"{description_file}: not valid JSON ({error})") from error
    try:
        with safe_open(tensor_file, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise RunError(
            f"{tensor_file}: truncated or not a safetensors file ({error}); restore it from a copy "
            "or train again"
        ) from error
    return tensors, description


def load_trainer(folder: Path) -> dict[str, Any]:
    """The state for resuming.

    Raises:
        RunError: missing, truncated or malformed, naming the file.
    """
    file = folder / TRAINER
    if not file.is_file():
        raise RunError(f"{file}: no such file; only `last` can be resumed")
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise RunError(
            f"{file}: truncated or damaged ({type(error).__name__}); the weights beside it may "
            "still be whole: evaluate them, or start again in another run_dir"
        ) from error
