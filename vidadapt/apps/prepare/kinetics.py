"""Kinetics-400 (or -600, -700), as downloaded:

    ANNOTATIONS/      VIDEOS/
      train.csv         abseiling/                          (or air_drumming/, or no folders)
      val.csv             -3B32lodo2M_000059_000069.mp4     ID_START_END in seconds, six digits
      test.csv            ...

Lines of a csv are `label,youtube_id,time_start,time_end,split` and perhaps `is_cc`, under a header
with these names; `split` is train, validate (or val) or test. Published results are on the
validation videos; the paths of test videos are in unlabelled.txt, for `vidadapt predict`. Files may
be named by the id alone: this is assumed where more names have the 11 characters of an id than the
25 of a clip. Nearly every copy is partial, since videos vanish: what the csv files list is
expected, and what is missing is reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from vidadapt.apps.prepare.annotations import SPLIT_OF, Annotations, Entry, add_once, table_lines
from vidadapt.apps.prepare.report import Report
from vidadapt.config import shipped
from vidadapt.console import did_you_mean
from vidadapt.lists import read_label_names, without_ending

COLUMNS = ("youtube_id", "time_start", "time_end", "split")
LABELS = shipped("data_lists") / "kinetics400" / "labels.txt"
_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_CLIP = re.compile(r"[A-Za-z0-9_-]{11}_[0-9]{6}_[0-9]{6}")
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]*)?")


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
    listed = [row for row in rows if row[1] != "test"]
    if not listed:
        raise ValueError(
            f"{path}: no training or validation line with a label; expected "
            f"label,{','.join(COLUMNS)}"
        )
    dataset, names = _classes({name for name, _, _ in listed}, report)
    label_of = {name: label for label, name in enumerate(names)}
    splits: dict[str, dict[str, Entry]] = {"train": {}, "val": {}}
    for name, split, entry in listed:
        add_once(splits[split], replace(entry, label=label_of[name]), report)
    keys = splits["train"].keys() | splits["val"].keys()
    unlisted = tuple(dict.fromkeys(entry.key for _, _, entry in rows if entry.key not in keys))
    if unlisted:
        line = f"{len(unlisted):,} test videos: published results are on the validation list"
        report.note("in no list", line)
    found = {split: tuple(entries.values()) for split, entries in splits.items() if entries}
    expected = {split: len(entries) for split, entries in found.items()}
    return Annotations(dataset, names, found, expected, unlisted, "test videos")


def named_by_id(videos: Iterable[str]) -> bool:
    """Return True if more files are named by their YouTube id alone than by id and times.

    An id has 11 characters, a name with times 25, so that no name can be both.

    Args:
        videos: paths.

    >>> named_by_id(["a/-3B32lodo2M_000059_000069.mp4", "a/_dbcJuKJQNs_000040_000050.mp4"])
    False
    >>> named_by_id(["a/-3B32lodo2M.mp4", "a/_dbcJuKJQNs.mp4"])
    True
    """
    stems = [without_ending(video).rpartition("/")[2] for video in videos]
    ids = sum(_ID.fullmatch(stem) is not None for stem in stems)
    return ids > sum(_CLIP.fullmatch(stem) is not None for stem in stems)


def clip_name(video: str, start: float, end: float) -> str:
    """Return a clip's official name.

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


def _rows(path: Path, report: Report, by_id: bool) -> Iterator[tuple[str, str, Entry]]:
    """Yield class name, split and entry, still without its label, of every usable line."""
    lines = table_lines(path, "a csv of Kinetics")
    _, header = next(lines, ("", []))
    if missing := [name for name in COLUMNS if name not in header]:
        raise ValueError(
            f"{path}: no column {', '.join(missing)}; expected a header label,{','.join(COLUMNS)}"
        )
    for source, cells in lines:
        row = dict(zip(header, cells, strict=False))
        label, video, start, end, split = (row.get(name, "") for name in ("label", *COLUMNS))
        if not cells:
            continue
        if not _ID.fullmatch(video):
            wrong = f"youtube_id {video!r}, expected 11 letters, digits, - and _"
        elif not (_SECONDS.fullmatch(start) and _SECONDS.fullmatch(end)):
            wrong = f"from {start!r} to {end!r}, expected seconds"
        elif SPLIT_OF.get(split) not in ("train", "val", "test"):
            wrong = f"split {split!r}, expected train, validate, val or test"
        elif not label and SPLIT_OF[split] != "test":
            wrong = "no label"
        else:
            key = video if by_id else clip_name(video, float(start), float(end))
            yield label, SPLIT_OF[split], Entry(key, -1, video, source)
            continue
        report.problem("unusable lines", f"{source}: {wrong}")


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
