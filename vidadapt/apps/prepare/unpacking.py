"""Unpack one untrusted archive within bounds, whatever its bytes are."""

from __future__ import annotations

import contextlib
import gzip
import math
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidadapt.files import NO_ROOM
from vidadapt.video import StrictInfo, cause_of

# Programs that unpack rar and 7z archives. bsdtar is last: it does not check what a rar has stored.
TOOLS = {
    "unrar": ("unrar", "x", "-o-", "-p-", "-idq", "{archive}", "{folder}/"),
    "unar": ("unar", "-quiet", "-force-skip", "-no-directory", "-o", "{folder}", "{archive}"),
    "7zz": ("7zz", "x", "-aos", "-bd", "-y", "-o{folder}", "{archive}"),
    "7z": ("7z", "x", "-aos", "-bd", "-y", "-o{folder}", "{archive}"),
    "bsdtar": ("bsdtar", "-x", "-k", "-f", "{archive}", "-C", "{folder}"),
}
# Videos hardly become smaller in an archive. An archive that unpacks to more than this is taken for
# hostile, unless what comes out is small anyway.
RATIO = 100  # times the archive's bytes
FLOOR = 64_000_000  # bytes
FILE = 4096  # bytes that a file of any size takes
_LOOK = 2.0  # seconds between two checks of how much a program has unpacked


@dataclass
class Room:
    """Bytes that may still come out of some archives, and of those in them.

    Attributes:
        left: in all.
        is_given: by the user; then one archive may take all of it.
    """

    left: int
    is_given: bool


def room_for(sizes: Sequence[int], limit: int | None) -> Room:
    """Return the room for files of these sizes: `limit`, or what `RATIO` and `FLOOR` allow."""
    return Room(max(FLOOR, RATIO * sum(sizes)), False) if limit is None else Room(limit, True)


class TooLarge(Exception):
    """An archive would unpack to more bytes than allowed."""


def extract(kind: str, parts: Sequence[Path], folder: Path, room: Room) -> list[str]:
    """Unpack an archive into an empty folder, and leave only whole files in it.

    A zip leaves every sound member. Other archives leave all members or none, since their members
    have no checksums of their own; only members that lead out of the folder are left out.

    Args:
        kind: key of `archives.SIGNATURES`.
        parts: its files in order.
        room: lowered by what comes out.

    Returns:
        What is wrong, a line each: nothing if the archive is whole.

    Raises:
        OSError: the disk is full.
    """
    sizes = [part.stat().st_size for part in parts]
    allowed = room.left if room.is_given else min(room.left, room_for(sizes, None).left)
    try:
        if kind == "zip":
            problems = _unzip(parts[0], folder, allowed)
        elif kind in ("gzip", "tar"):
            problems = _untar(parts, kind, folder, allowed)
        else:
            problems = _extract_by_program(parts[0], kind, folder, allowed)
    except TooLarge as error:
        _empty(folder)
        return [str(error)]
    except Exception as error:  # the libraries raise errors of any kind on damaged bytes
        _empty(folder)
        _raise_if_full(error)
        return [cause_of(error)]
    room.left -= _bytes_in(folder)
    if not problems and not any(path.is_file() for path in folder.rglob("*")):
        return ["no file came out of it; is it whole?"]
    return problems


def _unzip(archive: Path, folder: Path, allowed: int) -> list[str]:
    problems = []
    scratch = folder / ".member"
    with zipfile.ZipFile(archive) as packed:
        members = packed.infolist()
        # No more than the size promised here is ever read of a member.
        _check_size(sum(max(member.file_size, FILE) for member in members), allowed)
        for member in members:
            try:
                file = Path(packed.extract(member, scratch))
                target = folder / file.relative_to(scratch)
                if not member.is_dir():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(target)
            except Exception as error:  # see `extract`
                _raise_if_full(error)
                problems.append(f"{member.filename}: {cause_of(error)}")
    shutil.rmtree(scratch, ignore_errors=True)
    return problems


def _untar(parts: Sequence[Path], kind: str, folder: Path, allowed: int) -> list[str]:
    problems = []
    last = "its beginning"
    with contextlib.ExitStack() as opened:
        joined: Any = _Joined([opened.enter_context(part.open("rb")) for part in parts])
        plain = gzip.GzipFile(fileobj=joined) if kind == "gzip" else joined
        stream: Any = _Joined([plain], allowed)
        try:
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=StrictInfo) as packed:
                for member in packed:
                    last = member.name
                    try:
                        packed.extract(member, folder, filter="data")
                    except tarfile.FilterError as error:
                        problems.append(f"{member.name}: {cause_of(error)}")
            if kind == "gzip":
                _read_to_end(stream)
        except TooLarge:
            raise
        except Exception as error:  # see `extract`
            _raise_if_full(error)
            raise ValueError(f"{cause_of(error)}, at or behind {last}") from error
    return problems


class _Joined:
    """Streams read one after the other as if they were one, up to a number of bytes."""

    def __init__(self, streams: Sequence[Any], allowed: float = math.inf) -> None:
        self._streams, self._allowed, self._done = list(streams), allowed, 0

    def read(self, size: int = -1) -> bytes:
        data = b""
        while self._streams and not data:
            data = self._streams[0].read(size)
            if not data:
                self._streams.pop(0)
        self._done += len(data)
        _check_size(self._done, self._allowed)
        return data


def _read_to_end(stream: _Joined) -> None:
    """Read what follows the tar file: gzip's checksum is at the end."""
    try:
        while stream.read(1 << 20):
            pass
    except gzip.BadGzipFile as error:
        if not str(error).startswith("Not a gzipped file"):  # as gunzip does: the rest is no data
            raise


def tool(kind: str) -> str | None:
    """Return the first of `TOOLS` that is installed and reads archives of a kind, "rar" or "7z"."""
    for name in TOOLS:
        if shutil.which(name) is None or (name == "unrar" and kind != "rar"):
            continue
        if name in ("7z", "7zz"):  # many distributions build it without rar
            told = subprocess.run([name, "i"], capture_output=True, text=True, check=False).stdout
            if not re.search(rf"\b{kind}\b", told, re.IGNORECASE):
                continue
        return name
    return None


def filled(words: Sequence[str], archive: Path, folder: Path) -> list[str]:
    """Return one of `TOOLS` as a command. An absolute path is never taken for an option."""
    return [word.format(archive=archive.absolute(), folder=folder.absolute()) for word in words]


def _extract_by_program(archive: Path, kind: str, folder: Path, allowed: int) -> list[str]:
    name = tool(kind)
    if name is None:
        return [f"install one of {', '.join(TOOLS)} and run this again"]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            filled(TOOLS[name], archive, folder),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_LOOK)
                _check_size(_bytes_in(folder), allowed)
        finally:
            process.kill()  # does nothing if it has ended
            process.wait()
        said.seek(0)
        lines = said.read().decode(errors="replace").split("\n")
    if process.returncode:
        _empty(folder)
        return [f"{name}: {next((li.strip() for li in lines[::-1] if li.strip()), 'no message')}"]
    return []


def _check_size(size: int, allowed: float) -> None:
    if size > allowed:
        raise TooLarge(
            f"more than {allowed / 1e6:,.0f} MB would come out of it, too much for its size; give "
            "--unpack_limit if it is to be trusted"
        )


def _bytes_in(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # a program may just have renamed it
            size += max(path.lstat().st_size, FILE)
    return size


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _raise_if_full(error: Exception) -> None:
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        raise error
