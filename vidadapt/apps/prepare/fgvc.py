"""A set of FGVC with the lists that visual prompt tuning published:

    FOLDER/
      train.json        {"image name": class id, ...}
      val.json
      test.json
      images/...        (Images/... of dogs; of flowers and cars, images are below FOLDER itself)

The sets are cub, nabirds, flowers, dogs and cars. Image names are paths below the folder of images.
Class ids may begin anywhere and have gaps (those of NABirds do): they are sorted and renumbered
from 0, over all three files together, and name their classes. val is the development list.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vidadapt.apps.prepare.annotations import Annotations, Entry, add_once, read_text
from vidadapt.apps.prepare.report import Report

NUM_CLASSES = {"cub": 200, "nabirds": 555, "flowers": 102, "dogs": 120, "cars": 196}
IMAGE_FOLDERS = {"cub": "images", "nabirds": "images", "dogs": "Images"}
FILES = {"train": "train.json", "dev": "val.json", "test": "test.json"}


def image_folder(folder: Path, name: str) -> Path:
    """Return the folder that the image names of a set are relative to.

    Args:
        folder: of the set.
        name: key of `NUM_CLASSES`.
    """
    below = folder / IMAGE_FOLDERS.get(name, ".")
    return below if below.is_dir() else folder


def read(folder: Path, name: str, report: Report) -> Annotations:
    """Read the three lists of a set.

    Args:
        folder: holds the files.
        name: key of `NUM_CLASSES`.
        report: gets unusable entries, and another number of classes than the set's.

    Raises:
        ValueError: a file is missing or holds no names with class ids.
    """
    if missing := [file for file in FILES.values() if not (folder / file).is_file()]:
        raise ValueError(
            f"{folder}: no {', '.join(missing)}; expected {', '.join(FILES.values())}, which map "
            "image names to class ids"
        )
    listed = {split: _read_file(folder / file) for split, file in FILES.items()}
    found = {ident for entries in listed.values() for _, _, ident in entries}
    kinds = {type(ident) for ident in found}
    if len(kinds) > 1 or not kinds <= {int, str}:
        raise ValueError(f"{folder}: expected class ids that are all numbers, or all texts")
    ids = sorted(found)
    what = f"{len(ids)} classes are in the three files"
    report.compare("official counts", what, len(ids), NUM_CLASSES[name])
    label_of = {ident: label for label, ident in enumerate(ids)}
    splits: dict[str, tuple[Entry, ...]] = {}
    for split, entries in listed.items():
        own: dict[str, Entry] = {}
        for source, image, ident in entries:
            entry = Entry(image, label_of[ident], "", source)
            add_once(own, entry, report, "images named twice in a file")
        splits[split] = tuple(own.values())
    expected = {split: len(own) for split, own in splits.items()}
    names = tuple(map(str, ids))
    return Annotations("fgvc", names, splits, expected, may_lack_classes=True)


def _read_file(path: Path) -> list[tuple[str, str, Any]]:
    """Return source, image name and class id of each entry, also of a name that comes twice."""
    wanted = 'an object {"image name": class id, ...}'
    try:
        pairs = json.loads(read_text(path, wanted), object_pairs_hook=tuple)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}; expected {wanted}") from error
    if not isinstance(pairs, tuple) or not pairs:
        raise ValueError(f"{path}: expected {wanted}")
    return [(f"{path.name}, entry {n}", *pair) for n, pair in enumerate(pairs, start=1)]
