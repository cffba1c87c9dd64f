"""Folds of a cross-validation, as `vidadapt prepare ... --folds` writes them.

    OUT/fold1/      a prepared folder: test is the fold, dev and train are groups of the others
    OUT/fold2/      ...
    OUT/folds.csv   path,label,group,fold: every video once; written last

A group (a person, a film) is in one fold whole, so that no video is tested by a model that has seen
another video of its group.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vidadapt.files import replaced
from vidadapt.lists.reading import ListError

FOLDS_FILE = "folds.csv"
COLUMNS = ("path", "label", "group", "fold")


@dataclass(frozen=True)
class FoldedVideo:
    """One video of a cross-validation: a row of folds.csv.

    Attributes:
        path: as in the lists.
        group: name; of a video without one its path with a slash before it.
        fold: name of the folder in whose test list it is.
    """

    path: str
    label: int
    group: str
    fold: str


def fold_names(videos: Sequence[FoldedVideo]) -> tuple[str, ...]:
    """Return the names of the folds in their order: fold2 before fold10.

    >>> fold_names([FoldedVideo("a", 0, "", f"fold{n}") for n in (10, 2, 2)])
    ('fold2', 'fold10')
    """
    return tuple(sorted({video.fold for video in videos}, key=lambda name: (len(name), name)))


def group_numbers(videos: Sequence[FoldedVideo]) -> dict[str, int]:
    """Return path -> number of its group, from 0 in the order of the groups' names."""
    names = sorted({video.group for video in videos})
    numbers = {name: number for number, name in enumerate(names)}
    return {video.path: numbers[video.group] for video in videos}


def write_folds(folder: Path, videos: Sequence[FoldedVideo]) -> None:
    """Write folds.csv, replacing an older one atomically."""
    with replaced(folder / FOLDS_FILE) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows((one.path, one.label, one.group, one.fold) for one in videos)


def read_folds(folder: Path) -> tuple[FoldedVideo, ...]:
    """Read the folds.csv of a folder.

    Raises:
        ListError: there is none, or a row that `write_folds` would not have written.
    """
    file = folder / FOLDS_FILE
    if not file.is_file():
        raise ListError(
            f"{folder} holds no {FOLDS_FILE}; expected a folder that vidadapt prepare csv or "
            "folder wrote with --folds"
        )
    videos, seen = [], set[str]()
    with file.open(newline="", encoding="utf-8") as text:
        rows = csv.reader(text)
        if tuple(next(rows, ())) != COLUMNS:
            raise ListError(f"{file}:1: expected the header {','.join(COLUMNS)}")
        for row in rows:
            place = f"{file}:{rows.line_num}"
            if len(row) != len(COLUMNS) or not row[1].isdecimal() or not row[3].isidentifier():
                raise ListError(f"{place}: expected path, label number, group, fold; got {row}")
            if row[0] in seen:
                raise ListError(f"{place}: {row[0]} has a row before; every video has one fold")
            seen.add(row[0])
            videos.append(FoldedVideo(row[0], int(row[1]), row[2], row[3]))
    if len({video.fold for video in videos}) < 2:
        raise ListError(f"{file}: expected videos in at least two folds")
    return tuple(videos)
