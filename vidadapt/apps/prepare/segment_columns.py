"""Cells with the start and the end of a segment become the fragment of its path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

from vidadapt.video import film_and_span

# No more digits than a fragment may have: numbers beyond them are too much for arithmetic, too.
_TIME = re.compile(
    r"(?:(?:(?P<hours>[0-9]{1,9}):)?(?P<minutes>[0-9]{1,9}):)?(?P<seconds>[0-9]{1,9}(\.[0-9]*)?)"
)
_FRAME = re.compile(r"([0-9]{1,9})(\.0*)?")
FROM_ONE = (
    "start_frame",
    "stop_frame",
)  # EPIC-Kitchens: the first frame is 1, the last is included


def meaning(table: Path, named: Mapping[str, str]) -> str:
    """Say how two columns are read.

    Args:
        named: start and end -> the name of the column.

    Raises:
        ValueError: one has frames, the other seconds.
    """
    names = (named["start"], named["end"])
    if _counts_frames(names[0]) != _counts_frames(names[1]):
        raise ValueError(
            f"{table}:1: {names[0]!r} and {names[1]!r}: one counts frames by its name, the other "
            "seconds; name two of a kind with --start_column and --end_column"
        )
    if not _counts_frames(names[0]):
        return f"{names[0]} and {names[1]} in seconds or hh:mm:ss, from the first frame shown"
    if _is_from_one(names):
        return f"{names[0]} and {names[1]} count from 1, the last one included, as in EPIC-Kitchens"
    return f"{names[0]} and {names[1]} count from 0, the last one not included"


def fragment(start: str, end: str, named: Mapping[str, str]) -> str:
    """Make the fragment of a segment; empty: the row is the whole file.

    Args:
        start, end: cells; empty: the film's beginning, its end.
        named: start and end -> the name of the column; empty: rows are whole files.

    Raises:
        ValueError: a cell is no time or frame, or the segment ends where it begins, or before.

    >>> names = {"start": "start_timestamp", "end": "stop_timestamp"}
    >>> fragment("00:01:02.50", "1:03", names), fragment("", "3.0", names), fragment("", "", names)
    ('#t=62.5,63', '#t=,3', '')
    >>> fragment("1", "30", dict(zip(names, FROM_ONE)))
    '#frames=0,30'
    """
    if not named or not (start or end):
        return ""
    names = (named["start"], named["end"])
    if _counts_frames(names[0]):
        first: Decimal | None = _frame(start) if start else None
        if first is not None and _is_from_one(names):
            first -= 1
        unit, last = "frames", _frame(end) if end else None
    else:
        first, last = (_seconds(cell) if cell else None for cell in (start, end))
        unit = "t"
    if (first or 0) < 0 or (last is not None and last <= (first or 0)):
        raise ValueError(f"the segment from {start!r} to {end!r} has no frame")
    texts = ["" if one is None else f"{one:f}" for one in (first, last)]
    made = f"#{unit}={texts[0]}" + f",{texts[1]}" * bool(texts[1])
    if film_and_span(f"film{made}")[1] is None:
        raise ValueError(f"the segment from {start!r} to {end!r} has too many digits")
    return made


def _counts_frames(name: str) -> bool:
    return "frame" in name.lower()


def _is_from_one(names: tuple[str, str]) -> bool:
    return tuple(name.lower() for name in names) == FROM_ONE


def _seconds(cell: str) -> Decimal:
    match = _TIME.fullmatch(cell)
    if match is None:
        raise ValueError(f"{_short(cell)} is no time: expected seconds or hh:mm:ss")
    total = 3600 * int(match["hours"] or 0) + 60 * int(match["minutes"] or 0)
    exact = total + Decimal(match["seconds"])
    return exact.quantize(Decimal(1)) if exact == exact.to_integral() else exact.normalize()


def _frame(cell: str) -> Decimal:
    match = _FRAME.fullmatch(cell)
    if match is None:
        raise ValueError(f"{_short(cell)} is no frame: expected a whole number")
    return Decimal(int(match[1]))


def _short(cell: str) -> str:
    return repr(cell if len(cell) <= 40 else cell[:40] + "...")
