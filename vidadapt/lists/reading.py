"""`path label` lists of videos, files of label names, and the hash that identifies a list.

One video a line: the path relative to the data root, then the label, which is the last field and is
separated by a space, a tab or a comma. Everything before that separator is the path, unchanged
(spaces, `#`, `[`, quotes and commas included: there is no quoting). Empty lines are skipped, and so
is a header, which is a first line whose last field is one of `HEADER_FIELDS`. A path may name a
segment of a film, `film.mp4#t=12.4,15.8`, see `video.segments`.

In a multi-label list the last field has all labels of a video, `path 3,17,42`, or is `-` where it
has none; a space or a tab is before it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import overload

import numpy as np

from vidadapt.files import (
    beside,
    is_there,
    is_url,
    opened_text,
    read_text,
    refuse_credentials,
    replaced,
    without_credentials,
)
from vidadapt.video import (
    ALLOW_OUTSIDE,
    control_character,
    film_and_span,
    leads_outside,
    same_name,
)

HEADER_FIELDS = ("label", "labels", "label_id", "class", "class_id", "target")
LABELS_FILE = "labels.txt"  # class names beside a list
MANY = sys.maxsize  # classes, where labels do not matter
AT_ONCE = 4096  # samples that are hashed together
MOST_LISTED = 10  # offenders listed in one error
_LINE = re.compile(r"(?P<path>.+?)(?:[ \t]*,[ \t]*|[ \t]+)(?P<label>[^ \t,]+)")
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_LABELS = re.compile(r"(?P<path>.+?)[ \t]+(?P<labels>[0-9]{1,18}(,[0-9]{1,18})*|-)")
NO_LABEL = "-"

Label = int | tuple[int, ...]  # a tuple in a multi-label list: all labels of a video, ascending


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a list: `path` relative to the data root, `label` in [0, number of classes)."""

    path: str
    label: Label


def label_at(labels: np.ndarray, place: int) -> Label:
    """Return the label in a row of labels (N,), or all labels in one of (N, K) bool."""
    if labels.ndim == 1:
        return int(labels[place])
    return tuple(np.flatnonzero(labels[place]).tolist())


def label_text(label: Label) -> str:
    """Return a label as lists have it.

    >>> label_text(3), label_text((3, 17)), label_text(())
    ('3', '3,17', '-')
    """
    if isinstance(label, int):
        return str(label)
    return ",".join(map(str, label)) or NO_LABEL


def label_named(label: Label, names: Sequence[str]) -> str:
    """Return the name of a label, or all names.

    >>> label_named(1, "ab"), label_named((0, 1), "ab"), label_named((), "ab")
    ('b', 'a, b', 'no label')
    """
    if isinstance(label, int):
        return names[label]
    return ", ".join(names[each] for each in label) or "no label"


class Samples(Sequence[Sample]):
    """The lines of a list, in little memory: each becomes a `Sample` only when it is looked up.

    Attributes:
        labels: (N,) int64; of a multi-label list (N, K) bool.
        lines: (N,) int64, line numbers in the list.
    """

    def __init__(
        self, samples: Iterable[tuple[str, Label, int]] = (), num_classes: int | None = None
    ) -> None:
        """Keep path, label and line of each sample.

        Args:
            num_classes: K of a multi-label list, `MANY`: as its labels need; None: each sample has
                one label.
        """
        texts, ends, labels, lines = bytearray(), array("Q"), array("q"), array("q")
        rows = array("q")  # of each label in `labels`, where samples have several
        for path, label, line in samples:
            texts += path.encode("utf-8", "surrogateescape")
            ends.append(len(texts))
            if isinstance(label, int):
                labels.append(label)
            else:
                labels.extend(label)
                rows.extend([len(lines)] * len(label))
            lines.append(line)
        self._texts, self._ends = bytes(texts), ends
        self.labels, self.lines = np.array(labels, np.int64), np.array(lines, np.int64)
        if num_classes is not None:
            width = 1 + int(self.labels.max(initial=-1)) if num_classes == MANY else num_classes
            several = np.zeros((len(lines), width), bool)
            several[np.array(rows, np.int64), self.labels] = True
            self.labels = several

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> Samples:
        """Return `Samples` as they are; make others into a list, with lines from 1."""
        if isinstance(samples, Samples):
            return samples
        listed = list(samples)
        labels = labels_of(listed)
        return cls(
            ((one.path, one.label, line) for line, one in enumerate(listed, start=1)),
            labels.shape[1] if labels.ndim == 2 else None,
        )

    @property
    def may_name_segments(self) -> bool:
        """Whether a path holds a `#`, as those of segments do."""
        return b"#" in self._texts

    def path(self, place: int) -> str:
        """List path at a place from 0 to N - 1."""
        start = self._ends[place - 1] if place else 0
        return self._texts[start : self._ends[place]].decode("utf-8", "surrogateescape")

    def paths(self) -> Iterator[str]:
        """List paths, in their order."""
        begin = 0
        for end in self._ends:
            yield self._texts[begin:end].decode("utf-8", "surrogateescape")
            begin = end

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[Sample]:
        if self.labels.ndim == 1:
            return map(Sample, self.paths(), self.labels.tolist())
        every = (label_at(self.labels, place) for place in range(len(self)))
        return map(Sample, self.paths(), every)

    @overload
    def __getitem__(self, place: int) -> Sample: ...
    @overload
    def __getitem__(self, place: slice) -> list[Sample]: ...
    def __getitem__(self, place: int | slice) -> Sample | list[Sample]:
        if isinstance(place, slice):
            return [self[one] for one in range(len(self))[place]]
        place = range(len(self))[place]
        return Sample(self.path(place), label_at(self.labels, place))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def labels_of(samples: Sequence[Sample]) -> np.ndarray:
    """Return labels (N,) int64; of samples with several (N, K) bool, with K up to the largest."""
    found = [sample.label for sample in samples]
    if all(isinstance(label, int) for label in found):
        return np.array(found, np.int64)
    sets = [(label,) if isinstance(label, int) else label for label in found]
    several = np.zeros((len(sets), 1 + max(max(each, default=-1) for each in sets)), bool)
    for row, each in zip(several, sets, strict=True):
        row[list(each)] = True
    return several


