"""Sets of small images that are published as arrays of pixels: CIFAR-100 and SVHN.

The arrays become PNG files with the same values, in folders of splits and classes. The MD5 sums of
the published files are compared before they are opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision.datasets import CIFAR100, SVHN

from vidadapt.apps.prepare import folder
from vidadapt.apps.prepare.annotations import Annotations
from vidadapt.apps.prepare.report import Report
from vidadapt.apps.prepare.videos import Files
from vidadapt.console import track


@dataclass(frozen=True)
class PixelSet:
    """A set of images in arrays.

    Attributes:
        dataset: key of `vidadapt.data.DATASETS`.
        layout: of the download and of the images, for the help.
        expected: number of images of each split.
        opened: folder of the download, split -> torchvision's set, which has checked the sums; with
            True it downloads what is missing.
        pixels: of a set, all images (N, H, W, 3) uint8, and their class names (N,).
        published: files and where they come from, for the error.
    """

    dataset: str
    layout: str
    expected: Mapping[str, int]
    opened: Callable[[Path, str, bool], Any]
    pixels: Callable[[Any], tuple[np.ndarray, list[str]]]
    published: str

    def download(self, official: Path) -> None:
        """Download the official files that are not there."""
        for split in self.expected:
            self.opened(official, split, True)

    def write_images(self, official: Path, images: Path) -> None:
        """Write the images as PNG files; an existing folder is kept.

        They are written beside `images` and renamed at the end, so that what is there is whole.

        Raises:
            ValueError: the official files are missing or differ from the published ones.
            ImportError: SVHN's need scipy.
        """
        if images.exists():
            return
        partial = images.with_name(images.name + ".partial")
        for split in self.expected:
            try:
                found, names = self.pixels(self.opened(official, split, False))
            except RuntimeError as error:
                raise ValueError(
                    f"{official}: expected {self.published}, as published (by their MD5 sums); put "
                    "them there, or add --download"
                ) from error
            for name in set(names):
                (partial / split / name).mkdir(parents=True, exist_ok=True)
            pairs = zip(found, names, strict=True)
            shown = track(pairs, total=len(found), label=f"images of {split}", unit="images")
            for number, (pixels, name) in enumerate(shown):
                Image.fromarray(pixels).save(partial / split / name / f"{number:05}.png")
        partial.rename(images)

    def read(self, files: Files, report: Report) -> Annotations:
        """Take classes and splits from the folders that were written; report what they lack."""
        found = folder.read(files, report, self.dataset)
        for split, number in self.expected.items():
            here = len(found.splits.get(split, ()))
            if here != number:
                report.lack("images by split", f"{split}: {here:,} of {number:,} images")
        return replace(found, expected=dict(self.expected))


def _of_cifar(found: CIFAR100) -> tuple[np.ndarray, list[str]]:
    return found.data, [found.classes[label] for label in found.targets]


def _of_svhn(found: SVHN) -> tuple[np.ndarray, list[str]]:
    return found.data.transpose(0, 2, 3, 1), [str(label) for label in found.labels.tolist()]


PIXEL_SETS = {
    "cifar100": PixelSet(
        "cifar100",
        """CIFAR-100: the official files, and a folder for its images.

    ANNOTATIONS/                  VIDEOS/ (written if it is not there)
      cifar-100-python/             train/
        meta                          apple/
        train                           00000.png, its number in the official file
        test                        test/
""",
        {"train": 50_000, "test": 10_000},
        lambda home, split, fetch: CIFAR100(home, train=split == "train", download=fetch),
        _of_cifar,
        f"cifar-100-python/ in it, with the files train, test and meta of {CIFAR100.url}",
    ),
    "svhn": PixelSet(
        "svhn",
        """SVHN, house numbers: the official files of cropped digits, and a folder for its images.

    ANNOTATIONS/                  VIDEOS/ (written if it is not there)
      train_32x32.mat               train/
      test_32x32.mat                  0/, 1/, ... 9/
                                        00000.png, its number in the official file
                                    test/

The digit 0, which the files call 10, is class 0. The split `extra` is not used.
""",
        {"train": 73_257, "test": 26_032},
        lambda home, split, fetch: SVHN(home, split=split, download=fetch),
        _of_svhn,
        f"train_32x32.mat and test_32x32.mat in it, of {SVHN.split_list['train'][0]} and beside it",
    ),
}
