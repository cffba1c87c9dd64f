"""Annotations of a source's videos, before their files are looked for; what all readers share."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidadapt.apps.prepare.report import Report
from vidadapt.data import DATASETS
from vidadapt.lists import Label, composed, spelled

SPLITS = ("train", "dev", "val", "test")
SPLIT_OF = {  # by a name that tables and folders have for it
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev",), "dev"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class Entry:
    """One annotated video.

    Attributes:
        key: names the video: its path below the folder of videos, with or without its ending, or
            an id that is the file's stem, wherever the file is.
        label: in [0, number of classes); of a multi-label source all labels.
        group: what it was cut from, e.g. a film: videos of one group are never on both sides of a
            split that is made here. Empty: a group of its own.
        source: where the annotation says so, as "file:line" or "file, record 12".
        fragment: of a segment of a film, `#t=1.5,2` or `#frames=30,60`; empty: the whole file.
    """

    key: str
    label: Label
    group: str
    source: str
    fragment: str = ""

    @property
    def classes(self) -> tuple[int, ...]:
        """Labels, as splits count them; (-1,): it has none."""
        return (self.label,) if isinstance(self.label, int) else self.label or (-1,)


@dataclass(frozen=True)
class Annotations:
    """A source's videos by split.

    Attributes:
        dataset: key of `vidadapt.data.DATASETS`.
        label_names: K names in label order.
        splits: those of `SPLITS` that the source has, in this order.
        expected: official number of videos of a split; empty where there is none.
        unlisted: keys of videos that the source names but puts in none of `splits` (test videos
            without labels, clips that a split skips): they may be among the others, unreported.
        unlisted_are: what they are, in words, if their paths are to be written to `UNLABELLED`.
        multi_label: a video has any number of labels.
        may_lack_classes: lists are small random parts of their set: a class that one does not have
            is noted, and is neither a problem nor missing.
    """

    dataset: str
    label_names: tuple[str, ...]
    splits: dict[str, tuple[Entry, ...]]
    expected: dict[str, int]
    unlisted: tuple[str, ...] = ()
    unlisted_are: str = ""
    multi_label: bool = False
    may_lack_classes: bool = False


def read_text(path: Path, expected: str) -> str:
    """Read a text file in UTF-8, with or without a byte-order mark.

    Args:
        expected: what the file should be, for the error.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {path}: {error}; expected {expected}") from error


def numbered_lines(path: Path, expected: str) -> list[tuple[str, str]]:
    """Return source ("file:line") and stripped text of every line that is not blank.

    Raises:
        ValueError: see `read_text`.
    """
    lines = enumerate(read_text(path, expected).splitlines(), start=1)
    return [(f"{path.name}:{number}", line.strip()) for number, line in lines if line.strip()]


def table_lines(
    path: Path, expected: str, delimiters: str = ","
) -> Iterator[tuple[str, list[str]]]:
    """Yield source ("file:line") and stripped cells of every line of a csv file; first its header.

    Args:
        delimiters: that one of which the header has most separates cells.

    Raises:
        ValueError: see `read_text`, or a quote is not closed.
    """
    text = read_text(path, expected)
    delimiter = max(delimiters, key=text.split("\n", 1)[0].count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        for cells in reader:
            yield f"{path.name}:{reader.line_num}", [cell.strip() for cell in cells]
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: {error}; is a quote not closed?") from error


def add_once(
    entries: dict[str, Entry], entry: Entry, report: Report, title: str = "duplicate lines"
) -> None:
    """Add an entry by its key; report a second one of the same key under `title`, without it."""
    first = entries.setdefault(entry.key, entry)
    if first is not entry:
        line = f"{entry.source}: {entry.key} is already in {first.source}, which counts"
        report.problem(title, line)


def check_counts(annotations: Annotations, report: Report) -> Annotations:
    """Return official annotations; report numbers that are not the official ones.

    Fewer videos are missing, more are a problem; another number of classes is a problem.
    """
    number, official = len(annotations.label_names), DATASETS[annotations.dataset].num_classes
    if official is not None and number != official:
        report.problem("official counts", f"{number} classes are named, officially {official}")
    for split, expected in annotations.expected.items():
        number = len(annotations.splits.get(split, ()))
        what = f"{split}: {number:,} videos are annotated"
        report.compare("official counts", what, number, expected)
    return annotations


def check_names(label_names: Sequence[str], report: Report) -> None:
    """Report classes whose names look alike: they may be meant as one.

    Names of the same letters in two Unicode spellings are a problem, names that differ in case
    alone a note.
    """
    by_letters: dict[str, list[str]] = {}
    by_case: dict[str, list[str]] = {}
    for name in label_names:
        by_letters.setdefault(composed(name), []).append(name)
    for letters, names in by_letters.items():
        by_case.setdefault(letters.casefold(), []).append(names[0])
        if len(names) > 1:
            line = ", ".join(map(spelled, names))
            report.problem("classes whose names differ in Unicode spelling alone", line)
    for names in by_case.values():
        if len(names) > 1:
            report.note("classes whose names differ in case alone", ", ".join(names))
