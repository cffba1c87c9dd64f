"""Decode every file of a list once: video index, table, quarantine, picture, and a summary."""

from __future__ import annotations

import csv
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from vidadapt.apps.prepare.shards import sharded
from vidadapt.apps.report import class_counts, write_check_picture
from vidadapt.console import class_name
from vidadapt.files import is_url, joined, replaced
from vidadapt.lists import (
    LABELS_FILE,
    MANY,
    MOST_LISTED,
    CountJob,
    Samples,
    count_file,
    counted_videos,
    facts_of_failure,
    known_multi_label,
    known_root,
    label_text,
    read_index,
    read_label_names,
    read_list,
    write_quarantine,
)
from vidadapt.video import ReadError, VideoFacts, file_of, film_of, open_video

STORE_EVERY = 10.0  # seconds between two stores of rows in the video index
CHUNK = 64  # packed frames in memory at once
COMMON = 6  # codecs, sizes, reasons that the summary shows
LISTED = 100  # files that the summary shows of each defect
COLUMNS = (
    *("size", "mtime_ns", "requested", "reader", "container", "codec", "pixel_format"),
    *("width", "height", "rotation", "frame_rate", "duration", "header_frames"),
    *("num_frames", "truncated", "doubt", "error", "first_frame", "remark", "holds"),
)
UNKNOWN = {"width": 0, "height": 0, "size": -1}  # values that mean unknown


@dataclass(frozen=True)
class Plan:
    """A list to check.

    Attributes:
        list_path: the list.
        root: folder that its paths are relative to, or its URL.
        samples: of the list.
        label_names: of labels.txt beside the list; None without one.
        out: folder for the files that are written about it.
    """

    list_path: Path
    root: Path | str
    samples: Samples
    label_names: tuple[str, ...] | None
    out: Path

    def file(self, kind: str) -> Path:
        """Path of a file about the list: check.csv, check.png, quarantine.txt or index."""
        return self.out / f"{self.list_path.name}.{kind}"


@dataclass(frozen=True)
class Checked:
    """Result of a check.

    Attributes:
        facts: of each video, in the list's order; an error does not name the file.
        num_held: number of videos that the index knew before.
    """

    plan: Plan
    facts: tuple[VideoFacts, ...]
    num_held: int

    def unreadable(self) -> list[VideoFacts]:
        """Facts of files of which no frame decodes."""
        return [one for one in self.facts if not one.num_frames]


def plan_checks(
    lists: Sequence[Path],
    root: Path | str | None,
    out: Path | None,
    allow_outside_root: bool = False,
    multi_label: bool = False,
    shard: tuple[int, int] | None = None,
) -> list[Plan]:
    """Read the lists and plan all files; what would stop a check later is raised here.

    Args:
        root: of all the lists; None: what prepared.json beside a list says.
        out: folder for the files that a check writes; None: beside each list.
        allow_outside_root, multi_label: see `read_list`.
        shard: part of each list, see `shards.sharded`.

    Raises:
        ValueError: a list or its labels.txt cannot be used, no root is known, none of a list's
            videos is in it, two lists would write the same files, or the file in an index's place
            is no index.
        OSError: the files cannot be written.
    """
    plans: dict[Path, Plan] = {}  # by table
    for path in lists:
        found = known_root(path, root)
        # Labels matter only to training, and a missing file is a row of the table.
        several = multi_label or known_multi_label(path)
        samples = read_list(path, found, MANY, allow_outside_root, multi_label=several)
        if not is_url(str(found)) and not _one_is_there(found, samples):
            raise ValueError(
                f"{path}: none of its {len(samples):,} videos is there, "
                f"{joined(found, samples[0].path)} nor any other; give --root, the folder that its "
                "paths are relative to"
            )
        names = path.with_name(LABELS_FILE)
        label_names = tuple(read_label_names(names)) if names.is_file() else None
        named, samples = sharded(path, samples, shard, out)
        plan = Plan(named, found, samples, label_names, out or path.parent)
        table = plan.file("check.csv")
        if table in plans:
            raise ValueError(
                f"{path} and {plans[table].list_path} would both write {table}; give each list "
                "once, or check those of one name one by one"
            )
        plans[table] = plan
    for table, plan in plans.items():
        try:
            plan.out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=plan.out):
                pass
        except OSError as error:
            raise OSError(
                f"{table} cannot be written ({error.strerror}); give --out, a folder that can"
            ) from error
        read_index(plan.file("index"))
    return list(plans.values())


def _one_is_there(root: str | Path, samples: Samples) -> bool:
    return any(Path(file_of(joined(root, path))).exists() for path in samples.paths())


