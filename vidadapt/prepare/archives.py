"""Archives that lie where videos are expected: which command unpacks them, and doing it.

HMDB51 comes as a rar of rars, UCF101 as a rar, Something-Something V2 as parts
`20bn-something-something-v2-00`, `-01`, ... of one compressed tar file, each perhaps in a zip.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vidadapt.prepare.joined import Joined
from vidadapt.prepare.report import Report
from vidadapt.progress import track

SIGNATURES = {  # kind: place and bytes
    "rar": (0, b"Rar!\x1a\x07"),
    "7z": (0, b"7z\xbc\xaf\x27\x1c"),
    "zip": (0, b"PK\x03\x04"),
    "gzip": (0, b"\x1f\x8b\x08"),
    "tar": (257, b"ustar"),
}
# What unpacks rar and 7z archives. bsdtar stands last: it does not check what a rar has stored.
TOOLS = {
    "unrar": ("unrar", "x", "-o-", "-idq", "{archive}", "{folder}/"),
    "unar": ("unar", "-quiet", "-force-skip", "-no-directory", "-o", "{folder}", "{archive}"),
    "7zz": ("7zz", "x", "-aos", "-bd", "-y", "-o{folder}", "{archive}"),
    "7z": ("7z", "x", "-aos", "-bd", "-y", "-o{folder}", "{archive}"),
    "bsdtar": ("bsdtar", "-x", "-k", "-f", "{archive}", "-C", "{folder}"),
}
STAGE = ".unpacking"  # folder beside the archives, for what is not yet whole
UNPACKED = ".unpacked"  # ending of the hidden file that says that an archive is done
_PART = re.compile(r"20bn-something-something-v2-[0-9][0-9]")
_LATER_VOLUME = re.compile(r".*\.(?:part0*(?:[2-9]|1[0-9]+)\.rar|r[0-9][0-9])", re.IGNORECASE)
_PICTURES = (".jpg", ".jpeg", ".png", ".npy", ".txt", ".json", ".xml", ".wav", ".mp3")


@dataclass(frozen=True)
class Archive:
    """An archive, or the parts that make one up.

    Attributes:
        kind: key of `SIGNATURES`.
        parts: its files in order; as a rule one.
    """

    kind: str
    parts: tuple[Path, ...]


def find(root: Path, others: Sequence[str]) -> list[Archive]:
    """Archives among files, by their first bytes; those already unpacked by `unpack` left out.

    Args:
        root: folder that the paths are relative to.
        others: only files in the root and in its folders are looked at, pictures and texts not.
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
    return [archive for archive in archives if not _is_unpacked(archive)]


def command(archive: Archive) -> str:
    """The shell command that unpacks an archive beside itself without overwriting anything."""
    first, folder = archive.parts[0], archive.parts[0].parent
    if archive.kind in ("rar", "7z"):
        return shlex.join(_filled(TOOLS[tool(archive.kind) or "unrar"], first, folder))
    if archive.kind == "zip":
        return shlex.join(["unzip", "-n", str(first), "-d", str(folder)])
    tar = shlex.join(["tar", "-xkzf" if archive.kind == "gzip" else "-xkf"])
    if len(archive.parts) == 1:
        return f"{tar} {shlex.join([str(first), '-C', str(folder)])}"
    return f"cat {shlex.join(map(str, archive.parts))} | {tar} - -C {shlex.quote(str(folder))}"


def unpack(archives: Sequence[Archive], report: Report, *, progress: bool = True) -> None:
    """Unpack archives, and the archives in them, beside themselves.

    Files that are there already stay as they are. What is unpacked appears only when an archive
    has been unpacked as a whole, so that no half file is ever left under its name; a hidden file
    then remembers that, and `find` passes the archive over.

    Args:
        report: gets a note on what was unpacked, and a problem for each archive that cannot be.
    """
    by_folder: dict[Path, list[Archive]] = defaultdict(list)
    for archive in archives:
        by_folder[archive.parts[0].parent].append(archive)
    for folder, beside in by_folder.items():
        stage = folder / STAGE
        shutil.rmtree(stage, ignore_errors=True)  # of a call that was interrupted
        try:
            done = _unpack_into(stage, beside, report, progress)
            new, kept = _move(stage / "whole", folder, report)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        for archive in done:
            _mark(archive)
        line = f"{folder}: {len(done)} archives, {new} new files, {kept} that were there kept"
        report.note("unpacked", line)


