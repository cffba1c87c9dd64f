"""The training clips that a run skips: counted, capped, and listed in a file of the run.

`skipped.jsonl` has one line a clip: epoch (from 1, as in `log.jsonl`), path, label, reason,
seconds that were spent on it, index and copy (see `data.epochs`), and whether its file is
quarantined: a file that hung or killed its worker is not tried again in this run; its later clips
are skipped at once, and listed, too. A file that could not be read is tried again in the next
epoch. Nothing is ever removed from `skipped.jsonl`, so that a resumed run skips what it skipped
before, and no clip is in it twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vidadapt.data.epochs import SampleKey
from vidadapt.files import writing
from vidadapt.lists import Label, Sample, listing
from vidadapt.video import ReadError

SKIPPED = "skipped.jsonl"


class TooManySkipped(ReadError):
    """More training clips of an epoch were skipped than `data.max_skipped` allows."""


@dataclass(frozen=True)
class Skip:
    """A line of the file; `epoch` counts from 1."""

    epoch: int
    path: str
    label: Label | list[int]  # JSON has a list for several
    reason: str
    seconds: float
    index: int
    copy: int
    quarantined: bool


def most_skipped(max_skipped: float, clips: int) -> int:
    """Number of clips that `data.max_skipped` allows to skip in an epoch of `clips`.

    >>> most_skipped(0, 5000), most_skipped(3, 5000), most_skipped(0.001, 5000)
    (0, 3, 5)
    """
    return int(max_skipped if max_skipped >= 1 else max_skipped * clips)


def read_skips(path: Path) -> list[Skip]:
    """The lines of the file, none if it is missing."""
    return [Skip(**line) for line in read_lines(path, Skip.__annotations__.keys())]


class SkipLog:
    """The clips that this process skips, and those that the run is known to skip.

    Args:
        path: the file, which all processes of the run share.
        samples: the training list.
        most: clips of an epoch, over all processes, that may be skipped.
        copies: files that get the same lines, of runs that train on the same batches.

    Attributes:
        met: number of clips of this epoch that this process has skipped and that were not yet in
            the file when this object was made. The sum of all processes' `met` and `known()` is
            what the epoch has lost.
    """

    def __init__(
        self, path: Path, samples: Sequence[Sample], most: int, copies: Sequence[Path] = ()
    ) -> None:
        self.path, self.samples, self.most, self.copies = path, samples, most, copies
        self.met = 0
        self._epoch = -1
        self._listed = {(skip.epoch - 1, skip.index, skip.copy) for skip in read_skips(path)}
        self._known = list(self._listed)
        self._first: dict[str, tuple[tuple[int, int], str]] = {}

    def begin(self, epoch: int) -> None:
        """Look up what any process of the run has quarantined; count anew in a new epoch."""
        if epoch != self._epoch:
            self._epoch, self.met = epoch, 0
        for skip in read_skips(self.path):
            if skip.quarantined:
                self._quarantine(skip)

    def known(self) -> int:
        """Number of clips of this epoch that a resumed run found in the file at its start.

        The same number in every process, if all of them make this object before any uses it.
        """
        return sum(epoch == self._epoch for epoch, _, _ in self._known)

    def barred(self, key: SampleKey) -> bool:
        """Return whether a clip must not be tried, since its file was quarantined in this run.

        "Earlier" is in the order of training, not of time: a run that was resumed at an earlier
        point tries what it tried there before.
        """
        if not self._first:
            return False
        epoch, index, copy = key
        first = self._first.get(self.samples[index].path)
        return first is not None and first[0] <= (epoch, copy)

    def skip_barred(self, key: SampleKey) -> None:
        """List a clip that was not tried."""
        reason = self._first[self.samples[key[1]].path][1]
        self.skip(key, reason, 0.0, quarantined=True)

    def check(self, skipped: int) -> None:
        """Check that an epoch may skip this many clips.

        Args:
            skipped: `known()` and the sum of `met` over all processes.

        Raises:
            TooManySkipped: with the epoch's list and how to continue.
        """
        if skipped <= self.most:
            return
        lines = [
            f"{skip.path}\t{skip.reason}"
            for skip in read_skips(self.path)
            if skip.epoch == self._epoch + 1
        ]
        raise TooManySkipped(
            listing(
                f"{skipped} training clip(s) of epoch {self._epoch + 1} had to be skipped, "
                f"data.max_skipped allows {self.most}. Mend the files and delete their lines from "
                f"{self.path}, write these lines into a file for data.quarantine (path, tab, "
                "cause), or raise data.max_skipped; then go on with --resume",
                lines,
            )
        )

    def _quarantine(self, skip: Skip) -> None:
        place = (skip.epoch - 1, skip.copy)
        first = self._first.get(skip.path)
        if first is None or place < first[0]:
            self._first[skip.path] = place, skip.reason

    def skip(self, key: SampleKey, reason: str, seconds: float, *, quarantined: bool) -> None:
        """List a clip, unless it is listed.

        Args:
            quarantined: whether it hung or killed its worker, so that its file is not tried again.
                Else it raised `ReadError`.

        Raises:
            TooManySkipped: see `check`.
        """
        epoch, index, copy = key
        path, label = self.samples[index].path, self.samples[index].label
        spent = round(seconds, 3)
        skip = Skip(epoch + 1, path, label, reason, spent, index, copy, quarantined)
        if quarantined:
            self._quarantine(skip)
        if key not in self._listed:
            self._listed.add(key)
            self.met += 1
            for file in (self.path, *self.copies):
                append_line(file, json.dumps(asdict(skip)))
        self.check(self.known() + self.met)


def read_lines(path: Path, keys: Set[str]) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects with these keys; a killed process's half line is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and entry.keys() == keys:
                yield entry


def append_line(path: Path, line: str) -> None:
    """Add a line to a file to which other processes, maybe on other machines, add lines, too.

    Raises:
        WriteError: the disk refused it.
    """
    with writing(path), path.open("a+b") as file:
        with contextlib.suppress(OSError):  # a file system without locks: one write is one line
            fcntl.lockf(file, fcntl.LOCK_EX)
        # A half line of a killed process would swallow this line.
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        broken = file.read() not in (b"", b"\n")
        file.write((b"\n" if broken else b"") + line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
