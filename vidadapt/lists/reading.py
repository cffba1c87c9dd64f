"""`path label` lists of videos, files of label names, and the hash that identifies a list.

One video a line: the path relative to the data root, then the label, which is the last field and is
separated by a space, a tab or a comma. Everything before that separator is the path, unchanged
(spaces, `#`, `[`, quotes and commas included: there is no quoting). Empty lines are skipped, and so
is a header, which is a first line whose last field is one of `HEADER_FIELDS`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import overload

import numpy as np

from vidadapt.files import replaced
from vidadapt.video import ALLOW_OUTSIDE, control_character, leads_outside

HEADER_FIELDS = ("label", "labels", "label_id", "class", "class_id", "target")
LABELS_FILE = "labels.txt"  # class names beside a list
AT_ONCE = 4096  # samples that are hashed together
MOST_LISTED = 10  # offenders listed in one error
_LINE = re.compile(r"(?P<path>.+?)(?:[ \t]*,[ \t]*|[ \t]+)(?P<label>[^ \t,]+)")
_INTEGER = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a list: `path` relative to the data root, `label` in [0, number of classes)."""

    path: str
    label: int


class Samples(Sequence[Sample]):
    """The lines of a list, in little memory: each becomes a `Sample` only when it is looked up.

    Attributes:
        labels: (N,) int64.
        lines: (N,) int64, line numbers in the list.
    """

    def __init__(self, samples: Iterable[tuple[str, int, int]] = ()) -> None:
        """Keep path, label and line of each sample."""
        texts, ends, labels, lines = bytearray(), array("Q"), array("q"), array("q")
        for path, label, line in samples:
            texts += path.encode("utf-8", "surrogateescape")
            ends.append(len(texts))
            labels.append(label)
            lines.append(line)
        self._texts, self._ends = bytes(texts), ends
        self.labels, self.lines = np.array(labels, np.int64), np.array(lines, np.int64)

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> Samples:
        """Return `Samples` as they are; make others into a list, with lines from 1."""
        if isinstance(samples, Samples):
            return samples
        return cls((one.path, one.label, line) for line, one in enumerate(samples, start=1))

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
        return map(Sample, self.paths(), self.labels.tolist())

    @overload
    def __getitem__(self, place: int) -> Sample: ...
    @overload
    def __getitem__(self, place: slice) -> list[Sample]: ...
    def __getitem__(self, place: int | slice) -> Sample | list[Sample]:
        if isinstance(place, slice):
            return [self[one] for one in range(len(self))[place]]
        place = range(len(self))[place]
        return Sample(self.path(place), int(self.labels[place]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


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
    """
    match = _LINE.fullmatch(line.strip())
    return (match["path"], match["label"]) if match and match["path"].strip(" \t,") else None


def read_list(
    list_path: str | Path, root: str | Path, num_classes: int, allow_outside_root: bool = False
) -> Samples:
    """Read a `path label` list in its order, without looking at the listed files.

    Args:
        list_path: the list, UTF-8 text.
        root: folder that the paths are relative to and must be inside (absolute paths stay as they
            are).
        num_classes: labels must be in [0, num_classes).
        allow_outside_root: the list is trusted: its paths may lead out of the root.

    Raises:
        ListError: the list is missing or empty, or lines are malformed, out of range, duplicates of
            an earlier line, lead out of the root (see `bounds.leads_outside`) or hold characters
            that a terminal would obey: one error with the first ones as file:line.
    """
    problems: list[tuple[int, str]] = []
    refuse_folder(list_path)
    try:
        with Path(list_path).open(encoding="utf-8-sig") as file:
            samples = Samples(_lines(file, str(root), num_classes, allow_outside_root, problems))
    except (OSError, UnicodeDecodeError) as error:
        raise ListError(f"cannot read {list_path}: {error}") from error
    problems += _repeated(samples)
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
    problems: list[tuple[int, str]],
) -> Iterator[tuple[str, int, int]]:
    """Path, label and number of each good line; the others are added to `problems`."""
    header_possible = True
    for number, line in enumerate(file, start=1):
        path, _, label = line.strip().rpartition(" ")
        plain = label.isdecimal() and line.isascii() and path[-1:] not in ("", " ", "\t", ",")
        plain = plain and ".." not in path and path[0] != "/" and path.isprintable()
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
        sample = _sample_of(fields, num_classes)
        if isinstance(sample, str):
            problems.append((number, f"{sample} (line: {_start(line)!r})"))
        elif not allow_outside_root and leads_outside(sample[0], root):
            outside = f"{sample[0]!r} leads out of the root {root}; {ALLOW_OUTSIDE}"
            problems.append((number, outside))
        else:
            yield *sample, number


def shared_paths(one: Samples, other: Samples) -> list[str]:
    """Paths of `other` that name a file which is also in `one`."""
    known = {_key(path) for path in one.paths()}
    maybe = [path for path in other.paths() if _key(path) in known]
    if not maybe:
        return []
    wanted = {os.path.normpath(path) for path in maybe}
    there = wanted.intersection(map(os.path.normpath, one.paths()))
    return [path for path in maybe if os.path.normpath(path) in there]


def _repeated(samples: Samples) -> Iterator[tuple[int, str]]:
    """Line and problem of each sample that names the file of an earlier one."""
    keys = np.fromiter((_key(path) for path in samples.paths()), np.int64, len(samples))
    ordered = np.sort(keys)
    often = ordered[1:][ordered[1:] == ordered[:-1]]
    first: dict[str, int] = {}
    for place in np.flatnonzero(np.isin(keys, often)).tolist() if len(often) else ():
        line, path = int(samples.lines[place]), samples.path(place)
        earlier = first.setdefault(os.path.normpath(path), line)
        if earlier != line:
            yield line, f"{path!r} is already on line {earlier}"


def _key(path: str) -> int:
    return hash(os.path.normpath(path))


def write_list(list_path: str | Path, samples: Iterable[Sample]) -> None:
    """Write `path label` lines that `read_list` reads back unchanged; replace the file atomically.

    Raises:
        ListError: a path that would be refused or read back as something else (control characters,
            blanks at its ends, a comma at its end).
    """
    lines = []
    for sample in samples:
        line = f"{sample.path} {sample.label}"
        read_back = parse_line(line) == (sample.path, str(sample.label))
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
    beside = Path(list_path).with_name(LABELS_FILE)
    files = [Path(given)] if given is not None else []
    for file in [*files, *([beside] if beside.is_file() else [])]:
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
    JSON `{"label_names": [...], "samples": [["path", label], ...]}` is hashed, in pieces.
    """
    names = json.dumps(None if label_names is None else list(label_names))
    digest = hashlib.sha256(f'{{"label_names": {names}, "samples": ['.encode())
    left, between = iter(samples), ""
    while part := list(itertools.islice(left, AT_ONCE)):
        lines = [f"[{encode_basestring_ascii(one.path)}, {one.label}]" for one in part]
        digest.update((between + ", ".join(lines)).encode())
        between = ", "
    digest.update(b"]}")
    return digest.hexdigest()


def _sample_of(fields: tuple[str, str] | None, num_classes: int) -> tuple[str, int] | str:
    """Path and label of a parsed line, or what is wrong with it."""
    if fields is None or not _INTEGER.fullmatch(fields[1]):
        return "expected 'path label' with an integer label as the last field"
    path, label = fields[0], int(fields[1])
    if not 0 <= label < num_classes:
        return f"label {label} is outside 0..{num_classes - 1} ({num_classes} classes)"
    if not (path.isascii() and path.isprintable()) and (character := control_character(path)):
        return f"the path holds the control character {character}; rename the file"
    return path, label


def _start(line: str) -> str:
    """The start of a line, as an error shows it."""
    text = line.strip()
    return text if len(text) <= 300 else text[:300] + "..."


def _read_text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
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
