"""Find the video or image files below a folder, and those that annotations mean."""

from __future__ import annotations

import functools
import heapq
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidadapt.apps.prepare.annotations import Entry
from vidadapt.apps.prepare.archives import UNPACKED
from vidadapt.apps.prepare.report import Report
from vidadapt.console import did_you_mean
from vidadapt.lists import composed, is_image, is_video, spelled, without_ending

WANTED = {"videos": is_video, "images": is_image}  # by their endings
UNLISTABLE = "names that a list cannot hold; rename the files"


@dataclass(frozen=True)
class Files:
    """Files and folders below a folder; paths are relative to it, with `/`, and sorted.

    Attributes:
        root: the folder.
        videos: files with an ending of videos, or of images where those are looked for.
        others: all other files, without hidden ones.
        folders: all folders, without hidden ones.
    """

    root: Path
    videos: tuple[str, ...]
    others: tuple[str, ...]
    folders: tuple[str, ...]


def find(root: str | Path, report: Report, what: str = "videos") -> Files:
    """Search a folder, also through links to folders, each real folder once.

    Hidden files and folders (`.x`, macOS's `._x`) are skipped and noted. Folders that cannot be
    read and links that lead nowhere are problems.

    Args:
        what: is looked for, key of `WANTED`.

    Raises:
        ValueError: there is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected the folder of {what}")
    videos: list[str] = []
    others: list[str] = []
    folders: list[str] = []
    seen: set[tuple[int, int]] = set()
    waiting = [(False, "")]  # through a link, path: real folders come first
    while waiting:
        through_link, below = heapq.heappop(waiting)
        try:
            identity = _identity(str(root / below))
            if identity in seen:
                report.note("links to folders that were looked through already", below)
                continue
            seen.add(identity)
            folders.append(below)
            with os.scandir(root / below) as scan:
                entries = list(scan)
        except OSError as error:
            report.problem("folders that cannot be read", f"{root / below}: {error.strerror}")
            continue
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            if entry.name.startswith(".") and entry.name.endswith(UNPACKED):
                continue
            elif entry.name.startswith("."):
                report.note("hidden files and folders, passed over", path)
            elif entry.is_symlink() and not Path(entry.path).exists():
                report.problem("links that lead nowhere", path)
            elif entry.is_dir():
                heapq.heappush(waiting, (through_link or entry.is_symlink(), path))
            elif WANTED[what](entry.name):
                videos.append(path)
            else:
                others.append(path)
    endings = Counter(os.path.splitext(path)[1].lower() for path in others)  # noqa: PTH122
    for ending, number in sorted(endings.items()):
        report.note(f"files that are no {what} by their ending", f"{ending or 'none'}: {number:,}")
    return Files(root, tuple(sorted(videos)), tuple(sorted(others)), tuple(sorted(folders)))


def _identity(folder: str) -> tuple[int, int]:
    facts = os.stat(folder)  # noqa: PTH116 (called for every folder)
    return facts.st_dev, facts.st_ino


def match(entries: Sequence[Entry], files: Files, report: Report) -> dict[str, str]:
    """Return the file of each entry's key, for keys that have one.

    A key that is a file's path is that file. Any other is the end of a path without its ending: an
    id finds `<id>.webm` at any depth, `class/name` finds `any/class/name.avi`. Where none of the
    keys' folders exists, all files are taken to be in one folder, and keys are found by their names
    alone, if only one file has the name; that is noted.

    Two files for one key are a problem; the one nearest the root is taken. A key that no file has
    in its spelling finds one whose letters are the same (`names.composed`), if there is only one;
    that is noted, too.
    """
    exact = set(files.videos)
    is_flat = not _existing({_folder(entry.key) for entry in entries}, files.folders)
    tails = functools.cache(functools.partial(_tails, files.videos))

    def candidates(key: str, by_letters: bool = False) -> list[str]:
        for name in (key, without_ending(key)):
            known = tails(name.count("/") + 1, by_letters)
            if found := known.get(composed(name) if by_letters else name):
                return _distinct(files.root, found)
        return []

    matched: dict[str, str] = {}
    by_name = 0
    respelled = []
    for key in dict.fromkeys(entry.key for entry in entries):
        if key in exact:
            matched[key] = key
        elif found := candidates(key):
            matched[key] = found[0]
            if len(found) > 1:
                line = f"{key}: {', '.join(found)}"
                report.problem("two files for one video; the first is taken", line)
        elif found := candidates(key, by_letters=True):
            if len(found) > 1:
                line = f"{spelled(key)}: {', '.join(map(spelled, found))}"
                report.problem("files that differ in Unicode spelling alone; none is taken", line)
            else:
                matched[key] = found[0]
                respelled.append(f"{spelled(key)} is {spelled(found[0])}")
        elif is_flat and (found := candidates(without_ending(key.rpartition("/")[2]))):
            if len(found) > 1:
                line = f"{key}: {', '.join(found)}"
                report.problem("several files of one name; none is taken", line)
            else:
                matched[key] = found[0]
                by_name += 1
    if by_name:
        line = f"{by_name:,} videos, since not one of the annotated folders is there"
        report.note("found by their names alone", line)
    for line in respelled:
        report.note("annotated in another Unicode spelling than the file's", line)
    return matched


def check_match(
    entries: Sequence[Entry],
    matched: dict[str, str],
    files: Files,
    report: Report,
    *,
    unlisted: Collection[str] = (),
) -> None:
    """Report entries without a file, folders that are misspelt, and videos without an entry.

    Args:
        entries: of all splits.
        matched: of `match`.
        unlisted: keys that the source names without a label: their videos are not reported.
    """
    by_letters: dict[str, str] = {}
    for video in files.videos if len(matched) < len(entries) else ():
        by_letters.setdefault(_caseless(video), video)
    for entry in entries:
        if entry.key not in matched:
            line = f"{entry.key} ({entry.source})"
            if other := by_letters.get(_caseless(entry.key)):
                line += f": did you mean {other}?"
            report.lack("annotated videos without a file", line)
    wanted = {_folder(entry.key) for entry in entries} - {""}
    existing = _existing(wanted, files.folders)
    if existing:
        holding = {_folder(video) for video in files.videos}
        depths = {folder.count("/") + 1 for folder in wanted}
        letters = {composed(folder) for folder in wanted}
        unclaimed = {f for f in holding if not _folder_tails(f, depths) & letters} - {""}
        names = sorted({folder.rpartition("/")[2] for folder in unclaimed})
        for folder in sorted(wanted - existing):
            hint = _misspelt(folder.rpartition("/")[2], names)
            if hint:
                report.problem("annotated folders under another name", f"{folder}: {hint}")
            else:
                report.lack("annotated folders that are not there", folder)
        for folder in sorted(unclaimed):
            report.note("folders of videos that no annotation names", folder)
    others = match([Entry(key, -1, "", "") for key in unlisted], files, Report())
    named = {*matched.values(), *others.values()}
    for video in files.videos:
        if video not in named:
            report.note("videos that no annotation names", video)


def sizes(files: Files, paths: Iterable[str], report: Report) -> dict[str, int]:
    """Return the bytes of each file; report files that are empty or not regular, without them."""
    found = {}
    for path in paths:
        try:
            facts = (files.root / path).stat()
        except OSError as error:
            report.problem("files that cannot be looked at", f"{path}: {error.strerror}")
            continue
        if not stat.S_ISREG(facts.st_mode):
            report.problem("files that cannot be looked at", f"{path}: not a regular file")
        elif facts.st_size == 0:
            report.lack("empty files (0 bytes), left out", path)
        else:
            found[path] = facts.st_size
    return found


def _misspelt(name: str, unclaimed: list[str]) -> str:
    """Return a hint at the folder that a missing name may mean; empty: none is similar.

    >>> _misspelt("brush_hair", ["Brush_Hair", "rush"]), _misspelt("walk", ["wlak"])
    ('did you mean Brush_Hair?', 'did you mean wlak?')
    """
    same = [other for other in unclaimed if other.lower() == name.lower()]
    return f"did you mean {same[0]}?" if same else did_you_mean(name, unclaimed)


def _caseless(path: str) -> str:
    """A path without its ending, in small letters of one Unicode spelling."""
    return composed(without_ending(path).casefold())


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _existing(wanted: set[str], folders: Iterable[str]) -> set[str]:
    """Return the wanted folders that exist, at any depth, in any Unicode spelling."""
    depths = {folder.count("/") + 1 for folder in wanted if folder}
    tails = {tail for folder in folders for tail in _folder_tails(folder, depths)}
    return {folder for folder in wanted if composed(folder) in tails} - {""}


def _folder_tails(folder: str, depths: Iterable[int]) -> set[str]:
    parts = composed(folder).split("/")
    return {"/".join(parts[-depth:]) for depth in depths}


def _tails(videos: Sequence[str], depth: int, by_letters: bool) -> dict[str, list[str]]:
    """Return videos by the last `depth` parts of their paths, without endings.

    Those nearest the root come first.

    Args:
        by_letters: those parts are `composed`.
    """
    tails = defaultdict(list)
    for video in sorted(videos, key=lambda video: (video.count("/"), video)):
        tail = "/".join(without_ending(video).split("/")[-depth:])
        tails[composed(tail) if by_letters else tail].append(video)
    return tails


def _distinct(root: Path, paths: list[str]) -> list[str]:
    """Return the paths that are really different files (not links to one)."""
    if len(paths) < 2:
        return paths  # as nearly always: no file is looked at
    first = {_identity(str(root / path)): path for path in reversed(paths)}
    return [path for path in paths if path in first.values()]
