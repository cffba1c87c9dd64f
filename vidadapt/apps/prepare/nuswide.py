"""NUS-WIDE, images with any number of 81 concepts, as downloaded:

    FOLDER/
      ImageList/TrainImagelist.txt                    lines such as actor\\0001_2124494179.jpg
      ImageList/TestImagelist.txt
      Groundtruth/TrainTestLabels/Labels_airport_Train.txt      0 or 1, a line an image
      Groundtruth/TrainTestLabels/Labels_airport_Test.txt
      ...
      Flickr/actor/0001_2124494179.jpg

The text files are found wherever they are below FOLDER, and so are the images. 161,789 training and
107,859 test images officially; many can no longer be had, and are reported as missing. Images
without a concept are part of the official lists: they are kept, as lines `path -`. A development
list is taken out of the training images, since the best epoch and the thresholds are chosen by it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vidadapt.apps.prepare.annotations import Annotations, Entry, add_once, check_counts, read_text
from vidadapt.apps.prepare.report import Report
from vidadapt.apps.prepare.videos import Files
from vidadapt.config import shipped
from vidadapt.lists import read_label_names

OFFICIAL = {"train": 161_789, "test": 107_859}
SIDES = {"train": "Train", "test": "Test"}  # as file names write the splits
LABELS = shipped("data_lists") / "nuswide" / "labels.txt"


def read(files: Files, report: Report) -> Annotations:
    """Read the lists of images and the concepts of each: splits `train` and `test`.

    Args:
        files: of `videos.find`; the text files are among the others.
        report: gets numbers of images that are not the official ones, and notes how many images
            have no concept.

    Raises:
        ValueError: a file is missing or there twice, or the lines of a concept are not 0 or 1 for
            each image.
    """
    concepts = tuple(read_label_names(LABELS))
    labels = {
        split: {c: f"Labels_{c}_{side}.txt" for c in concepts} for split, side in SIDES.items()
    }
    lists = {split: f"{side}Imagelist.txt" for split, side in SIDES.items()}
    of_concepts = [name for of_split in labels.values() for name in of_split.values()]
    places = _places(files, [*lists.values(), *of_concepts])
    splits = {}
    for split in SIDES:
        images = [line.strip().replace("\\", "/") for line in _lines(places[lists[split]])]
        several = np.zeros((len(images), len(concepts)), bool)
        for column, concept in enumerate(concepts):
            several[:, column] = _marks(places[labels[split][concept]], len(images))
        splits[split] = _entries(lists[split], images, several, report)
        without = sum(
            not entry.label for entry in splits[split] if not isinstance(entry.label, int)
        )
        line = f"{split}: {without:,} of {len(splits[split]):,} annotated images"
        report.note("images without a concept, kept as 'path -'", line)
    return check_counts(
        Annotations("nuswide", concepts, splits, dict(OFFICIAL), multi_label=True), report
    )


def _places(files: Files, wanted: list[str]) -> dict[str, Path]:
    """Return each wanted file by its name."""
    names = set(wanted)
    found: dict[str, list[str]] = {}
    for path in files.others:
        if (name := path.rpartition("/")[2]) in names:
            found.setdefault(name, []).append(path)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ValueError(
            f"{files.root}: {len(missing)} of {len(wanted)} text files are not there: "
            f"{', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}; expected "
            "ImageList/TrainImagelist.txt, Groundtruth/TrainTestLabels/Labels_airport_Train.txt "
            "and so on, as the set's ImageList.zip and Groundtruth.zip unpack to"
        )
    for name, places in found.items():
        if len(places) > 1:
            raise ValueError(
                f"{files.root}: {name} is there twice: {', '.join(places)}; delete one"
            )
    return {name: files.root / places[0] for name, places in found.items()}


def _lines(path: Path) -> list[str]:
    """Return the lines that are not blank."""
    return [line for line in read_text(path, "a line an image").splitlines() if line.strip()]


def _marks(path: Path, number: int) -> np.ndarray:
    """Return (number,) bool of a concept's file."""
    marks = [line.strip() for line in _lines(path)]
    wrong = [n for n, mark in enumerate(marks, start=1) if mark not in ("0", "1")]
    if wrong:
        raise ValueError(f"{path}:{wrong[0]}: expected 0 or 1, got {marks[wrong[0] - 1]!r}")
    if len(marks) != number:
        raise ValueError(
            f"{path}: {len(marks):,} lines, but the list of images has {number:,}; expected a line "
            "an image, of the same download"
        )
    return np.array(marks) == "1"


def _entries(
    name: str, images: list[str], several: np.ndarray, report: Report
) -> tuple[Entry, ...]:
    entries: dict[str, Entry] = {}
    for line, (image, row) in enumerate(zip(images, several, strict=True), start=1):
        labels = tuple(np.flatnonzero(row).tolist())
        add_once(entries, Entry(image, labels, "", f"{name}:{line}"), report)
    return tuple(entries.values())