def _unpack_into(
    stage: Path, archives: Sequence[Archive], report: Report, progress: bool
) -> list[Archive]:
    """Unpack into `stage/whole`; archives that come out of archives take their turn there.

    Returns:
        those of the archives that are unpacked with all that is in them.
    """
    whole = stage / "whole"
    failed: list[Archive] = []
    waiting = list(archives)
    while waiting:
        label = "unpacking"
        for archive in track(
            waiting, total=len(waiting), label=label, unit="archives", shown=progress
        ):
            fresh = stage / "fresh"
            fresh.mkdir(parents=True)
            error = _extract(archive, fresh)
            if not error and not any(path.is_file() for path in fresh.rglob("*")):
                error = "no file came out of it; is it whole?"
            if error:
                line = f"{archive.parts[0]}: {error}"
                report.problem("archives that cannot be unpacked", line)
                failed.append(archive)
            else:
                _move(fresh, whole, report)
            shutil.rmtree(fresh)
            if archive not in archives:  # its own archive holds it still
                for part in archive.parts:
                    part.unlink()
        inside = [p.relative_to(whole).as_posix() for p in whole.rglob("*") if p.is_file()]
        waiting = find(whole, inside)
    if any(archive not in archives for archive in failed):
        return []
    return [archive for archive in archives if archive not in failed]


def _extract(archive: Archive, folder: Path) -> str:
    """Unpack one archive; what went wrong, or an empty text."""
    numbers = [int(part.name[-2:]) for part in archive.parts if _PART.fullmatch(part.name)]
    if numbers != list(range(len(numbers))):
        return f"parts are missing, there are {', '.join(f'{n:02d}' for n in numbers)}"
    try:
        if archive.kind == "zip":
            with zipfile.ZipFile(archive.parts[0]) as packed:
                packed.extractall(folder)
        elif archive.kind in ("gzip", "tar"):
            with (
                io.BufferedReader(Joined(archive.parts)) as joined,
                tarfile.open(fileobj=joined, mode="r|*") as packed,
            ):
                packed.extractall(folder, filter="data")
        else:
            return _extract_by_program(archive.parts[0], archive.kind, folder)
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        return str(error) or type(error).__name__
    return ""


def tool(kind: str) -> str | None:
    """The first of `TOOLS` that is installed and reads archives of a kind, "rar" or "7z"."""
    for name in TOOLS:
        if shutil.which(name) is None or (name == "unrar" and kind != "rar"):
            continue
        if name in ("7z", "7zz"):  # many distributions build it without rar
            told = subprocess.run([name, "i"], capture_output=True, text=True, check=False).stdout
            if not re.search(rf"\b{kind}\b", told, re.IGNORECASE):
                continue
        return name
    return None


def _extract_by_program(archive: Path, kind: str, folder: Path) -> str:
    name = tool(kind)
    if name is None:
        return f"install one of {', '.join(TOOLS)} and run this again"
    done = subprocess.run(
        _filled(TOOLS[name], archive, folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
    return f"{name}: {said}" if done.returncode else ""


def _filled(words: Sequence[str], archive: Path, folder: Path) -> list[str]:
    # An absolute path is never taken for an option.
    return [word.format(archive=archive.absolute(), folder=folder.absolute()) for word in words]


def _move(stage: Path, folder: Path, report: Report) -> tuple[int, int]:
    """Move regular files to where they belong; how many, and how many were there already."""
    new = kept = 0
    for path in sorted(stage.rglob("*")) if stage.is_dir() else []:
        target = folder / path.relative_to(stage)
        if path.is_symlink():
            report.note("links in archives, left out", str(path.relative_to(stage)))
        elif path.is_file() and target.exists():
            kept += 1
        elif path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
            new += 1
    return new, kept


def _kind(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            head = file.read(262)
    except OSError:
        return None
    return next((k for k, (at, sign) in SIGNATURES.items() if head[at:].startswith(sign)), None)


def _marker(archive: Archive) -> Path:
    first = archive.parts[0]
    return first.with_name(f".{first.name}{UNPACKED}")


def _stamp(archive: Archive) -> str:
    facts = [os.stat(part) for part in archive.parts]  # noqa: PTH116
    return "".join(f"{fact.st_size} {fact.st_mtime_ns}\n" for fact in facts)


def _mark(archive: Archive) -> None:
    _marker(archive).write_text(_stamp(archive))


def _is_unpacked(archive: Archive) -> bool:
    try:
        return _marker(archive).read_text() == _stamp(archive)
    except OSError:
        return False
