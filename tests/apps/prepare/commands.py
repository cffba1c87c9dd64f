"""vidadapt prepare run in this process as a user runs it, and what it left."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from conftest import load_tool

from vidadapt.launching.failures import kind_of
from vidadapt.lists import read_list


@dataclass(frozen=True)
class Done:
    """A finished command: exit status, what it printed, and the whole report."""

    status: int
    told: str
    report: str

    def listed(self, title: str) -> list[str]:
        """The lines of the report under a title, e.g. "problem: two files for one video"."""
        lines = self.report.split("\n")
        (start,) = [i for i, line in enumerate(lines) if line.startswith(title)]
        found = []
        for line in lines[start + 1 :]:
            if not line.startswith("  "):
                break
            found.append(line.strip())
        return found


def prepare(*arguments: object, index: bool = False) -> Done:
    """Run a sub-command that writes lists; without counting frames, unless `index`."""
    words = [*map(str, arguments), "--processes", "1", *([] if index else ["--no_index"])]
    status, said = 0, io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            load_tool("prepare").main(words)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
            print(end.code if isinstance(end.code, str) else "")
        except Exception as error:
            status = kind_of(error).status
            print(error)
    told = said.getvalue()
    report = re.search(r"^all of it: (.+)$", told, re.MULTILINE)
    return Done(status, told, Path(report[1]).read_text(encoding="utf-8") if report else "")


def lines_of(path: Path) -> list[tuple[str, int]]:
    """Path and label of every line of a list."""
    samples = read_list(path, path.parent, sys.maxsize)
    return [(sample.path, sample.label) for sample in samples]
