"""What a source says of its videos, before anyone has looked for the files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One annotated video.

    Attributes:
        key: which video: its path below the folder of videos without its ending, or an id that is
            the file's stem, wherever the file lies.
        label: in [0, number of classes).
        group: what it was cut from, e.g. a film: videos of one group never stand on both sides of a
            split that is made here. Empty: a group of its own.
        source: where the annotation says so, as "file:line" or "file, record 12".
    """

    key: str
    label: int
    group: str
    source: str


@dataclass(frozen=True)
class Annotations:
    """A source's videos by split.

    Attributes:
        dataset: key of `vidadapt.data.DATASETS`.
        label_names: K names in label order.
        splits: `train`, `dev`, `val`, `test`, those that the source has, in this order.
        expected: official number of videos of a split; empty where there is none.
    """

    dataset: str
    label_names: tuple[str, ...]
    splits: dict[str, tuple[Entry, ...]]
    expected: dict[str, int]