class ListError(ValueError):
    """A list or a file of label names that cannot be used; the message names file:line."""


def parse_line(line: str) -> tuple[str, str] | None:
    """The path and the last field of a line, or None if it does not have both.

    >>> parse_line("a b #1, [x].mp4 12")
    ('a b #1, [x].mp4', '12')
    >>> parse_line("a b.mp4,12"), parse_line("a.mp4\\t12"), parse_line("a.mp4 , 12")
    (('a b.mp4', '12'), ('a.mp4', '12'), ('a.mp4', '12'))
    >>> parse_line("a.mp4") is None, parse_line(" , 0") is None
    (True, True)
    >>> parse_line("a.mp4#t=1,2 12"), parse_line("a.mp4#t=1,2") is None  # a segment, and no label
    (('a.mp4#t=1,2', '12'), True)
    """
    if "#" in line and film_and_span(line.strip())[1] is not None:
        return None
    match = _LINE.fullmatch(line.strip())
    return (match["path"], match["label"]) if match and match["path"].strip(" \t,") else None


def parse_labels(line: str) -> tuple[str, tuple[int, ...]] | None:
    """The path and the labels, in ascending order, of a line of a multi-label list; None: neither.

    >>> parse_labels("a b.mp4 17,3"), parse_labels("a.mp4 -"), parse_labels("a.mp4")
    (('a b.mp4', (3, 17)), ('a.mp4', ()), None)
    """
    match = _LABELS.fullmatch(line.strip())
    if match is None:
        return None
    labels = [] if match["labels"] == NO_LABEL else match["labels"].split(",")
    return match["path"], tuple(sorted(map(int, labels)))


def read_list(
    list_path: str | Path,
    root: str | Path,
    num_classes: int,
    allow_outside_root: bool = False,
    *,
    multi_label: bool = False,
) -> Samples:
    """Read a `path label` list in its order, without looking at the listed files.

    Args:
        list_path: the list, UTF-8 text.
        root: folder that the paths are relative to and must be inside (absolute paths stay as they
            are).
        num_classes: labels must be in [0, num_classes).
        allow_outside_root: the list is trusted: its paths may lead out of the root.
        multi_label: lines are `path 3,17,42`.

    Raises:
        ListError: the list is missing or empty, or lines are malformed, out of range, duplicates of
            an earlier line, lead out of the root (see `bounds.leads_outside`) or hold characters
            that a terminal would obey: one error with the first ones as file:line.
    """
    problems: list[tuple[int, str]] = []
    refuse_folder(list_path)
    try:
        with opened_text(list_path) as file:
            read = _lines(file, str(root), num_classes, allow_outside_root, multi_label, problems)
            samples = Samples(read, num_classes if multi_label else None)
    except (OSError, UnicodeDecodeError) as error:
        raise ListError(f"cannot read {list_path}: {error}") from error
    problems += _repeated(samples, root)
    if problems:
        lines = [f"{list_path}:{number}: {problem}" for number, problem in sorted(problems)]
        raise ListError(listing(f"{list_path} has {len(lines)} bad line(s)", lines))
    if not samples:
        raise ListError(f"{list_path} lists no video; expected lines of the form 'path label'")
    return samples


