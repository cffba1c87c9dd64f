"""Checkpoint folders that cannot be lost: written whole or not at all, checked, the last ones kept.

    last/    the newest: adapter.safetensors + adapter.json, what the method trained and its
             description; trainer.pt, which only resuming needs; checksums.json
    last.1/  the one before, and so on
    best/    of the best epoch, without trainer.pt

A folder is written under a temporary name, flushed to the disk, and renamed.
"""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vidadapt.console import printable
from vidadapt.files import NotStored, Patience, WriteError, checksum, require_stored, write_json
from vidadapt.runs.folder import RunError

TENSORS, DESCRIPTION, TRAINER = "adapter.safetensors", "adapter.json", "trainer.pt"
CHECKSUMS = "checksums.json"


def save_checkpoint(
    folder: Path,
    tensors: dict[str, torch.Tensor],
    description: dict[str, Any],
    trainer: dict[str, Any] | None = None,
    *,
    keep: int = 1,
) -> None:
    """Write a checkpoint folder whole; older ones are renamed to `<name>.1`, `<name>.2`, ...

    Args:
        folder: `<run>/last` or `<run>/best`.
        tensors: trainable tensors and buffers.
        description: readable JSON: method, backbone with fingerprint, classes.
        trainer: state for resuming.
        keep: how many stay, this one included.

    Raises:
        WriteError: the disk refused (full, read-only); the previous checkpoint stays whole.
    """
    temporary = folder.with_name(folder.name + ".tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        whole = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        save_file(whole, temporary / TENSORS)
        write_json(temporary / DESCRIPTION, description)
        if trainer is not None:
            torch.save(trainer, temporary / TRAINER)
        files = sorted(temporary.iterdir())
        write_json(temporary / CHECKSUMS, {file.name: checksum(file) for file in files})
        for file in (*files, temporary / CHECKSUMS, temporary):
            _flush(file)
        for number in range(keep, 0, -1):
            older, newer = _generation(folder, number), _generation(folder, number - 1)
            if newer.exists():
                shutil.rmtree(older, ignore_errors=True)
                newer.rename(older)
        temporary.rename(folder)
        _flush(folder.parent)
        for surplus in _generations(folder)[keep:]:
            shutil.rmtree(surplus, ignore_errors=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise WriteError(
            f"cannot write the checkpoint {folder}: {error}; the previous one is unharmed. Make "
            "room or choose another run_dir, then continue with --resume"
        ) from error


def find_checkpoint(folder: Path, *, to_resume: bool = False) -> Path | None:
    """Find the newest whole checkpoint: `folder` itself, else `<name>.1`, ...; None: none.

    A damaged one that is passed over is printed.

    Args:
        to_resume: a checkpoint without the state for resuming counts as damaged.

    Raises:
        RunError: there are some, and all are damaged; names what is wrong with each.
    """
    damaged: list[str] = []
    for candidate in _generations(folder):
        problem = damage(candidate, to_resume=to_resume)
        if problem is None:
            for text in damaged:
                print(f"warning: {text}; using {candidate} in its place")
            return candidate
        damaged.append(problem)
    if damaged:
        raise RunError(
            f"no whole checkpoint is left: {'; '.join(damaged)}. Restore one from a copy, or start "
            "again in another run_dir"
        )
    return None


def set_aside_damaged(folder: Path) -> None:
    """Rename checkpoints that cannot be resumed, so that none replaces a whole one; keep one."""
    for candidate in _generations(folder):
        if damage(candidate, to_resume=True) is not None:
            aside = folder.with_name(f"{folder.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            candidate.rename(aside)


def damage(folder: Path, *, to_resume: bool = False) -> str | None:
    """Say what is wrong with a checkpoint folder by its checksums; None: nothing.

    An adapter without checksums, from elsewhere or with an edited description, counts as whole.

    Args:
        to_resume: it must hold the state for resuming.
    """
    file, resumable = folder / CHECKSUMS, (folder / TRAINER).exists()
    if to_resume and not resumable:
        return f"{folder / TRAINER} is missing"
    if not file.exists() and not resumable:
        return None
    try:
        expected = json.loads(Patience().call(partial(file.read_text, encoding="utf-8")))
        for name in (TENSORS, DESCRIPTION, *([TRAINER] if resumable else [])):
            if name not in expected:
                return f"{file} is damaged: it has no checksum of {name}"
        for name, digest in expected.items():
            if name not in (TENSORS, DESCRIPTION, TRAINER):
                return f"{file} is damaged: {name!r} is no file of a checkpoint"
            part = folder / name
            if not part.is_file():
                return f"{part} is missing"
            if checksum(part) != digest:
                edited = f"; if you have edited it, delete {CHECKSUMS}" * (name == DESCRIPTION)
                return f"{part} is damaged (its checksum is not that of {CHECKSUMS}{edited})"
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        return f"{file} cannot be read ({error})"
    return None


def load_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Load the tensors and the description of a checkpoint folder.

    Raises:
        RunError: missing, truncated or malformed, naming the file.
    """
    description_file, tensor_file = folder / DESCRIPTION, folder / TENSORS
    for file in (description_file, tensor_file):
        if not file.is_file():
            raise RunError(f"{file}: no such file; a checkpoint folder holds {file.name}")
    problem = damage(folder)
    if problem is not None:
        raise RunError(f"{problem}; restore it from a copy or train again")
    try:
        description = json.loads(description_file.read_text(encoding="utf-8"))
        if not isinstance(description, dict):
            raise ValueError("expected names and values")
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{description_file}: not valid JSON ({error})") from error
    try:
        with safe_open(tensor_file, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise RunError(
            f"{tensor_file}: truncated or not a safetensors file ({printable(str(error))}); "
            "restore it from a copy or train again"
        ) from error
    return tensors, description


def load_trainer(folder: Path) -> dict[str, Any]:
    """Load the state for resuming.

    Raises:
        RunError: missing, truncated or malformed, naming the file.
    """
    file = folder / TRAINER
    if not file.is_file():
        raise RunError(f"{file}: no such file; only `last` can be resumed")
    try:
        require_stored(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's own message advises unsafe loading.
        cause = str(error) if isinstance(error, NotStored) else type(error).__name__
        raise RunError(
            f"{file}: truncated or damaged ({cause}); the weights beside it may "
            "still be whole: evaluate them, or start again in another run_dir"
        ) from error


class CheckpointWriter:
    """Write checkpoints in a thread, one after the other, while training continues."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._begun: list[Future[None]] = []

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Call `save_checkpoint`, on tensors that no longer change, once at most one is unfinished.

        Raises:
            WriteError: an older one could not be written.
        """
        while len(self._begun) > 1:
            self._begun.pop(0).result()
        self._begun.append(self._thread.submit(save_checkpoint, *args, **kwargs))

    def wait(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            WriteError: it could not be written.
        """
        while self._begun:
            self._begun.pop(0).result()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *about: object) -> None:
        try:
            self.wait()
        except WriteError:
            if kind is None:
                raise
        finally:
            self._thread.shutdown()


def _generation(folder: Path, number: int) -> Path:
    return folder if number == 0 else folder.with_name(f"{folder.name}.{number}")


def _generations(folder: Path) -> list[Path]:
    """List those that exist, newest first; a crash between two renames leaves a number out."""
    found = [
        (int(path.name.rpartition(".")[2]), path)
        for path in folder.parent.glob(f"{folder.name}.*")
        if path.name.rpartition(".")[2].isdecimal()
    ]
    return [folder] * folder.exists() + [path for _, path in sorted(found)]


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
