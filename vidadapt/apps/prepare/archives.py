"""Find archives among the videos, give the commands that unpack them, and unpack them.

HMDB51 comes as a rar of rars, UCF101 as a rar, Something-Something V2 as parts
`20bn-something-something-v2-00`, `-01`, ... of one compressed tar file, each perhaps in a zip.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vidadapt.apps.prepare.report import Report
from vidadapt.apps.prepare.unpacking import TOOLS, extract, filled, room_for, tool
from vidadapt.console import track
from vidadapt.video import cause_of

SIGNATURES = {  # kind: place and bytes
    "rar": (0, b"Rar!\x1a\x07"),
    "7z": (0, b"7z\xbc\xaf\x27\x1c"),
    "zip": (0, b"PK\x03\x04"),
    "gzip": (0, b"\x1f\x8b\x08"),
    "tar": (257, b"ustar"),
}
MAX_DEPTH = 5  # levels of archives in archives
STAGE = ".unpacking"  # folder beside the archives, for unfinished files
UNPACKED = ".unpacked"  # ending of the hidden file that marks an unpacked archive
_PART = re.compile(r"20bn-something-something-v2-[0-9][0-9]")
_LATER_VOLUME = re.compile(r".*\.(?:part0*(?:[2-9]|[1-9][0-9]+)\.rar|r[0-9][0-9])", re.IGNORECASE)
_PICTURES = (".jpg", ".jpeg", ".png", ".npy", ".txt", ".json", ".xml", ".wav", ".mp3")


@dataclass(frozen=True)
class Archive:
    """An archive, or the parts that make one up.

    Attributes:
        kind: key of `SIGNATURES`.
        parts: its files in order; usually one.
    """

    kind: str
    parts: tuple[Path, ...]

    @property
    def first(self) -> Path:
        """Its first file, by which it is called."""
        return self.parts[0]

    @property
    def marker(self) -> Path:
        """Hidden file with the `stamp` that it had when it was unpacked."""
        return self.first.with_name(f".{self.first.name}{UNPACKED}")

    def stamp(self) -> str:
        """Return sizes and modification times of its files, a line each."""
        facts = [part.stat() for part in self.parts]
        return "".join(f"{fact.st_size} {fact.st_mtime_ns}\n" for fact in facts)


def find(root: Path, others: Sequence[str]) -> list[Archive]:
    """Find archives among files by their first bytes, without those that `unpack` has unpacked.

    Args:
        root: folder that the paths are relative to.
        others: paths; only files in the root and its folders are read, no pictures or texts.
    """
    near = [p for p in others if p.count("/") < 2 and not p.lower().endswith(_PICTURES)]
    parts: dict[Path, list[Path]] = defaultdict(list)
    archives = []
    for path in (root / p for p in sorted(near)):
        if _PART.fullmatch(path.name):
            parts[path.parent].append(path)
        elif (kind := _kind(path)) and not _LATER_VOLUME.fullmatch(path.name):
            archives.append(Archive(kind, (path,)))
    for found in parts.values():
        if kind := _kind(found[0]):
            archives.append(Archive(kind, tuple(found)))
    marked = [one for one in archives if one.marker.is_file()]
    return [one for one in archives if one not in marked or one.marker.read_text() != one.stamp()]


def command(archive: Archive) -> str:
    """Return the shell command that unpacks an archive beside itself and overwrites nothing."""
    first, folder = archive.first, archive.first.parent
    if archive.kind in ("rar", "7z"):
        return shlex.join(filled(TOOLS[tool(archive.kind) or "unrar"], first, folder))
    if archive.kind == "zip":
        return shlex.join(["unzip", "-n", str(first), "-d", str(folder)])
    tar = shlex.join(["tar", "-xkzf" if archive.kind == "gzip" else "-xkf"])
    if len(archive.parts) == 1:
        return f"{tar} {shlex.join([str(first), '-C', str(folder)])}"
    return f"cat {shlex.join(map(str, archive.parts))} | {tar} - -C {shlex.quote(str(folder))}"


def unpack(
    archives: Sequence[Archive],
    report: Report,
    *,
    limit: int | None = None,
    progress: bool = True,
) -> None:
    """Unpack archives, and the archives in them, beside themselves.

    Files that are there already stay as they are. Unpacked files are moved into place only when
    all archives of a folder were read, so that no half file is ever left under its name. An archive
    that was sound in full is marked by a hidden file, and `find` skips it from then on.

    Args:
        report: gets a note on what was unpacked, and a problem for each archive, or member of one,
            that cannot be.
        limit: bytes that may come out of the archives of one folder, with those in them; None: see
            `unpacking.room_for`.
    """
    by_folder: dict[Path, list[Archive]] = defaultdict(list)
    for archive in archives:
        by_folder[archive.first.parent].append(archive)
    for folder, beside in by_folder.items():
        stage = folder / STAGE
        shutil.rmtree(stage, ignore_errors=True)  # of a call that was interrupted
        try:
            done = _unpack_into(stage, beside, report, limit, progress)
            new, kept = _move(stage / "whole", folder, report)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        for archive in done:
            archive.marker.write_text(archive.stamp())
        line = f"{folder}: {len(done)} archives, {new} new files, {kept} that were there kept"
        report.note("unpacked", line)


def _unpack_into(
    stage: Path, archives: Sequence[Archive], report: Report, limit: int | None, progress: bool
) -> list[Archive]:
    """Unpack into `stage/whole`; archives in archives are unpacked there, too.

    Returns:
        The archives that were unpacked with everything in them; none if an inner one failed.
    """
    whole, fresh = stage / "whole", stage / "fresh"
    room = room_for([part.stat().st_size for one in archives for part in one.parts], limit)
    failed: list[Archive] = []
    waiting = list(archives)
    for depth in range(MAX_DEPTH + 1):
        shown = track(
            waiting, total=len(waiting), label="unpacking", unit="archives", shown=progress
        )
        for archive in shown:
            problems = _missing_parts(archive)
            if depth == MAX_DEPTH:
                problems = [f"more than {depth} archives in each other; unpack the outer by hand"]
            if not problems:
                fresh.mkdir(parents=True)
                try:
                    problems = extract(archive.kind, archive.parts, fresh, room)
                    _move(fresh, whole, report)
                except OSError as error:
                    problems = [cause_of(error)]  # a full disk: the next may be smaller
                shutil.rmtree(fresh)
            failed += [archive] if problems else []
            # One in another is named by the path that it would get.
            name = stage.parent / archive.first.relative_to(whole) if depth else archive.first
            for problem in problems:
                report.problem("archives that cannot be unpacked", f"{name}: {problem}")
            for part in archive.parts if depth else ():  # the outer archive still holds it
                part.unlink()
        inside = [p.relative_to(whole).as_posix() for p in whole.rglob("*") if p.is_file()]
        waiting = find(whole, inside)
    inner_failed = any(archive not in archives for archive in failed)
    return [one for one in archives if one not in failed and not inner_failed]


def _missing_parts(archive: Archive) -> list[str]:
    numbers = [int(part.name[-2:]) for part in archive.parts if _PART.fullmatch(part.name)]
    if numbers == list(range(len(numbers))):
        return []
    return [f"parts are missing, there are {', '.join(f'{n:02d}' for n in numbers)}"]


def _move(stage: Path, folder: Path, report: Report) -> tuple[int, int]:
    """Move regular files into place; return how many, and how many were there already."""
    new = kept = 0
    for path in sorted(stage.rglob("*")):
        target = folder / path.relative_to(stage)
        if path.is_symlink():
            report.note("links in archives, left out", str(path.relative_to(stage)))
        elif path.is_file() and target.exists():
            kept += 1
        elif path.is_file():
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
            except OSError as error:  # a file where a folder must be
                report.problem("files that cannot be put in place", f"{target}: {cause_of(error)}")
            else:
                new += 1
    return new, kept


def _kind(path: Path) -> str | None:
    """Return the kind that a file's first bytes tell; None: it is no archive."""
    try:
        with path.open("rb") as file:
            head = file.read(262)
    except OSError:
        return None
    return next((k for k, (at, sign) in SIGNATURES.items() if head[at:].startswith(sign)), None)