def _lines(
    file: Iterable[str],
    root: str,
    num_classes: int,
    allow_outside_root: bool,
    multi_label: bool,
    problems: list[tuple[int, str]],
) -> Iterator[tuple[str, Label, int]]:
    """Path, label and number of each good line; the others are added to `problems`."""
    header_possible = True
    for number, line in enumerate(file, start=1):
        path, _, label = line.strip().rpartition(" ")
        plain = (
            not multi_label
            and label.isdecimal()
            and line.isascii()
            and path[-1:] not in ("", " ", "\t", ",")
        )
        plain = plain and ".." not in path and path[0] != "/" and path.isprintable()
        plain = plain and "://" not in path and "#" not in path
        if plain and len(label) < 18 and int(label) < num_classes:
            header_possible = False
            yield path, int(label), number  # fast path of nearly every line
            continue
        if line.isspace():
            continue
        fields = parse_line(line)
        is_header = header_possible and fields is not None and fields[1].lower() in HEADER_FIELDS
        header_possible = False
        if is_header:
            continue
        if multi_label:
            sample = _sample_of_several(line, num_classes)
        else:
            sample = _sample_of(fields, num_classes)
        if isinstance(sample, str):
            problems.append((number, f"{sample} (line: {_start(line)!r})"))
        elif not allow_outside_root and leads_outside(sample[0], root):
            outside = f"{sample[0]!r} leads out of the root {root}; {ALLOW_OUTSIDE}"
            problems.append((number, outside))
        else:
            yield *sample, number


def _repeated(samples: Samples, root: str | Path) -> Iterator[tuple[int, str]]:
    """Line and problem of each sample that names the file, or the segment, of an earlier one."""
    names = (same_name(path, root) for path in samples.paths())
    keys = np.fromiter(map(hash, names), np.int64, len(samples))
    ordered = np.sort(keys)
    often = ordered[1:][ordered[1:] == ordered[:-1]]
    first: dict[str, int] = {}
    for place in np.flatnonzero(np.isin(keys, often)).tolist() if len(often) else ():
        line, path = int(samples.lines[place]), samples.path(place)
        earlier = first.setdefault(same_name(path, root), line)
        if earlier != line:
            yield line, f"{path!r} is already on line {earlier}"


def write_list(list_path: str | Path, samples: Iterable[Sample]) -> None:
    """Write `path label` lines that `read_list` reads back unchanged; replace the file atomically.

    Raises:
        ListError: a path that would be refused or read back as something else (control characters,
            blanks at its ends, a comma at its end).
    """
    lines = []
    for sample in samples:
        text = label_text(sample.label)
        line = f"{sample.path} {text}"
        if isinstance(sample.label, int):
            read_back = parse_line(line) == (sample.path, text)
        else:
            read_back = parse_labels(line) == (sample.path, tuple(sorted(sample.label)))
        if control_character(sample.path) or not read_back:
            raise ListError(f"{list_path}: the path {sample.path!r} cannot be written in a list")
        lines.append(line + "\n")
    with replaced(Path(list_path)) as partial:
        partial.write_text("".join(lines), encoding="utf-8", newline="\n")


def read_label_names(path: str | Path) -> list[str]:
    """Class names, one a line; line i (from 0) names label i.

    Raises:
        ListError: the file is missing or empty, has an empty line between names (labels would
            shift), names a class twice, or with characters that a terminal would obey.
    """
    names = [line.strip() for line in _read_text(path).rstrip().split("\n")]
    if names == [""]:
        raise ListError(f"{path} holds no label names; expected one name a line, in label order")
    problems = []
    first_line_of: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if not name:
            problems.append(f"{path}:{number}: empty line between label names")
        elif character := control_character(name):
            problems.append(f"{path}:{number}: the name holds the control character {character}")
        elif name in first_line_of:
            problems.append(f"{path}:{number}: {name!r} is already on line {first_line_of[name]}")
        first_line_of.setdefault(name, number)
    if problems:
        raise ListError(listing(f"{path} has {len(problems)} bad line(s)", problems))
    return names


