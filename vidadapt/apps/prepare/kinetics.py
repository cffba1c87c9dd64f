"""Kinetics-400 (or -600, -700), as downloaded:

    ANNOTATIONS/      VIDEOS/
      train.csv         abseiling/                          (or air_drumming/, or no folders)
      val.csv             -3B32lodo2M_000059_000069.mp4     ID_START_END in seconds, six digits
      test.csv            ...

Lines of a csv are `label,youtube_id,time_start,time_end,split` and perhaps `is_cc`, under a header
with these names; `split` is train, validate (or val) or test. Published results are on the
validation videos, and no list is made of test videos. Files may be named by the id alone: this is
assumed where more names have the 11 characters of an id than the 25 of a clip. Nearly every copy is
partial, since videos vanish: what the csv files list is expected, and what is missing is reported.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vidadapt.apps.prepare.annotations import Annotations, Entry
from vidadapt.apps.prepare.report import Report
from vidadapt.console.naming import did_you_mean
from vidadapt.lists.reading import read_label_names

COLUMNS = ("youtube_id", "time_start", "time_end", "split")
SPLITS = {"train": "train", "validate": "val", "validation": "val", "val": "val", "test": "test"}
LABELS = Path(__file__).parents[3] / "data_lists" / "kinetics400" / "labels.txt"
_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_CLIP = re.compile(r"[A-Za-z0-9_-]{11}_[0-9]{6}_[0-9]{6}")
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]*)?")


@dataclass(frozen=True)
class _Row:
    label: str
    video: str
    key: str
    split: str
    source: str


def read(path: Path, report: Report, *, by_id: bool = False) -> Annotations:
    """Read the official csv files: `train` and `val`, as far as they are there.

    Where all names are Kinetics-400's, class ids are those of data_lists/kinetics400 (its sorted
    names), even if a csv names only some of them. Otherwise they are those of the sorted names, and
    the data set is `custom`. An entry's group is its YouTube id.

    Args:
        path: a csv file, or a folder with some.
        report: gets unusable lines, and which names differ from Kinetics-400's.
        by_id: files are named by their YouTube id alone (see `named_by_id`).

    Raises:
        ValueError: no csv file with the official columns, or no line for a list.
    """
    rows = [row for file in _files(path) for row in _rows(file, report, by_id)]
    listed = [row for row in rows if row.split != "test"]
    if not listed:
        raise ValueError(
            f"{path}: no training or validation line with a label; expected "
            f"label,{','.join(COLUMNS)}"
        )
    dataset, names = _classes({row.label for row in listed}, report)
    label_of = {name: label for label, name in enumerate(names)}
    splits: dict[str, dict[str, Entry]] = {"train": {}, "val": {}}
    for row in listed:
        entries = splits[row.split]
        if row.key in entries:
            line = f"{row.source}: {row.key} is already in {entries[row.key].source}, which counts"
            report.problem("duplicate lines", line)
        else:
            entry = Entry(row.key, label_of[row.label], row.video, row.source)
            entries[row.key] = entry
    keys = {entry.key for entries in splits.values() for entry in entries.values()}
    unlisted = tuple(dict.fromkeys(row.key for row in rows if row.key not in keys))
    if unlisted:
        line = f"{len(unlisted):,} test videos: published results are on the validation list"
        report.note("in no list", line)
    found = {split: tuple(entries.values()) for split, entries in splits.items() if entries}
    return Annotations(
        dataset=dataset,
        label_names=names,
        splits=found,
        expected={split: len(entries) for split, entries in found.items()},
        unlisted=unlisted,
    )


def named_by_id(stems: Iterable[str]) -> bool:
    """Whether more files are named by their YouTube id alone than by id and times.

    An id has 11 characters, a name with times 25, so that no name can be both.

    >>> named_by_id(["-3B32lodo2M_000059_000069", "_dbcJuKJQNs_000040_000050"])
    False
    >>> named_by_id(["-3B32lodo2M", "_dbcJuKJQNs"])
    True
    """
    names = list(stems)
    ids = sum(_ID.fullmatch(name) is not None for name in names)
    return ids > sum(_CLIP.fullmatch(name) is not None for name in names)


def clip_name(video: str, start: float, end: float) -> str:
    """A clip's official name.

    >>> clip_name("-3B32lodo2M", 59, 69)
    '-3B32lodo2M_000059_000069'
    """
    return f"{video}_{int(start):06d}_{int(end):06d}"


def _files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    # The folder may also hold lists, and indexes that earlier versions wrote.
    files = [file for file in files if not file.name.endswith(".txt.frames.csv")]
    if not files:
        raise ValueError(f"{path} holds no csv file; expected train.csv, val.csv, test.csv")
    return files


def _rows(path: Path, report: Report, by_id: bool) -> list[_Row]:
    rows = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ValueError(
                    f"{path}: no column {', '.join(missing)}; expected a header "
                    f"label,{','.join(COLUMNS)}"
                )
            for line in reader:
                row = _row(line, f"{path.name}:{reader.line_num}", report, by_id)
                rows += [row] if row else []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read {path}: {error}; expected a csv of Kinetics") from error
    return rows


def _row(line: dict[str, str | None], source: str, report: Report, by_id: bool) -> _Row | None:
    """A csv line, or None after a problem."""
    label, video, start, end, split = (
        (line.get(name) or "").strip() for name in ("label", *COLUMNS)
    )
    if not _ID.fullmatch(video):
        wrong = f"youtube_id {video!r}, expected 11 letters, digits, - and _"
    elif not (_SECONDS.fullmatch(start) and _SECONDS.fullmatch(end)):
        wrong = f"from {start!r} to {end!r}, expected seconds"
    elif split not in SPLITS:
        wrong = f"split {split!r}, expected train, validate, val or test"
    elif not label and SPLITS[split] != "test":
        wrong = "no label"
    else:
        key = video if by_id else clip_name(video, float(start), float(end))
        return _Row(label, video, key, SPLITS[split], source)
    report.problem("unusable lines", f"{source}: {wrong}")
    return None


def _classes(found: set[str], report: Report) -> tuple[str, tuple[str, ...]]:
    """Return the data set that the names belong to, and all its names in label order."""
    names = tuple(sorted(found))
    if not LABELS.is_file():
        report.note("class names", f"not compared with Kinetics-400's: there is no {LABELS}")
        return ("kinetics400" if len(names) == 400 else "custom"), names
    known = tuple(read_label_names(LABELS))
    if found <= set(known):
        for name in known:
            if name not in found:
                report.lack("classes of Kinetics-400 without a line", name)
        return "kinetics400", known
    if len(names) == len(known):
        for name in sorted(found - set(known)):
            line = f"{name!r} is no class of Kinetics-400; {did_you_mean(name, known)}"
            report.problem("class names", line.rstrip("; "))
    line = f"{len(names)} classes, {len(found & set(known))} of them Kinetics-400's"
    report.note("data set", f"{line}: prepared as custom, ids by sorted names")
    return "custom", names
