"""The official data sets that lists are made of: a new one is an entry here, and its preset in
`vidadapt.data.datasets`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vidadapt.apps.prepare import cifar100, hmdb51, kinetics, ssv2, ucf101
from vidadapt.apps.prepare.annotations import Annotations
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
        write_images: of a set of images, writes them from the folder of the official files.
    """

    title: str
    layout: str | None
    example: str
    read: Callable[[Path, int, Files, Report], Annotations]
    splits: tuple[int, ...] = ()
    write_images: Callable[[Path, Path], None] | None = None


SOURCES = {  # by the name of the sub-command
    "cifar100": Source(
        "CIFAR-100, a set of images",
        cifar100.__doc__,
        "--annotations download --videos cifar100_png data/cifar100",
        lambda _, __, files, report: cifar100.read(files, report),
        write_images=cifar100.write_images,
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
