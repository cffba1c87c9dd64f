"""VTAB-1k in its exchange format, a folder for each of the 19 tasks:

    FOLDER/
      cifar/
        train800.txt
        val200.txt
        train800val200.txt
        test.txt
        images/train800/000000.jpg
        ...
      caltech101/
      ...

A line is `images/train800/000000.jpg LABEL`, the label after the last space, from 0. For each task,
OUT/TASK gets lists of 800 training, 200 development and all test images, by which settings are
chosen, and OUT/TASK/final those of the last training: all 1,000 images, no development list, the
same test list. Classes are named by their numbers. A task of which a file is missing is left out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from vidadapt.apps.prepare.annotations import (
    Annotations,
    Entry,
    add_once,
    check_counts,
    numbered_lines,
)
from vidadapt.apps.prepare.report import Report
from vidadapt.lists import parse_line

SEARCH_LISTS = {"train": "train800.txt", "dev": "val200.txt", "test": "test.txt"}
FINAL_LISTS = {"train": "train800val200.txt", "test": "test.txt"}
NUMBERS = {"train800.txt": 800, "val200.txt": 200, "train800val200.txt": 1_000}


@dataclass(frozen=True)
class Task:
    """A task of VTAB-1k: its group, over which means are taken, and number of classes."""

    group: str
    num_classes: int


TASKS = {  # by folder, in the order of the papers' tables
    "cifar": Task("Natural", 100),
    "caltech101": Task("Natural", 102),
    "dtd": Task("Natural", 47),
    "oxford_flowers102": Task("Natural", 102),
    "oxford_iiit_pet": Task("Natural", 37),
    "svhn": Task("Natural", 10),
    "sun397": Task("Natural", 397),
    "patch_camelyon": Task("Specialised", 2),
    "eurosat": Task("Specialised", 10),
    "resisc45": Task("Specialised", 45),
    "diabetic_retinopathy": Task("Specialised", 5),
    "clevr_count": Task("Structured", 8),
    "clevr_dist": Task("Structured", 6),
    "dmlab": Task("Structured", 6),
    "kitti": Task("Structured", 4),
    "dsprites_loc": Task("Structured", 16),
    "dsprites_ori": Task("Structured", 16),
    "smallnorb_azi": Task("Structured", 18),
    "smallnorb_ele": Task("Structured", 9),
}


def missing_files(folder: Path) -> list[str]:
    """Return the names of the lists that a task's folder lacks."""
    names = dict.fromkeys((*SEARCH_LISTS.values(), *FINAL_LISTS.values()))
    return [name for name in names if not (folder / name).is_file()]


def read(folder: Path, task: str, lists: dict[str, str], report: Report) -> Annotations:
    """Read the lists of a task.

    Args:
        folder: of the task.
        task: key of `TASKS`.
        lists: `SEARCH_LISTS` or `FINAL_LISTS`.
        report: gets unusable lines, and numbers of images that are not VTAB-1k's.

    Raises:
        ValueError: a file cannot be read.
    """
    number = TASKS[task].num_classes
    splits = {split: _entries(folder / name, number, report) for split, name in lists.items()}
    found = Annotations(
        dataset="vtab",
        label_names=tuple(map(str, range(number))),
        splits=splits,
        expected={split: NUMBERS[name] for split, name in lists.items() if name in NUMBERS},
        may_lack_classes=True,
    )
    return check_counts(found, report)


def check_final(search: Annotations, final: Annotations, report: Report) -> None:
    """Report classes of which the 1,000 images have other numbers than the 800 and 200 together.

    Copies may store the 1,000 under names of their own, so that paths are not compared.
    """
    parts = [entry.label for split in ("train", "dev") for entry in search.splits[split]]
    apart, together = Counter(parts), Counter(entry.label for entry in final.splits["train"])
    for label, name in enumerate(final.label_names):
        if apart[label] != together[label]:
            line = f"class {name}: {together[label]} in train800val200.txt, {apart[label]} in "
            line += "train800.txt and val200.txt"
            report.problem("the 1,000 images are not the 800 and the 200", line)


def _entries(path: Path, num_classes: int, report: Report) -> tuple[Entry, ...]:
    entries: dict[str, Entry] = {}
    for source, line in numbered_lines(path, "lines 'path label'"):
        fields = parse_line(line)
        if fields is None or not fields[1].isdecimal() or int(fields[1]) >= num_classes:
            wanted = f"expected 'path label' with a label from 0 to {num_classes - 1}"
            report.problem("unusable lines", f"{source}: {wanted}, got {line!r}")
        else:
            add_once(entries, Entry(fields[0], int(fields[1]), "", source), report)
    return tuple(entries.values())
