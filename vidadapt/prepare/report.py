"""What a preparation found: shown short, written whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vidadapt.data.lists import SHOWN


@dataclass
class Report:
    """Findings by title, one line for each offender.

    Attributes:
        problems: what makes the result other than the source promises.
        notes: what is worth knowing and changes nothing.
    """

    problems: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def problem(self, title: str, line: str) -> None:
        """Add a line under a problem's title, e.g. ("videos without a file", "123 (train)")."""
        self.problems.setdefault(title, []).append(line)

    def note(self, title: str, line: str) -> None:
        """Add a line under a note's title."""
        self.notes.setdefault(title, []).append(line)

    def text(self, shown: int | None = SHOWN) -> str:
        """All titles with their numbers, and the first `shown` lines of each (None: all)."""
        lines = []
        for kind, findings in (("problem", self.problems), ("note", self.notes)):
            for title, found in findings.items():
                lines.append(f"{kind}: {title} ({len(found)})")
                lines += [f"  {line}" for line in found[:shown]]
                if shown is not None and len(found) > shown:
                    lines.append(f"  ... and {len(found) - shown} more")
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Write every line, replacing the file."""
        path.write_text(self.text(shown=None) + "\n", encoding="utf-8")
