"""UCF101, as downloaded:

    ANNOTATIONS/            VIDEOS/
      classInd.txt            ApplyEyeMakeup/
      trainlist01.txt           v_ApplyEyeMakeup_g01_c01.avi
      testlist01.txt            ...
      ...                     ...
      testlist03.txt          YoYo/

classInd.txt (`NUMBER CLASS`, from 1) decides the class ids; its order is not the one of sorted
names. A line of a training list is `CLASS/NAME.avi NUMBER`, of a test list `CLASS/NAME.avi`.
9,537 / 3,783, 9,586 / 3,734 and 9,624 / 3,696 training / test videos of 101 classes.
"""

from __future__ import annotations

import re
from functools import cache, partial
from pathlib import Path

from vidadapt.apps.prepare.annotations import (
    Annotations,
    Entry,
    add_once,
    check_counts,
    numbered_lines,
)
from vidadapt.apps.prepare.report import Report
from vidadapt.console import did_you_mean

EXPECTED = "the folder that UCF101TrainTestSplits-RecognitionTask.zip unpacks to"
OFFICIAL = {
    1: {"train": 9_537, "test": 3_783},
    2: {"train": 9_586, "test": 3_734},
    3: {"train": 9_624, "test": 3_696},
}
_NAME = re.compile(r"v_(?P<name>.+)_(?P<group>g[0-9]+)_c[0-9]+")


def read(folder: Path, split: int, report: Report) -> Annotations:
    """Read classInd.txt and the lists of one split: `train` and `test`.

    An entry's group is its class and `gNN`: clips of one group come from one video.

    Args:
        folder: holds the official text files (Windows or Unix line ends).
        split: 1, 2 or 3.
        report: gets unusable lines, and counts that differ.

    Raises:
        ValueError: a missing file, or class numbers that are not 1..K.
    """
    names = _classes(folder / "classInd.txt")
    label_of = {name: label for label, name in enumerate(names)}
    splits = {
        side: _entries(folder / f"{side}list{split:02d}.txt", side, label_of, report)
        for side in ("train", "test")
    }
    return check_counts(Annotations("ucf101", names, splits, OFFICIAL[split]), report)


def group_of(stem: str, name: str) -> str | None:
    """Return the class and group of a video; None: its name is not of that class.

    >>> group_of("v_ApplyEyeMakeup_g01_c05", "ApplyEyeMakeup")
    'ApplyEyeMakeup/g01'

    One class is spelt differently in its files' names:

    >>> group_of("v_HandStandPushups_g01_c01", "HandstandPushups")
    'HandstandPushups/g01'
    """
    match = _NAME.fullmatch(stem)
    same = match is not None and match["name"].lower() == name.lower()
    return f"{name}/{match['group']}" if match is not None and same else None


def _classes(path: Path) -> tuple[str, ...]:
    """Return the class names in the order of their numbers."""
    name_of: dict[int, str] = {}
    for source, line in numbered_lines(path, EXPECTED):
        number, _, name = line.partition(" ")
        if not number.isdecimal() or not name.strip():
            raise ValueError(f"{path.parent / source}: expected 'NUMBER CLASS', got {line!r}")
        if int(number) in name_of or name.strip() in name_of.values():
            raise ValueError(f"{path.parent / source}: {line!r} is there twice")
        name_of[int(number)] = name.strip()
    if sorted(name_of) != list(range(1, len(name_of) + 1)) or not name_of:
        raise ValueError(
            f"{path}: expected the class numbers 1, 2, ... without gaps, got {len(name_of)} of "
            f"{min(name_of, default=0)}..{max(name_of, default=0)}"
        )
    return tuple(name_of[number] for number in sorted(name_of))


def _entries(path: Path, side: str, label_of: dict[str, int], report: Report) -> tuple[Entry, ...]:
    entries: dict[str, Entry] = {}
    near = cache(partial(did_you_mean, known=tuple(label_of)))  # slow, and needed for few names
    for source, line in numbered_lines(path, EXPECTED):
        file, number = line, ""
        if side == "train":
            file, _, number = line.rpartition(" ")
        name, _, stem = file.strip().removesuffix(".avi").rpartition("/")
        if not name or not stem or (side == "train" and not number.isdecimal()):
            wanted = "CLASS/NAME.avi NUMBER" if side == "train" else "CLASS/NAME.avi"
            report.problem("unusable lines", f"{source}: expected '{wanted}', got {line!r}")
            continue
        if name not in label_of:
            report.problem("unknown classes", f"{source}: {line!r}; {near(name)}".rstrip("; "))
            continue
        group = group_of(stem, name)
        key = f"{name}/{stem}"
        if group is None:
            line = f"{source}: {file!r}, expected {name}/v_{name}_gNN_cNN.avi; left out"
            report.problem("names of another class", line)
        elif number and int(number) != label_of[name] + 1:
            line = f"{source}: {file} has {number}, but {name} is {label_of[name] + 1}"
            report.problem("numbers of another class", f"{line} in classInd.txt; left out")
        else:
            add_once(entries, Entry(key, label_of[name], group, source), report)
    return tuple(entries.values())
