"""The official data sets that lists are made of: a new one is an entry here, and its preset in
`vidadapt.data.datasets`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vidadapt.apps.prepare import hmdb51, image_sets, kinetics, ssv2, ucf101
from vidadapt.apps.prepare.annotations import Annotations
from vidadapt.apps.prepare.pixel_sets import PIXEL_SETS
from vidadapt.apps.prepare.report import Report
from vidadapt.apps.prepare.videos import Files


@dataclass(frozen=True)
class Source:
    """An official data set.

    Attributes:
        title: its name.
        layout: annotations and videos as downloaded, for the help.
        example: options of a call, for the help.
        read: makes annotations of the folder of the official files, the split, the files among the
            videos, and a report.
        splits: numbers of its official splits, of which a call chooses; empty: it has only one.
        images: whether its files are images.
        download: fetches the official files into their folder; None: users do it themselves.
        write_images: of a set in arrays, writes the images from the folder of the official files.
    """

    title: str
    layout: str | None
    example: str
    read: Callable[[Path, int, Files, Report], Annotations]
    splits: tuple[int, ...] = ()
    images: bool = False
    download: Callable[[Path], None] | None = None
    write_images: Callable[[Path, Path], None] | None = None


def _of_pixels(name: str, title: str) -> Source:
    own = PIXEL_SETS[name]
    return Source(
        title,
        own.layout,
        f"--annotations download --videos {name}_png data/{name}",
        lambda _, __, files, report: own.read(files, report),
        images=True,
        download=own.download,
        write_images=own.write_images,
    )


SOURCES = {  # by the name of the sub-command
    "cifar100": _of_pixels("cifar100", "CIFAR-100, a set of images"),
    "svhn": _of_pixels("svhn", "SVHN, images of house numbers"),
    "food101": Source(
        "Food-101, a set of images",
        image_sets.FOOD101,
        "--annotations food-101/meta --videos food-101/images data/food101",
        lambda folder, _, files, report: image_sets.read_food101(folder, report),
        images=True,
        download=image_sets.download_food101,
    ),
    "flowers102": Source(
        "Oxford 102 Flowers, a set of images",
        image_sets.FLOWERS102,
        "--annotations flowers-102 --videos flowers-102/jpg data/flowers102",
        lambda folder, _, files, report: image_sets.read_flowers102(folder, report),
        images=True,
        download=image_sets.download_flowers102,
    ),
    "ssv2": Source(
        "Something-Something V2",
        ssv2.__doc__,
        "--annotations labels --videos 20bn-something-something-v2 data/ssv2",
        lambda folder, _, files, report: ssv2.read(folder, report),
    ),
    "hmdb51": Source(
        "HMDB51",
        hmdb51.__doc__,
        "--annotations testTrainMulti_7030_splits --videos hmdb51_org \\\n"
        "  --split all --dev_fraction 0.1 data/hmdb51",
        lambda folder, split, files, report: hmdb51.read(folder, split, report),
        splits=(1, 2, 3),
    ),
    "ucf101": Source(
        "UCF101",
        ucf101.__doc__,
        "--annotations ucfTrainTestlist --videos UCF-101 data/ucf101",
        lambda folder, split, files, report: ucf101.read(folder, split, report),
        splits=(1, 2, 3),
    ),
    "kinetics": Source(
        "Kinetics-400, -600 or -700",
        kinetics.__doc__,
        "--annotations annotations --videos k400 --allow_partial data/k400",
        lambda folder, _, files, report: kinetics.read(
            folder, report, by_id=kinetics.named_by_id(files.videos)
        ),
    ),
}
