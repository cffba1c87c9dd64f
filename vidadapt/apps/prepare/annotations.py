"""What a source says about its videos, before their files are looked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vidadapt.apps.prepare.report import Report
from vidadapt.lists.names import composed, spelled


@dataclass(frozen=True)
class Entry:
    """One annotated video.

    Attributes:
        key: names the video: its path below the folder of videos, with or without its ending, or
            an id that is the file's stem, wherever the file is.
        label: in [0, number of classes).
        group: what it was cut from, e.g. a film: videos of one group are never on both sides of a
            split that is made here. Empty: a group of its own.
        source: where the annotation says so, as "file:line" or "file, record 12".
    """

    key: str
    label: int
    group: str
    source: str


@dataclass(frozen=True)
class Annotations:
    """A source's videos by split.

    Attributes:
        dataset: key of `vidadapt.data.DATASETS`.
        label_names: K names in label order.
        splits: `train`, `dev`, `val`, `test`, those that the source has, in this order.
        expected: official number of videos of a split; empty where there is none.
        unlisted: keys of videos that the source names but puts in none of `splits` (test videos
            without labels, clips that a split skips): they may be among the others, unreported.
    """

    dataset: str
    label_names: tuple[str, ...]
    splits: dict[str, tuple[Entry, ...]]
    expected: dict[str, int]
    unlisted: tuple[str, ...] = ()


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


def check_counts(annotations: Annotations, report: Report) -> None:
    """Report splits whose number of entries is not the official one, before any file is looked for.

    Fewer is missing, more is a problem.
    """
    for split, expected in annotations.expected.items():
        number = len(annotations.splits.get(split, ()))
        line = f"{split}: {number:,} videos are annotated, officially {expected:,}"
        if number < expected:
            report.lack("official counts", line)
        elif number > expected:
            report.problem("official counts", line)
