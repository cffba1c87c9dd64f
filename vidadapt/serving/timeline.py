"""What happens when in a film: windows' probabilities, smoothed, become runs of one label."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidadapt.console import printable
from vidadapt.files import replaced, write_text
from vidadapt.serving.films import Window

CUT = 2.0


@dataclass(frozen=True)
class Run:
    """A stretch of a film in which a label is seen.

    Attributes:
        start, end: seconds from the first frame.
        label: number of the class.
        probability: its mean over the stretch.
    """

    start: Fraction
    end: Fraction
    label: int
    probability: float


def smoothed(
    windows: Iterable[Window], hop: Fraction
) -> Iterator[tuple[Fraction, Fraction, np.ndarray]]:
    """Yield beginning, end and probabilities (K,) of each part of a film, one hop long.

    They are the mean over all windows that hold the whole part. The last parts, until the end of
    the last window, are held by fewer windows, as the first ones are; where windows leave gaps, a
    part is one window.
    """
    held: deque[Window] = deque()
    start, last = Fraction(0), None
    for window in windows:
        length = window.end - window.start
        if hop >= length:
            yield window.start, window.end, window.probabilities
            continue
        held.append(window)
        last, start = window, window.start
        while held[0].end < start + hop:
            held.popleft()
        yield start, start + hop, np.mean([one.probabilities for one in held], axis=0)
    while last is not None and start + hop < last.end:
        start += hop
        end = min(start + hop, last.end)
        while held[0].end < end:
            held.popleft()
        yield start, end, np.mean([one.probabilities for one in held], axis=0)


def runs_of(
    parts: Iterable[tuple[Fraction, Fraction, np.ndarray]],
    thresholds: Sequence[float] | None = None,
) -> Iterator[Run]:
    """Yield the runs of parts with the same label, as they end.

    Args:
        parts: from `smoothed`.
        thresholds: of a multi-label adapter: every label that reaches its own is seen; None: the
            most probable label is.
    """
    going: dict[int, tuple[Run, list[float]]] = {}
    for start, end, shares in parts:
        seen = [int(shares.argmax())]
        if thresholds is not None:
            seen = np.flatnonzero(shares >= np.asarray(thresholds)).tolist()
        for label in [*going]:
            if label not in seen or going[label][0].end != start:
                yield _ended(*going.pop(label))
        for label in seen:
            run, values = going.get(label, (Run(start, end, label, 0.0), []))
            going[label] = replace(run, end=end), [*values, float(shares[label])]
    for run, values in going.values():
        yield _ended(run, values)


def at_cuts(
    runs: Iterable[Run], changes: Sequence[tuple[Fraction, float]], length: Fraction
) -> Iterator[Run]:
    """Move the joins of runs to cuts of the film that lie within half a window of them.

    A window that holds a cut shows two actions, and which of them a model sees says little about
    where the cut is; the frames say it. A run whose ends would move to the same cut is left out: it
    was seen in windows of two actions alone. Its neighbours are joined where they have one label.

    Args:
        runs: each begins where the one before ends.
        changes: `Film.changes`, which grow while runs come.
        length: of a window, in seconds.
    """
    before: Run | None = None  # whole, but may yet be joined with the one after the next
    going: Run | None = None  # its beginning is known
    for run in runs:
        if going is None:
            going = run
            continue
        cut = _cut_near(run.start, changes, length / 2)
        if cut > going.start:
            if before is not None:
                yield before
            before, going = replace(going, end=cut), replace(run, start=cut)
        elif before is not None and before.label == run.label:
            going, before = _joined(before, run), None
        else:
            going = replace(run, start=going.start)
    if going is not None and before is not None and going.end <= going.start:
        before, going = replace(before, end=going.end), None
    yield from (run for run in (before, going) if run is not None)


def _joined(run: Run, later: Run) -> Run:
    """One run of two with the same label."""
    lengths = float(run.end - run.start), float(later.end - later.start)
    mean = np.average([run.probability, later.probability], weights=lengths)
    return replace(run, end=later.end, probability=float(mean))


def _cut_near(
    time: Fraction, changes: Sequence[tuple[Fraction, float]], reach: Fraction
) -> Fraction:
    """Return the time of the greatest change that is no further than `reach`, if it is a cut.

    A cut is `CUT` times the median of the changes around it; else `time` is returned.
    """
    first = bisect_left(changes, (time - 4 * reach, -1.0))
    last = bisect_left(changes, (time + 4 * reach, -1.0))
    near = [place for place in range(max(first, 1), last) if abs(changes[place][0] - time) <= reach]
    if not near:
        return time
    place = max(near, key=lambda at: changes[at][1])
    usual = float(np.median([change for _, change in changes[first:last]]))
    if changes[place][1] < CUT * usual:
        return time
    middle = (changes[place - 1][0] + changes[place][0]) / 2
    return middle if abs(middle - time) <= reach else time


def _ended(run: Run, values: Sequence[float]) -> Run:
    return replace(run, probability=float(np.mean(values)))


def write_runs(path: Path, runs: Sequence[Run], names: Sequence[str]) -> None:
    """Write start, end, label and probability of each run, as CSV with a header.

    Raises:
        WriteError: the disk refused it.
    """
    import pandas as pd  # 0.4 s, which other predictions need not wait for

    table = pd.DataFrame(
        {
            "start": [round(float(run.start), 3) for run in runs],
            "end": [round(float(run.end), 3) for run in runs],
            "label": [run.label for run in runs],
            "name": [names[run.label] for run in runs],
            "probability": [round(run.probability, 4) for run in runs],
        }
    )
    with replaced(path) as partial:
        table.to_csv(partial, index=False)


def write_subtitles(
    path: Path, runs: Sequence[Run], names: Sequence[str], offset: float = 0.0
) -> None:
    """Write runs as WebVTT subtitles, which players show over the film.

    Args:
        offset: `Film.offset`.

    Raises:
        WriteError: the disk refused it.
    """
    cues = [
        f"{clock(run.start + Fraction(offset))} --> {clock(run.end + Fraction(offset))}\n"
        f"{_escaped(names[run.label])} ({run.probability:.0%})\n"
        for run in runs
    ]
    write_text(path, "\n".join(["WEBVTT\n", *cues]))


def clock(seconds: Fraction | float) -> str:
    """Format a time as WebVTT has it.

    >>> clock(3723.5)
    '01:02:03.500'
    """
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}.{rest % 1000:03d}"


def _escaped(name: str) -> str:
    """A name as text of a cue, in which `<`, `&` and arrows would mean something."""
    text = printable(name).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(text.split())
