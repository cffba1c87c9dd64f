"""Scores of an evaluation so far, so that it can be resumed.

Each process writes what it has scored since its last write into a file of its own, in a folder
beside the results:

    rank<r>-<random>.npz    a file of `scores.save_scores`, with what the scores depend on

A file appears whole or not at all, and none is ever changed.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vidadapt.console import differing
from vidadapt.distributed import World, gather_objects, together
from vidadapt.evaluation.scores import Entry, Scores, in_list_order, load_scores, save_scores
from vidadapt.files import writing

# At most so much work is lost when the process is killed. A write takes milliseconds, and one copy
# from the device, which waits for it.
SECONDS_BETWEEN_WRITES = 10.0


class PartsError(ValueError):
    """Parts of another evaluation, which cannot be used; names the folder."""


@dataclass(frozen=True)
class Scoring:
    """Facts of an evaluation: the list, what its scores depend on, and the machine.

    Attributes:
        settings: JSON-able facts that the scores depend on, by name.
        machine: device and versions, which may change the last bits.
        paths, labels: the whole list.
    """

    settings: dict[str, Any]
    machine: str
    paths: Sequence[str]
    labels: Sequence[int] | np.ndarray
    num_classes: int
    num_clips: int
    num_crops: int


@dataclass
class Parts:
    """Scores of earlier processes, and a folder for those of this one. See `take_up`.

    Attributes:
        done: entries of earlier processes that this one returns with its own; each belongs to
            exactly one process.
        left: places in the list of the videos not yet scored, the same in all processes.
        warnings: on entries from other machines and on reads that were tried again.
    """

    folder: Path
    job: Scoring
    rank: int
    done: list[Entry]
    left: list[int]
    warnings: list[str]
    written: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Check that it is time to `keep` what has been scored since the last call."""
        return time.monotonic() - self.written > SECONDS_BETWEEN_WRITES

    def keep(self, entries: Sequence[Entry]) -> None:
        """Write entries to the disk.

        Raises:
            WriteError: the disk refused; what was kept before is unharmed.
        """
        if entries:
            job = self.job
            sizes = job.num_classes, job.num_clips, job.num_crops
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            save_scores(
                self.folder / f"rank{self.rank}-{secrets.token_hex(8)}.npz",
                in_list_order(entries, job.paths, job.labels, *sizes),
                {"machine": job.machine, "settings": _settings(job)},
                compressed=False,
            )
        self.written = time.monotonic()

    def remove(self) -> None:
        """Delete the folder: the results are written."""
        # Every process does, as each may have its own disk; on a shared disk one is the first.
        shutil.rmtree(self.folder, ignore_errors=True)


def take_up(folder: Path, job: Scoring, world: World) -> Parts:
    """Resume from the parts in a folder, or begin if there are none; all processes call it.

    All processes may see the same folder, or each machine its own.

    Raises:
        PartsError: it holds parts of another evaluation; names every difference.
    """
    with together(world):
        found, damaged = _read(folder, job)
    held = gather_objects(world, (job.machine, {i: machine for i, (machine, _) in found.items()}))
    owner: dict[int, tuple[int, str]] = {}  # place in the list -> rank, machine
    for rank, (_, machines) in enumerate(held):
        for index, machine in machines.items():
            owner.setdefault(index, (rank, machine))
    here = sorted({machine for machine, _ in held})
    counts = Counter(machine for _, machine in owner.values())
    warnings = [
        f"{counts[machine]} videos were scored on {machine} before the evaluation was continued "
        f"on {', '.join(here)}: their scores may differ in the last bits"
        for machine in sorted(counts.keys() - set(here))
    ]
    if world.is_main:
        for line in [*damaged, *(f"warning: {line}" for line in warnings)]:
            print(line, flush=True)
        if owner:
            print(
                f"going on with {folder}: {len(owner)} of {len(job.paths)} videos are scored",
                flush=True,
            )
    done = [entry for index, (_, entry) in found.items() if owner[index][0] == world.rank]
    left = [index for index in range(len(job.paths)) if index not in owner]
    return Parts(folder, job, world.rank, done, left, warnings)


def _read(folder: Path, job: Scoring) -> tuple[dict[int, tuple[str, Entry]], list[str]]:
    """Place in the list -> (machine, entry); and a line on each file that cannot be used."""
    places = {path: place for place, path in enumerate(job.paths)}
    found: dict[int, tuple[str, Entry]] = {}
    damaged = []
    for file in sorted(folder.glob("rank*")):
        try:
            scores, about = load_scores(file)
            machine, settings = str(about["machine"]), dict(about["settings"])
            entries = _entries(scores, job, places) if settings == _settings(job) else []
        except (ValueError, KeyError, TypeError) as error:
            why = str(error).removeprefix(f"{file}: ")
            damaged.append(f"{file}: {why}; the videos in it are scored again")
            continue
        if others := differing(settings, _settings(job), "{key}: {old!r} there, {new!r} here"):
            raise PartsError(
                f"--out: {folder} holds parts of another evaluation, which was stopped; "
                f"{'; '.join(others)}. Give the same to go on with it, choose another --out, or "
                "delete that folder"
            )
        for entry in entries:
            found.setdefault(entry[0], (machine, entry))
    return found, damaged


def _entries(scores: Scores, job: Scoring, places: dict[str, int]) -> list[Entry]:
    if scores.logits.shape[1:] != (job.num_clips * job.num_crops, job.num_classes):
        raise ValueError(f"scores of shape {scores.logits.shape}")
    return [
        (places[path], None if path in scores.errors else logits, scores.errors.get(path, ""))
        for path, logits in zip(scores.paths, scores.logits, strict=True)
    ]


def _settings(job: Scoring) -> dict[str, Any]:
    """Facts that the scores depend on, as JSON reads them back."""
    sizes = {"num_videos": len(job.paths), "num_classes": job.num_classes}
    views = {"views": f"{job.num_clips} clips x {job.num_crops} crops"}
    return json.loads(json.dumps({**job.settings, **sizes, **views}))
