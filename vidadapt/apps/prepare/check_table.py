"""Tables of what is known about videos, for people: one row a file."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from vidadapt.files.writing import replaced
from vidadapt.video import VideoFacts

COLUMNS = (
    *("size", "mtime_ns", "requested", "reader", "container", "codec", "pixel_format"),
    *("width", "height", "rotation", "frame_rate", "duration", "header_frames"),
    *("num_frames", "truncated", "doubt", "error", "holds"),
)
HEADER = ["path", "label", *COLUMNS]
UNKNOWN = {"width": 0, "height": 0, "size": -1}  # values that mean unknown


def write_table(path: Path, facts: Sequence[VideoFacts], labels: Sequence[int]) -> None:
    """Write a row a video as CSV, replacing the table at once. Nothing reads it back.

    An empty cell means unknown; `error` is the first error that was met, for an unreadable file the
    cause; `holds` says whether the row is in the video index.
    """
    with (
        replaced(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for one, label in zip(facts, labels, strict=True):
            writer.writerow([one.path, label, *cells(one)])


def cells(facts: VideoFacts, columns: Iterable[str] = COLUMNS) -> list[str]:
    """Facts as text, without line breaks.

    >>> cells(VideoFacts("a.mp4", "auto", num_frames=9, header_frames=90, frame_rate=29.970029))[9:]
    ['', '29.97003', '', '90', '9', 'yes', '', '', 'yes']
    """
    known = facts.width > 0
    values = {
        **vars(facts),
        "truncated": bool(facts.truncated),
        "error": facts.error or facts.cause,
        "rotation": facts.rotation if known else None,
        "mtime_ns": facts.mtime_ns if facts.size >= 0 else None,
    }
    return [_cell(None if UNKNOWN.get(name) == values[name] else values[name]) for name in columns]


def _cell(value: str | float | None) -> str:
    """One value as text.

    >>> [_cell(value) for value in (True, False, None, 3, 29.97002997, "a b\\nc")]
    ['yes', 'no', '', '3', '29.97003', 'a b c']
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return ""
    return f"{value:.7g}" if isinstance(value, float) else str(value).replace("\n", " ")
