"""Sets of image files whose splits are published beside them: Food-101 and Oxford Flowers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torchvision.datasets import Flowers102, Food101
from torchvision.datasets.utils import check_integrity

from vidadapt.apps.prepare.annotations import Annotations, Entry, check_counts, read_text
from vidadapt.apps.prepare.report import Report

FOOD101 = """Food-101: the unpacked food-101.tar.gz.

    ANNOTATIONS/ (food-101/meta)    VIDEOS/ (food-101/images)
      train.json                      apple_pie/
      test.json                         1005649.jpg
"""
FLOWERS102 = """Oxford 102 Flowers: two MATLAB files (their MD5 sums are compared), and the images.

    ANNOTATIONS/ (flowers-102)      VIDEOS/ (flowers-102/jpg)
      imagelabels.mat                 image_00001.jpg
      setid.mat                       ...

The official splits: 1,020 images to train on, 1,020 in val, which serve for development, 6,149 in
test. Classes are the numbers of imagelabels.mat less 1.
"""
FOODS = {"train": 75_750, "test": 25_250}
FLOWERS = {"train": 1_020, "val": 1_020, "test": 6_149}
IDS = {"train": "trnid", "val": "valid", "test": "tstid"}  # of setid.mat
SUMS = {
    "imagelabels.mat": "e0620be6f572b9609742df49c70aed4d",
    "setid.mat": "a5357ecc9cb78c4bef273ce3793fc85c",
}


def download_food101(meta: Path) -> None:
    """Download and unpack the set, if it is not there.

    Raises:
        ValueError: the folder is not the one that it unpacks to.
    """
    Food101(_above(meta, "food-101/meta"), download=True)


def download_flowers102(folder: Path) -> None:
    """Download and unpack the set, if it is not there.

    Raises:
        ValueError: the folder is not the one that it unpacks to.
        ImportError: scipy is not installed.
    """
    Flowers102(_above(folder, "flowers-102"), download=True)


def _above(folder: Path, unpacked: str) -> Path:
    if not folder.as_posix().endswith(unpacked):
        raise ValueError(f"--annotations: {folder}; with --download expected ANY/{unpacked}")
    return folder.parents[unpacked.count("/")]


def read_food101(meta: Path, report: Report) -> Annotations:
    """Read the official lists of both splits.

    Raises:
        ValueError: a list is missing or is none; names it.
    """
    lists = {split: _food_list(meta / f"{split}.json") for split in FOODS}
    names = tuple(sorted({name for listed in lists.values() for name in listed}))
    label_of = {name: label for label, name in enumerate(names)}
    splits = {
        split: tuple(
            Entry(f"{image}.jpg", label_of[name], "", f"{split}.json")
            for name, images in listed.items()
            for image in images
        )
        for split, listed in lists.items()
    }
    return check_counts(Annotations("food101", names, splits, dict(FOODS)), report)


def _food_list(path: Path) -> dict[str, list[str]]:
    wanted = "one of Food-101's lists, meta/train.json and meta/test.json"
    try:
        found = json.loads(read_text(path, wanted))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: {error}; expected {wanted}") from error
    if not isinstance(found, dict) or not all(
        isinstance(images, list) and all(isinstance(image, str) for image in images)
        for images in found.values()
    ):
        raise ValueError(f"{path}: expected {wanted}")
    return found


def read_flowers102(folder: Path, report: Report) -> Annotations:
    """Read the official splits and labels.

    Raises:
        ValueError: a file is missing or is not the published one; names it.
        ImportError: scipy is not installed.
    """
    for name, md5 in SUMS.items():
        if not check_integrity(str(folder / name), md5):
            raise ValueError(
                f"{folder / name}: missing, or not the published file (MD5 {md5}); it is at "
                f"https://www.robots.ox.ac.uk/~vgg/data/flowers/102/{name}"
            )
    labels = _matlab(folder / "imagelabels.mat")["labels"].tolist()
    ids = _matlab(folder / "setid.mat")
    splits = {
        split: tuple(
            Entry(f"image_{number:05}.jpg", int(labels[number - 1]) - 1, "", "setid.mat")
            for number in ids[key].tolist()
        )
        for split, key in IDS.items()
    }
    names = tuple(Flowers102.classes)
    return check_counts(Annotations("flowers102", names, splits, dict(FLOWERS)), report)


def _matlab(path: Path) -> dict[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError(
            f"{path}: MATLAB files are read by scipy; pip install 'vidadapt[analysis]'"
        ) from error
    return loadmat(path, squeeze_me=True)