def check_label_names(
    list_path: str | Path, label_names: Sequence[str] | None, given: str | Path | None = None
) -> None:
    """Check that a list's labels mean the classes that a model knows.

    Args:
        list_path: the file `LABELS_FILE` beside it, if there is one, names its classes.
        label_names: the model's; None: it knows only numbers.
        given: another file that says what the list's labels mean.

    Raises:
        ListError: they differ; lists the differences.
    """
    names = beside(list_path, LABELS_FILE)
    files = [given] if given is not None else []
    for file in [*files, *([names] if is_there(names) else [])]:
        theirs = read_label_names(file)
        if label_names is None or theirs == list(label_names):
            continue
        pairs = enumerate(zip_longest(theirs, label_names))
        found = [f"{i}: {a!r} in the list, {b!r} in the model" for i, (a, b) in pairs if a != b]
        raise ListError(
            listing(
                f"{list_path}: its labels mean other classes than the model's: {len(found)} of the "
                f"names in {file} differ (if that file is not this list's, move it away)",
                found,
            )
        )


def manifest_hash(samples: Iterable[Sample], label_names: Sequence[str] | None) -> str:
    """SHA-256 (64 hex digits) over paths, labels, their order and the label names.

    It identifies what was trained or evaluated on, wherever the list file and the root are. The
    JSON `{"label_names": [...], "samples": [["path", label], ...]}` is hashed, in pieces; several
    labels are `[3, 17]`.
    """
    names = json.dumps(None if label_names is None else list(label_names))
    digest = hashlib.sha256(f'{{"label_names": {names}, "samples": ['.encode())
    left, between = iter(samples), ""
    while part := list(itertools.islice(left, AT_ONCE)):
        lines = [f"[{encode_basestring_ascii(one.path)}, {_json(one.label)}]" for one in part]
        digest.update((between + ", ".join(lines)).encode())
        between = ", "
    digest.update(b"]}")
    return digest.hexdigest()


def _json(label: Label) -> Label | list[int]:
    return label if isinstance(label, int) else list(label)


def _sample_of(fields: tuple[str, str] | None, num_classes: int) -> tuple[str, Label] | str:
    """Path and label of a parsed line, or what is wrong with it."""
    if fields is None or not _INTEGER.fullmatch(fields[1]):
        return "expected 'path label' with an integer label as the last field"
    path, label = fields[0], int(fields[1])
    return _fault(path, [label], num_classes) or (path, label)


def _sample_of_several(line: str, num_classes: int) -> tuple[str, Label] | str:
    """Path and labels of a line, or what is wrong with it."""
    found = parse_labels(line)
    if found is None:
        return f"expected 'path 3,17' with all labels of the video, or 'path {NO_LABEL}'"
    path, labels = found
    if len(set(labels)) < len(labels):
        return "a label comes twice"
    return _fault(path, labels, num_classes) or found


def _fault(path: str, labels: Sequence[int], num_classes: int) -> str:
    """What is wrong with a line's path or labels; empty: nothing."""
    for label in labels:
        if not 0 <= label < num_classes:
            return f"label {label} is outside 0..{num_classes - 1} ({num_classes} classes)"
    if not (path.isascii() and path.isprintable()) and (character := control_character(path)):
        return f"the path holds the control character {character}; rename the file"
    if "#" in path and (span := film_and_span(path)[1]) is not None and span.is_empty:
        return "the segment ends where it begins, or before"
    if is_url(path):
        try:
            refuse_credentials(path)
        except ValueError as error:
            return str(error)
    return ""


def _start(line: str) -> str:
    """The start of a line, as an error shows it."""
    text = without_credentials(line.strip()) if "://" in line else line.strip()
    return text if len(text) <= 300 else text[:300] + "..."


def _read_text(path: str | Path) -> str:
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ListError(f"cannot read {path}: {error}") from error


def refuse_folder(path: str | Path) -> None:
    """Raise ListError if a folder is given in place of a list."""
    folder = Path(path)
    if not folder.is_dir():
        return
    lists = [name for name in ("train.txt", "dev.txt", "test.txt") if (folder / name).is_file()]
    if lists:
        raise ListError(f"{path} is a folder; give one of its lists: {folder / lists[0]}")
    raise ListError(
        f"{path} is a folder; expected a list, a file of lines 'path label'. "
        "`vidadapt prepare folder VIDEOS OUT` makes lists of a folder of videos"
    )


def listing(title: str, lines: Sequence[str]) -> str:
    """A title with the first `MOST_LISTED` lines, and how many more there are."""
    rest = [f"... and {len(lines) - MOST_LISTED} more"] if len(lines) > MOST_LISTED else []
    return "\n  ".join([title + ":", *lines[:MOST_LISTED], *rest])
