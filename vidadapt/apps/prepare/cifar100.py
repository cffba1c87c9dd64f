"""CIFAR-100: the official files, and a folder for its images.

    ANNOTATIONS/                  VIDEOS/ (written if it is not there)
      cifar-100-python/             train/
        meta                          apple/
        train                           00000.png, its number in the official file
        test                        test/

The files hold pixels, which become PNG files with the same values. Their MD5 sums are compared with
the published ones before they are opened.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image
from torchvision.datasets import CIFAR100

from vidadapt.apps.prepare import folder
from vidadapt.apps.prepare.annotations import Annotations
from vidadapt.apps.prepare.report import Report
from vidadapt.apps.prepare.videos import Files
from vidadapt.console import track

EXPECTED = {"train": 50_000, "test": 10_000}


def write_images(official: Path, images: Path) -> None:
    """Write the images as PNG files in folders of splits and classes; an existing folder is kept.

    They are written beside `images` and renamed at the end, so that what is there is whole.

    Raises:
        ValueError: the official files are missing or differ from the published ones.
    """
    if images.exists():
        return
    partial = images.with_name(images.name + ".partial")
    for split in EXPECTED:
        try:
            found = CIFAR100(official, train=split == "train")
        except RuntimeError as error:
            raise ValueError(
                f"{official}: expected cifar-100-python/ in it, with the files train, test and "
                f"meta as published (by their MD5 sums); unpack {CIFAR100.filename} there, from "
                f"{CIFAR100.url}"
            ) from error
        for name in found.classes:
            (partial / split / name).mkdir(parents=True, exist_ok=True)
        pairs = zip(found.data, found.targets, strict=True)
        shown = track(pairs, total=len(found), label=f"images of {split}", unit="images")
        for number, (pixels, label) in enumerate(shown):
            path = partial / split / found.classes[label] / f"{number:05}.png"
            Image.fromarray(pixels).save(path)
    partial.rename(images)


def read(files: Files, report: Report) -> Annotations:
    """Take classes and splits from the folders that `write_images` wrote; report what they lack."""
    found = folder.read(files, report, "cifar100")
    for split, number in EXPECTED.items():
        here = len(found.splits.get(split, ()))
        if here != number:
            report.lack("images by split", f"{split}: {here:,} of {number:,} images")
    return replace(found, expected=EXPECTED)