def check(
    plan: Plan,
    reader: str,
    num_processes: int,
    time_limit: float | None,
    others: Sequence[Checked] = (),
) -> Checked:
    """Decode each file once, in processes of their own, and write all that is found.

    A file is not decoded again while its row in the video index is valid, whoever wrote it: a check
    that was killed continues where it was.

    Args:
        reader: key of `READERS`, as the training run's data.reader.
        time_limit: seconds after which the decoding of one file counts as hung; None: never.
        others: lists that were checked just now; what they share with this one is not decoded
            again.

    Raises:
        OSError: a file cannot be written.
        ValueError: the file in the index's place is no index.
    """
    videos = counted_videos(
        plan.list_path,
        plan.root,
        plan.samples,
        reader,
        others=[one.plan.file("index") for one in others if one.plan.root == plan.root],
        index_dir=plan.out,
        num_workers=num_processes,
        time_limit=time_limit,
        limit_key="--time_limit",
        store_every=STORE_EVERY,
        whole=True,
        count=decode_whole,
        label="checking",
    )
    facts = []
    for place in range(len(videos)):
        one = videos.facts(place)
        facts.append(replace(one, error=one.error.removeprefix(f"{videos.file(place)}: ")))
    checked = Checked(plan, tuple(facts), len(videos) - len(videos.loose) - videos.decoded)
    write_table(plan.file("check.csv"), facts, [label_text(one.label) for one in plan.samples])
    labels = _of_all(plan.samples)
    causes = {one.path: one.error for one in checked.unreadable()}
    write_quarantine(plan.file("quarantine.txt"), causes)
    title = plan.list_path.name
    write_check_picture(plan.file("check.png"), title, facts, labels, plan.label_names)
    return checked


def _of_all(samples: Samples) -> list[int]:
    """Labels of all videos, one after another; of a multi-label list all that each has."""
    labels = samples.labels
    return (labels if labels.ndim == 1 else np.nonzero(labels)[1]).tolist()


def decode_whole(job: CountJob) -> VideoFacts:
    """Return what `count_file` finds, and decode packed frames too, which it does not decode."""
    found = count_file(job)
    if found.error or found.reader != "packed":
        return found
    sizes = set()
    try:
        with open_video(job.file) as video:
            for start in range(0, len(video), CHUNK):
                frames = video.frames(range(start, min(start + CHUNK, len(video))))
                sizes.add((frames.shape[2], frames.shape[1]))
        if len(sizes) > 1:
            raise ReadError(f"{job.file}: its frames differ in size")
    except Exception as error:
        return facts_of_failure(job, error)
    width, height = sizes.pop()
    return replace(found, container="tar", width=width, height=height)


