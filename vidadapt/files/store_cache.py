"""Whole objects of stores, kept in a local folder of bounded size, each with a checksum.

VIDADAPT_STORE_CACHE names the folder (default: `vidadapt/stores` in XDG_CACHE_HOME or ~/.cache), a
property of a machine and not of a run; VIDADAPT_STORE_CACHE_GB its largest size in GB (1e9 bytes,
default 50). What was not used for longest goes first. Any number of processes, also of machines
that share the folder, use it at once:

* a copy's name is a hash of the object's URL and state, so that a changed object has another copy;
* a copy is written beside its place, and moved there when it is whole and the object is unchanged;
* who reads or writes a copy holds a lock on it, and only what nobody holds is removed;
* the size that a copy will have is reserved before its first byte is fetched.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import xxhash

from vidadapt.files.stores import State, known_state, read_ranges, state_of

FOLDER, GIGABYTES = "VIDADAPT_STORE_CACHE", "VIDADAPT_STORE_CACHE_GB"
DEFAULT_GB = 50.0
PIECE = 1 << 24  # bytes that are fetched by one request
LEFT = 0.9  # share of the bound down to which a full cache is emptied
SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")  # FFmpeg looks at it
PARTIAL, CHECK, TOTAL = ".partial", ".xxh3", "total"


class Copy(NamedTuple):
    """A local copy that is not removed while its file is open."""

    path: str
    file: BinaryIO


class Cache(NamedTuple):
    """The folder and its bound in bytes."""

    folder: Path
    most: int


def store_cache() -> Cache:
    """Return the cache that the environment names.

    Raises:
        ValueError: the bound is no number above 0.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get(FOLDER) or Path(home) / "vidadapt" / "stores")
    said = os.environ.get(GIGABYTES) or str(DEFAULT_GB)
    try:
        most = int(float(said) * 1e9)
    except (ValueError, OverflowError):
        most = 0
    if most <= 0:
        raise ValueError(f"{GIGABYTES} is {said!r}; expected a number of GB above 0")
    return Cache(folder, most)


def fetched(url: str, state: State | None = None) -> Copy:
    """Return a copy of an object, whose bytes are compared with their checksum at each call.

    It is fetched if there is none, or if its bytes have changed on the disk.

    Args:
        state: of the object; default: as it was when this process first asked for it.

    Raises:
        OSError, ImportError, ValueError: see `stores.read_ranges`; or the copy cannot be written,
            or is larger than the cache, or the object is being written.
    """
    cache, state = store_cache(), known_state(url) if state is None else state
    place = place_of(cache, url, state)
    return _held(cache, place) or _fetch(cache, place, url, state)


def place_of(cache: Cache, url: str, state: State) -> Path:
    """Return the path of what is kept of an object in a state, whether or not it is there."""
    key = xxhash.xxh3_128_hexdigest(f"{url}\0{state.size}\0{state.version}".encode())
    suffix = Path(url).suffix
    return cache.folder / key[:2] / (key[2:] + (suffix if SUFFIX.fullmatch(suffix) else ""))


def _held(cache: Cache, place: Path) -> Copy | None:
    """Open a copy and lock it against removal; None: there is none that is whole."""
    try:
        file = place.open("rb")
    except FileNotFoundError:
        return None
    fcntl.flock(file, fcntl.LOCK_SH)
    try:
        there = place.stat().st_ino == os.fstat(file.fileno()).st_ino
        known = _check_of(place).read_text() if there else ""
    except FileNotFoundError:
        known = ""
    if known and known == _checksum(file):
        os.utime(place)
        return Copy(str(place), file)
    file.close()
    with _locked(cache):  # removed meanwhile, or damaged: what another process has put there stays
        if known and known == _text_of(_check_of(place)):
            place.unlink(missing_ok=True)
    return None


def _fetch(cache: Cache, place: Path, url: str, state: State) -> Copy:
    partial = place.with_name(f"{place.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        file = _reserved(cache, partial, url, state.size)
    except OSError as error:
        raise _unwritten(cache, url, error) from None
    try:
        digest = xxhash.xxh3_64()
        for start in range(0, state.size, PIECE):
            [data] = read_ranges(url, [(start, min(PIECE, state.size - start))])
            digest.update(data)
            with _writing(cache, url):
                file.write(data)
        if state_of(url) != state:
            known_state.cache_clear()
            raise OSError(errno.EAGAIN, "the object was changed while it was read", url)
        with _writing(cache, url):
            file.flush()
            os.fsync(file.fileno())
            with _locked(cache):
                _check_of(place).write_text(digest.hexdigest())
                partial.replace(place)
                fcntl.flock(file, fcntl.LOCK_SH)
        return Copy(str(place), file)
    except BaseException:
        file.close()
        partial.unlink(missing_ok=True)
        raise


def _reserved(cache: Cache, partial: Path, url: str, size: int) -> BinaryIO:
    """Make room; open the locked file of a copy that will have `size` bytes, and count them."""
    if size > cache.most:
        raise OSError(
            errno.EFBIG,
            f"it has {size / 1e9:.3g} GB, the cache {cache.most / 1e9:.3g} ({GIGABYTES})",
            url,
        )
    with _locked(cache):
        total = _text_of(cache.folder / TOTAL)
        used = int(total) if total.isdecimal() else None
        if used is None or used + size > cache.most:
            used = _emptied(cache, size)
        if used + size > cache.most:
            raise OSError(errno.EBUSY, f"all that is kept is in use; raise {GIGABYTES}", url)
        file = partial.open("x+b")
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(size)
        (cache.folder / TOTAL).write_text(str(used + size))
        return file


def _emptied(cache: Cache, size: int) -> int:
    """Remove what was not used for longest and nobody holds; return the bytes that are left."""
    copies = []
    for path in cache.folder.glob("??/*"):
        if not path.name.endswith(CHECK):
            with suppress(FileNotFoundError):
                facts = path.stat()
                # What a killed process left half-written goes first.
                whole = not path.name.endswith(PARTIAL)
                copies.append((whole, facts.st_mtime_ns, facts.st_size, path))
    used = sum(copy[2] for copy in copies)
    for whole, _, freed, path in sorted(copies):
        if whole and used <= max(0.0, LEFT * cache.most - size):
            break
        with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            _check_of(path).unlink(missing_ok=True)
            used -= freed
    return used


def _checksum(file: BinaryIO) -> str:
    digest = xxhash.xxh3_64()
    while data := file.read(PIECE):
        digest.update(data)
    return digest.hexdigest()


def _check_of(place: Path) -> Path:
    return place.with_name(place.name + CHECK)


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


@contextmanager
def _locked(cache: Cache) -> Iterator[None]:
    """Hold the lock of the cache's size, and of what is put in and removed."""
    with (cache.folder / "lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _writing(cache: Cache, url: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unwritten(cache, url, error) from None


def _unwritten(cache: Cache, url: str, error: OSError) -> OSError:
    if error.filename == url:
        return error  # says so already
    why = (
        f"its copy cannot be kept in {cache.folder} ({error.strerror}); free some space there, or "
        f"give another folder by {FOLDER}"
    )
    return OSError(error.errno, why, url)
