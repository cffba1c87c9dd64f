"""Files that have changed since they were counted: listed once, or an error (`data.changed`).

`changed.jsonl` has one line a file: its list path, and why it may not be the one that was counted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from vidadapt.data.skips import append_line, read_lines
from vidadapt.video import ReadError

CHANGED = "changed.jsonl"


class ChangedVideo(ReadError):
    """A file has changed since it was counted; the message names it."""


class Changes:
    """The changed files that a run or an evaluation has met.

    Args:
        path: the file that lists them, for all processes; None: print each on stderr.
        policy: `data.changed`.
        copies: files that get the same lines, of runs that train on the same batches.
    """

    def __init__(self, path: Path | None, policy: str, copies: Sequence[Path] = ()) -> None:
        self.path, self.policy, self.copies = path, policy, copies
        self._met = set(read_changes(path)) if path is not None else set()

    def note(self, listed: str, why: str) -> None:
        """List a file, unless it is listed already.

        Args:
            listed: its list path.
            why: the reason, naming the file.

        Raises:
            ChangedVideo: `data.changed` is `error`.
        """
        if self.policy == "error":
            raise ChangedVideo(f"{why} (data.changed is error)")
        if listed in self._met:
            return
        self._met.add(listed)
        if self.path is None:
            print(f"warning: {why}", file=sys.stderr, flush=True)
        else:
            for file in (self.path, *self.copies):
                file.parent.mkdir(parents=True, exist_ok=True)
                append_line(file, json.dumps({"path": listed, "why": why}))


def read_changes(path: Path) -> dict[str, str]:
    """Reasons by list path of the files listed; of two for one file the first counts."""
    found: dict[str, str] = {}
    for line in read_lines(path, {"path", "why"}):
        found.setdefault(line["path"], line["why"])
    return found