def write_table(path: Path, facts: Sequence[VideoFacts], labels: Sequence[str]) -> None:
    """Write a row a video as CSV, replacing the table at once. Nothing reads it back.

    An empty cell means unknown; `error` is the first error that was met, for an unreadable file the
    cause; `holds` says whether the row is in the video index.
    """
    with (
        replaced(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", *COLUMNS])
        for one, label in zip(facts, labels, strict=True):
            writer.writerow([one.path, label, *cells(one)])


def cells(facts: VideoFacts) -> list[str]:
    """Return facts as text without line breaks, in the order of `COLUMNS`.

    >>> cells(VideoFacts("a.mp4", "auto", num_frames=9, header_frames=90, frame_rate=29.970029))[9:]
    ['', '29.97003', '', '90', '9', 'yes', '', '', '', '', 'yes']
    """
    values = {
        **vars(facts),
        "truncated": bool(facts.truncated),
        "error": facts.error or facts.cause,
        "rotation": facts.rotation if facts.width > 0 else None,
        "mtime_ns": facts.mtime_ns if facts.size >= 0 else None,
        "first_frame": facts.first_frame if film_of(facts.path) != facts.path else None,
    }
    return [_cell(None if UNKNOWN.get(name) == values[name] else values[name]) for name in COLUMNS]


def _cell(value: str | float | None) -> str:
    """Return one value as text.

    >>> [_cell(value) for value in (True, False, None, 3, 29.97002997, "a b\\nc")]
    ['yes', 'no', '', '3', '29.97003', 'a b c']
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return ""
    return f"{value:.7g}" if isinstance(value, float) else str(value).replace("\n", " ")


def summary(checked: Checked) -> str:
    """Return numbers, defects with their causes, and the place of each file."""
    plan, rows = checked.plan, checked.facts
    readable = [row for row in rows if row.num_frames]
    unreadable, cut = checked.unreadable(), [row.truncated for row in rows if row.truncated]
    hours = sum(row.duration or 0.0 for row in readable) / 3600
    held = f", {checked.num_held:,} of them earlier" if checked.num_held else ""
    rates = (f"{row.frame_rate:.4g}" if row.frame_rate else "unknown" for row in readable)
    doubts = [row.doubt for row in readable if row.doubt]
    doubtful = "not left to libraries that seek (decord, torchcodec)"
    lines = [
        f"{plan.list_path}: {len(rows):,} videos checked{held}: {len(readable):,} readable, "
        f"{len(cut):,} of them truncated; {len(unreadable):,} unreadable",
        f"  total: {sum(row.num_frames for row in readable):,} frames, {hours:.3g} hours",
        f"  frames: {_range([row.num_frames for row in readable])}",
        f"  seconds: {_range([row.duration for row in readable if row.duration])}",
        f"  readers: {_common(row.reader for row in readable)}",
        *([f"  {doubtful}: {_common(doubts)}"] if doubts else []),
        f"  codecs: {_common(f'{row.codec} in {row.container}' for row in readable)}",
        f"  sizes: {_common(f'{row.width}x{row.height}' for row in readable)}",
        f"  frame rates: {_common(rates)}",
        *_classes(plan),
        *_listing("unreadable", [f"{row.path}: {row.error}" for row in unreadable]),
        *_listing("truncated", cut),
        f"  table: {plan.file('check.csv')}",
        f"  picture: {plan.file('check.png')}",
        f"  quarantine: {plan.file('quarantine.txt')} ({len(unreadable):,} files)",
        f"  video index: {plan.file('index')}",
    ]
    return "\n".join(lines)


def advice(checked: Sequence[Checked]) -> str:
    """Return what to do about unreadable files; empty if there are none."""
    files = [str(one.plan.file("quarantine.txt")) for one in checked if one.unreadable()]
    if not files:
        return ""
    joined = "" if len(files) == 1 else f"  cat {' '.join(files)} > quarantine.txt\n"
    name = files[0] if len(files) == 1 else "quarantine.txt"
    return (
        "To train without the unreadable videos, and to count them as wrong in an evaluation:\n"
        f"{joined}  vidadapt train ... --data.quarantine {name}\n"
        "Or mend them and run this again: only what has changed, or could not be read for want of "
        "a file, time or memory, is decoded.\n"
    )


def _range(values: Sequence[float]) -> str:
    """Return the smallest, median and largest value in words.

    >>> _range([10, 30, 20, 1200]), _range([])
    ('10 to 1,200, median 25', 'none')
    """
    if not values:
        return "none"
    return f"{min(values):,.4g} to {max(values):,.4g}, median {median(values):,.4g}"


def _common(values: Iterable[str]) -> str:
    """Return the most common values with their numbers.

    >>> _common(["a", "b", "a"]), _common([])
    ('a (2), b (1)', 'none')
    """
    counts = Counter(values)
    told = [f"{value} ({number:,})" for value, number in counts.most_common(COMMON)]
    if len(counts) > COMMON:
        told.append(f"and {len(counts) - COMMON} more")
    return ", ".join(told) or "none"


def _classes(plan: Plan) -> list[str]:
    """Return lines on how many videos the classes have."""
    names = plan.label_names
    counts = class_counts(_of_all(plan.samples), names)
    (least, smallest), (most, largest) = counts[0], counts[-1]
    lines = [
        f"  classes: {len(counts):,}, of {least:,} ({class_name(smallest, names)}) to {most:,} "
        f"({class_name(largest, names)}) videos, median {median(n for n, _ in counts):g}"
    ]
    if unnamed := [label for _, label in counts if names is not None and label >= len(names)]:
        lines.append(f"  labels without a name: {_shown(list(map(str, sorted(unnamed))))}")
    if empty := [class_name(label, names) for number, label in counts if not number]:
        lines.append(f"  classes without a video ({len(empty):,}): {_shown(empty)}")
    return lines


def _shown(values: Sequence[str]) -> str:
    more = [f"and {len(values) - MOST_LISTED} more"] if len(values) > MOST_LISTED else []
    return ", ".join([*values[:MOST_LISTED], *more])


def _listing(title: str, entries: Sequence[str]) -> list[str]:
    """Return a title and the first entries, a line each; nothing if there are none."""
    lines = [f"  {title} ({len(entries):,}):", *(f"    {entry}" for entry in entries[:LISTED])]
    if len(entries) > LISTED:
        lines.append(f"    ... and {len(entries) - LISTED:,} more in the table")
    return lines if entries else []
