"""Findings of a preparation: shown in part, written in full."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vidadapt.console import printable
from vidadapt.files import replaced
from vidadapt.lists import MOST_LISTED


@dataclass
class Report:
    """Findings by title, one line for each offender.

    Attributes:
        problems: what makes the result differ from what the source promises.
        missing: what the source promises but is not here; intended where a copy is partial.
        notes: what is worth knowing but changes nothing.
    """

    problems: dict[str, list[str]] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def problem(self, title: str, line: str) -> None:
        """Add a line under a problem's title, e.g. ("unknown templates", "train.json:3")."""
        self.problems.setdefault(title, []).append(line)

    def lack(self, title: str, line: str) -> None:
        """Add a line under a title of what is missing, e.g. ("videos without a file", "123")."""
        self.missing.setdefault(title, []).append(line)

    def note(self, title: str, line: str) -> None:
        """Add a line under a note's title."""
        self.notes.setdefault(title, []).append(line)

    def compare(self, title: str, what: str, number: int, expected: int) -> None:
        """Add a line if a number is not the official one: fewer is missing, more is a problem."""
        if number != expected:
            tell = self.lack if number < expected else self.problem
            tell(title, f"{what}, officially {expected:,}")

    def text(self, shown: int | None = MOST_LISTED) -> str:
        """Return all titles with their numbers, and the first `shown` lines of each (None: all).

        Lines are shown as `naming.printable` gives them.
        """
        lines = []
        kinds = (("problem", self.problems), ("missing", self.missing), ("note", self.notes))
        for kind, findings in kinds:
            for title, found in findings.items():
                lines.append(f"{kind}: {title} ({len(found)})")
                lines += [f"  {printable(line)}" for line in found[:shown]]
                if shown is not None and len(found) > shown:
                    lines.append(f"  ... and {len(found) - shown} more")
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Write every line, replacing the file."""
        with replaced(path) as partial:
            partial.write_text(self.text(shown=None) + "\n", encoding="utf-8")
