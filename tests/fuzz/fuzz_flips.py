"""One flipped bit in a file that is trusted: it is refused, or what is read is the same."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from fuzz_attempts import RIGHT, Defect, Job, Tally, judged, same
from fuzz_files import _adapter, _scores, _tar

from vidadapt.evaluation import load_scores
from vidadapt.features.store import THERE as IS_THERE
from vidadapt.features.store import CacheError, Kept, Reader, Store, create, marks, writing_rows
from vidadapt.lists import add_to_index, read_index
from vidadapt.runs import RunError, adapters, checkpoints
from vidadapt.video import (
    ReadError,
    TransientReadError,
    VideoFacts,
    make_packed_index,
    open_video,
    packed_index_path,
)

PER_JOB = 20


class Target(NamedTuple):
    """What is flipped: `make` writes files into a folder, `read` returns what they hold."""

    make: Callable[[Path], object]
    read: Callable[[Path], Any]
    errors: tuple[type[BaseException], ...]


def check_flips(job: Job, scratch: Path, tally: Tally) -> None:
    """Flips in files of one kind, by the job's number."""
    rng = job.rng()
    name = list(TARGETS)[job.number % len(TARGETS)]
    target, (files, right) = TARGETS[name], _whole(name)
    for number in range(PER_JOB):
        folder = scratch / str(number)
        shutil.copytree(files, folder, copy_function=shutil.copy2)
        parts = sorted(path for path in folder.rglob("*") if path.is_file())
        part = parts[int(rng.integers(len(parts)))]
        data = bytearray(part.read_bytes())
        bit = int(rng.integers(8 * len(data)))
        data[bit // 8] ^= 1 << bit % 8
        stamp = part.stat()
        part.write_bytes(data)
        os.utime(part, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as a disk does it
        outcome, found = judged(
            lambda folder=folder: target.read(folder), target.errors, str(folder)
        )
        if outcome == RIGHT:
            same(found, right, f"{name}, bit {bit} of {part.name}")
        tally.outcomes[outcome] += 1
        tally.parts["flipped", f"{name}: {part.name}", outcome] += 1


@functools.cache
def _whole(name: str) -> tuple[Path, Any]:
    """The folder of whole files, and what is read from them."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz_flips"))
    TARGETS[name].make(folder)
    found = TARGETS[name].read(folder)
    if found != TARGETS[name].read(folder):
        raise Defect(f"{name}: not twice the same")
    return folder, found


def _bytes_of(tensors: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {key: tensor.contiguous().numpy().tobytes() for key, tensor in tensors.items()}


def _copy_adapter(folder: Path) -> None:
    shutil.copytree(_adapter(), folder, dirs_exist_ok=True)


def _read_adapter(folder: Path) -> Any:
    adapter = adapters.read_adapter(folder)
    about = {key: value for key, value in adapter.about.items() if key != "written"}
    return _bytes_of(adapter.tensors), about


def _make_checkpoint(folder: Path) -> None:
    tensors = {"a": torch.arange(300.0), "b": torch.arange(12).reshape(3, 4)}
    trainer = {"step": 7, "losses": [1.5, 2.5], "optim": {"m": torch.arange(64.0)}}
    checkpoints.save_checkpoint(folder / "last", tensors, {"format": "x", "n": 3}, trainer)


def _read_checkpoint(folder: Path) -> Any:
    last = checkpoints.find_checkpoint(folder / "last", to_resume=True)
    assert last is not None
    tensors, about = checkpoints.load_checkpoint(last)
    trainer = checkpoints.load_trainer(last)
    moments = trainer["optim"]["m"].tolist()
    return _bytes_of(tensors), about, trainer["step"], trainer["losses"], moments


def _make_scores(folder: Path) -> None:
    (folder / "scores.npz").write_bytes(_scores()[0])


def _read_scores(folder: Path) -> Any:
    scores, about = load_scores(folder / "scores.npz")
    parts = vars(scores).values()
    return [part.tobytes() if isinstance(part, np.ndarray) else part for part in parts], about


STORE = Store(
    Path(),
    {"data.list": "a"},
    6,
    (Kept("tokens", (3, 8), "fp32", "bf16"), Kept("pooled", (5,), "fp32", "fp32")),
)


def _make_cache(folder: Path) -> None:
    store = replace(STORE, folder=folder)
    create(store)
    rng = torch.Generator().manual_seed(0)
    with writing_rows(store) as writer:
        writer.write(
            [0, 2, 4], [torch.randn(3, 3, 8, generator=rng), torch.randn(3, 5, generator=rng)]
        )
        writer.unreadable([5])


def _read_cache(folder: Path) -> Any:
    """As a training does: rows that are missing are computed again, and so have no numbers yet."""
    store = replace(STORE, folder=folder)
    create(store)
    there = np.flatnonzero(marks(store) == IS_THERE).tolist()
    tensors = Reader(store).rows(there)
    return {
        row: [tensor[place].float().numpy().tobytes() for tensor in tensors]
        for place, row in enumerate(there)
    }


ROWS = [
    VideoFacts(
        f"a {i}.mp4",
        "auto",
        1000 + i,
        10**18 + i,
        5 + i,
        reader="pyav",
        codec="h264",
        checks=np.arange(7 * i, 8 * i + 5, dtype="<u8") << 40,
    )
    for i in range(8)
]


def _make_index(folder: Path) -> None:
    for first in (0, 5):
        add_to_index(folder / "train.txt.index", ROWS[first : first + 5])


def _read_index(folder: Path) -> list[str]:
    """What differs in the rows that are found: those that are not are counted again."""
    index = read_index(folder / "train.txt.index")
    assert index is not None
    rows = index.find([row.path for row in ROWS], "auto").tolist()
    return [
        f"{index[row]} where {right} is right"
        for row, right in zip(rows, ROWS, strict=True)
        if row >= 0 and (index[row] != right or not np.array_equal(index[row].checks, right.checks))
    ]


def _make_packed(folder: Path) -> None:
    (folder / "a.tar").write_bytes(_tar())
    make_packed_index(folder / "a.tar", packed_index_path(folder / "a.tar"))


def _read_packed(folder: Path) -> Any:
    found = []
    for name in ("a", "b"):
        with open_video(folder / "a.tar" / name) as video:
            found.append(video.frames(range(len(video))).tobytes())
    return found


READ_ERRORS = (ReadError, TransientReadError)
TARGETS = {
    "adapter": Target(_copy_adapter, _read_adapter, (RunError,)),
    "checkpoint": Target(_make_checkpoint, _read_checkpoint, (RunError,)),
    "scores": Target(_make_scores, _read_scores, (ValueError,)),
    "cache": Target(_make_cache, _read_cache, (CacheError,)),
    "index": Target(_make_index, _read_index, (ValueError,)),
    "packed": Target(_make_packed, _read_packed, READ_ERRORS),
}
