"""Find videos that are the same under two names, and splits that share a video."""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from vidadapt.apps.prepare.report import Report
from vidadapt.console import track
from vidadapt.lists import Label, Sample, Samples, label_named, shared_paths
from vidadapt.video import film_of

PROBE = 4096  # bytes from the middle of a file, compared before whole files


def identical(
    root: Path, sizes: Mapping[str, int], report: Report, *, threads: int, progress: bool
) -> list[tuple[str, ...]]:
    """Return sets of files with the same bytes, each in the order of `sizes`.

    Only files of equal size are read, first 4 KiB from their middle; only those that agree there
    are read whole (SHA-256). A file that cannot be read is a problem and equals no other.

    Args:
        root: folder that the paths are relative to.
        sizes: bytes by path.
        threads: files read at once.
        progress: show it on stderr.
    """
    sets = _divide([list(sizes)], [str(size) for size in sizes.values()])
    for label, whole in (("comparing videos", False), ("hashing videos of equal size", True)):
        paths = [path for found in sets for path in found]
        if not paths:
            break
        with ThreadPoolExecutor(threads) as pool:
            results = pool.map(partial(_digest, root, whole), paths)
            shown = track(results, total=len(paths), label=label, unit="files", shown=progress)
            digests = list(shown)
        for path, (_, error) in zip(paths, digests, strict=True):
            if error:
                report.problem("files that cannot be read", f"{path}: {error}")
        sets = _divide(sets, [found for found, _ in digests])
    return [tuple(found) for found in sets]


def check_overlap(
    splits: Mapping[str, Sequence[Sample]],
    same: Sequence[Sequence[str]],
    label_names: Sequence[str],
    report: Report,
    *,
    official: bool = True,
) -> None:
    """Report every two splits that share a video, and the same video twice in one split.

    Videos with the same content under several labels get a title of their own.

    Args:
        splits: samples by split's name.
        same: sets of paths with the same content.
        label_names: of the labels.
        official: the lists are what they are; of other lists, the same video under several labels
            is a problem, for one of the labels is wrong.
    """
    places: dict[str, list[tuple[str, Label]]] = defaultdict(list)
    for split, samples in splits.items():
        for sample in samples:
            places[sample.path].append((split, sample.label))
    shared = [(path,) for path, found in places.items() if len(found) > 1]
    for paths in [*shared, *same]:
        found = [(path, *place) for path in paths for place in places[path]]
        names = list(dict.fromkeys(split for _, split, _ in found))
        line = ", ".join(f"{split}: {path}" for path, split, _ in found)
        labels = sorted({label_named(label, label_names) for _, _, label in found})
        differing = ", under different labels" if len(labels) > 1 else ""
        if differing:
            line += f" ({' / '.join(labels)})"
        if len(names) > 1:
            report.problem(f"the same video in {' and '.join(names)}{differing}", line)
        elif len(found) > 1:
            tell = report.problem if differing and not official else report.note
            tell(f"the same video twice in {names[0]}{differing}", line)


def of_segments(same: Iterable[tuple[str, ...]], paths: Iterable[str]) -> list[tuple[str, ...]]:
    """Return sets of files with the same content as sets of the paths of lists.

    Of equal films, the segments of one name are the same.

    >>> of_segments([("a", "b")], ["a#t=1", "b#t=1", "b#t=2", "b"])
    [('a#t=1', 'b#t=1')]
    """
    named: dict[str, dict[str, str]] = defaultdict(dict)  # film: fragment: path
    for path in paths:
        film = film_of(path)
        named[film][path[len(film) :]] = path
    found = []
    for films in same:
        by_fragment: dict[str, list[str]] = defaultdict(list)
        for film in films:
            for fragment, path in named[film].items():
                by_fragment[fragment].append(path)
        found += [tuple(paths) for paths in by_fragment.values() if len(paths) > 1]
    return found


def check_segments(
    splits: Mapping[str, Sequence[Sample]], root: str | Path, report: Report
) -> None:
    """Report every two splits whose segments overlap, or come from the same films.

    A whole film overlaps its segments; two whole ones are those of `check_overlap`.
    """
    lists = {name: Samples.of(samples) for name, samples in splits.items() if samples}
    for (first, one), (second, other) in itertools.combinations(lists.items(), 2):
        if not (one.may_name_segments or other.may_name_segments):
            continue
        there = set(one.paths())
        for path in shared_paths(one, other, root):
            if film_of(path) != path or path not in there:
                title = f"segments of {second} that overlap those of {first}; training refuses them"
                report.problem(title, path)
        films = [{film_of(path) for path in samples.paths()} for samples in (one, other)]
        for film in sorted(films[0] & films[1]):
            report.note(f"films with segments in {first} and {second}", film)


def _divide(sets: Sequence[Sequence[str]], digests: Sequence[str]) -> list[list[str]]:
    """Divide the sets by digest and leave out sets of one; an empty digest equals no other.

    >>> _divide([["a", "b", "c"], ["d", "e"]], ["1", "2", "1", "", ""])
    [['a', 'c']]
    """
    divided: dict[tuple[int, str], list[str]] = defaultdict(list)
    remaining = iter(digests)
    for number, paths in enumerate(sets):
        for path in paths:
            digest = next(remaining)
            if digest:
                divided[number, digest].append(path)
    return [paths for paths in divided.values() if len(paths) > 1]


def _digest(root: Path, whole: bool, path: str) -> tuple[str, str]:
    """Return the digest of a file or of its middle, and an error; one of them is empty."""
    file = root / path
    try:
        with file.open("rb") as opened:
            if whole:
                return hashlib.file_digest(opened, "sha256").hexdigest(), ""
            opened.seek(max(0, (file.stat().st_size - PROBE) // 2))
            return hashlib.sha256(opened.read(PROBE)).hexdigest(), ""
    except OSError as error:
        return "", error.strerror or str(error)
