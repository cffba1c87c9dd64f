"""Summary of a check, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from vidadapt.apps.prepare.check import Checked
from vidadapt.apps.report import class_counts, class_name
from vidadapt.lists.reading import SHOWN
from vidadapt.video import VideoFacts

COMMON = 6  # codecs, sizes, reasons that are shown
LISTED = 100  # files that the summary shows of each defect


def summary(checked: Checked) -> str:
    """Return numbers, defects with their causes, and the place of each file."""
    plan, rows = checked.plan, checked.facts
    readable = [row for row in rows if row.num_frames]
    unreadable, cut = checked.unreadable(), [row.truncated for row in rows if row.truncated]
    hours = sum(row.duration or 0.0 for row in readable) / 3600
    frames = sum(row.num_frames for row in readable)
    held = f", {checked.num_held:,} of them earlier" if checked.num_held else ""
    lines = [
        f"{plan.list_path}: {len(rows):,} videos checked{held}: {len(readable):,} readable, "
        f"{len(cut):,} of them truncated; {len(unreadable):,} unreadable",
        f"  total: {frames:,} frames, {hours:.3g} hours",
        f"  frames: {_range([row.num_frames for row in readable])}",
        f"  seconds: {_range([row.duration for row in readable if row.duration])}",
        f"  readers: {_common(row.reader for row in readable)}",
    ]
    if doubts := [row.doubt for row in readable if row.doubt]:
        lines.append(f"  not left to libraries that seek (decord, torchcodec): {_common(doubts)}")
    lines += [
        f"  codecs: {_common(f'{row.codec} in {row.container}' for row in readable)}",
        f"  sizes: {_common(f'{row.width}x{row.height}' for row in readable)}",
        f"  frame rates: {_common(_rate(row) for row in readable)}",
        *_classes(checked),
        *_listing("unreadable", [f"{row.path}: {row.error}" for row in unreadable]),
        *_listing("truncated", cut),
        f"  table: {plan.table}",
        f"  picture: {plan.picture}",
        f"  quarantine: {plan.quarantine} ({len(unreadable):,} files)",
        f"  video index: {plan.index}",
    ]
    return "\n".join(lines)


def advice(checked: Sequence[Checked]) -> str:
    """What to do about unreadable files; empty if there are none."""
    files = [str(one.plan.quarantine) for one in checked if one.unreadable()]
    if not files:
        return ""
    joined = "" if len(files) == 1 else f"  cat {' '.join(files)} > quarantine.txt\n"
    name = files[0] if len(files) == 1 else "quarantine.txt"
    return (
        "To train without the unreadable videos, and to count them as wrong in an evaluation:\n"
        f"{joined}  python tools/train.py ... --data.quarantine {name}\n"
        "Or mend them and run this again: only what has changed, or could not be read for want of "
        "a file, time or memory, is decoded."
    )


def _range(values: Sequence[float]) -> str:
    """Smallest, median and largest.

    >>> _range([10, 30, 20, 1200]), _range([])
    ('10 to 1,200, median 25', 'none')
    """
    if not values:
        return "none"
    return f"{min(values):,.4g} to {max(values):,.4g}, median {median(values):,.4g}"


def _common(values: Iterable[str]) -> str:
    """The most common values with their numbers.

    >>> _common(["a", "b", "a"]), _common([])
    ('a (2), b (1)', 'none')
    """
    counts = Counter(values)
    told = [f"{value} ({number:,})" for value, number in counts.most_common(COMMON)]
    if len(counts) > COMMON:
        told.append(f"and {len(counts) - COMMON} more")
    return ", ".join(told) or "none"


def _rate(row: VideoFacts) -> str:
    return f"{row.frame_rate:.4g}" if row.frame_rate else "unknown"


def _classes(checked: Checked) -> list[str]:
    names = checked.plan.label_names
    counts = class_counts(checked.plan.samples.labels.tolist(), names)
    (least, smallest), (most, largest) = counts[0], counts[-1]
    lines = [
        f"  classes: {len(counts):,}, of {least:,} ({class_name(smallest, names)}) to {most:,} "
        f"({class_name(largest, names)}) videos, median {median(n for n, _ in counts):g}"
    ]
    if names is not None and (unnamed := [label for _, label in counts if label >= len(names)]):
        lines.append(
            f"  labels without a name: {_shown([str(label) for label in sorted(unnamed)])}"
        )
    if empty := [class_name(label, names) for number, label in counts if not number]:
        lines.append(f"  classes without a video ({len(empty):,}): {_shown(empty)}")
    return lines


def _shown(values: Sequence[str]) -> str:
    more = [f"and {len(values) - SHOWN} more"] if len(values) > SHOWN else []
    return ", ".join([*values[:SHOWN], *more])


def _listing(title: str, entries: Sequence[str]) -> list[str]:
    if not entries:
        return []
    more = [f"    ... and {len(entries) - LISTED:,} more in the table"]
    return [
        f"  {title} ({len(entries):,}):",
        *(f"    {entry}" for entry in entries[:LISTED]),
        *(more if len(entries) > LISTED else []),
    ]
