"""Index of the frames in a tar: where each frame is, and a checksum of its JPEG.

The index is a file beside the tar, `00000.tar.index`: four arrays in NumPy's format, memory-mapped,
so that processes share them. It belongs to one state of its tar (size and time of change), and
holds a checksum of its own arrays. If it is missing, damaged or of another format, the tar is read
once and the index is made anew. If the tar's time has changed, as after a copy, the tar's headers
are read: if the same frames are in the same places, their checksums are kept, so that damage done
by the copy is found.

Of a tar in a store, the index beside it is fetched and used if it is of a tar of that size: its
checksums are compared at each read. If there is none, the tar is fetched once, and its index is
kept in the local folder of `files.store_cache`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import sys
import tarfile
import time
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

import numpy as np
import xxhash

from vidadapt.console import track
from vidadapt.files import Held, State, fetched, held, is_url, place_of, replaced, store_cache
from vidadapt.video.sequential import ReadError, TransientReadError, cause_of, naming

# Place of a JPEG in the tar, in bytes, and its xxh3_64.
FRAME = np.dtype([("offset", "<u8"), ("size", "<u4"), ("check", "<u8")])
# State of the tar that an index belongs to, in bytes and ns, and the index's checksum.
TAR = np.dtype([("format", "<u8"), ("size", "<u8"), ("mtime_ns", "<i8"), ("check", "<u8")])
FORMAT = 2
SAID_AFTER = 20  # looks, half a second apart, at an index that another process makes
SHOWN_BYTES = 1 << 28  # of frames; reading more of them from a tar shows its progress
_FRAME_NAME = re.compile(r"(?P<stem>.*)\.jpe?g", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+")


class StrictInfo(tarfile.TarInfo):
    """Member of a tar; a damaged header is an error, which `tarfile` takes for the end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        """Read the next member.

        Raises:
            tarfile.ReadError: its header is damaged, or the file ends within it.
        """
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"a damaged header: {error}") from error


class PackedIndex(NamedTuple):
    """Places of the frames in a tar.

    Attributes:
        names: (V,) sorted names of the videos, UTF-8.
        first: (V + 1,) uint64: the frames of video v are `frames[first[v]:first[v + 1]]`.
        frames: (F,) `FRAME`.
    """

    names: np.ndarray
    first: np.ndarray
    frames: np.ndarray


def packed_index_path(tar: Path) -> Path:
    """Path of the index of a tar."""
    return tar.with_name(tar.name + ".index")


def make_packed_index(tar: Path, index: Path) -> PackedIndex:
    """Read a tar once and write its index, replacing an older one in one step.

    Args:
        tar: the index belongs to its size and time of change.
        index: file to write.

    Raises:
        ReadError: the file is no tar, ends early, or holds no JPEG frames.
        TransientReadError: the tar is being written.
        OSError: the tar cannot be read, or the index not written.
    """
    made, state = _indexed(tar, None)
    _write(index, made, state)
    return made


@functools.cache
def index_in_state(tar: str, size: int, mtime_ns: int) -> PackedIndex:
    """The index of a tar in this state: mapped, or made if none fits."""
    if is_url(tar):
        return _of_object(tar, State(size, mtime_ns))
    path = packed_index_path(Path(tar))
    looks = 0
    while True:
        found, of = _loaded(path)
        if found is not None and of == (size, mtime_ns):
            return found
        try:
            with held(path, "packed frames"):
                found, of = _loaded(path)
                if found is not None and of == (size, mtime_ns):  # made while this process waited
                    return found
                made, state = _indexed(Path(tar), found)
                with contextlib.suppress(OSError):
                    _write(path, made, state)
                return _loaded(path)[0] or made
        except Held as error:  # another process is making it
            looks += 1
            if looks == SAID_AFTER:
                print(f"waiting for an index: {error}", file=sys.stderr, flush=True)
            time.sleep(0.5)
        except OSError:  # the folder cannot be written: each process makes its own
            return _indexed(Path(tar), found)[0]


def _of_object(tar: str, state: State) -> PackedIndex:
    """The index of a tar in a store: the one beside it, or made from a copy of the tar.

    Raises:
        OSError: the tar, or an index beside it that must be there, cannot be read now.
    """
    with contextlib.suppress(FileNotFoundError):
        copy = fetched(f"{tar}.index")
        with copy.file:
            found, of = _loaded(Path(copy.path))
        if found is not None and of.size == state.size:
            return found
    path = place_of(store_cache(), f"{tar}.index of this tar", state)
    found, of = _loaded(path)
    if found is not None and of == state:
        return found
    copy = fetched(tar)
    with copy.file, naming(tar, copy.path):
        made, _ = _indexed(Path(copy.path), None)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, made, _state(made, *state))
    return made


def _write(path: Path, index: PackedIndex, state: np.ndarray) -> None:
    with replaced(path) as partial, partial.open("wb") as file:
        for array in (state, *index):
            np.save(file, array, allow_pickle=False)


def _loaded(path: Path) -> tuple[PackedIndex | None, State]:
    """Map the index in a file, and tell the state of the tar that it belongs to; None: it is
    missing, damaged or of another format."""
    none = None, State(-1, 0)
    try:
        with path.open("rb") as file:
            state, index = _mapped(file), PackedIndex(_mapped(file), _mapped(file), _mapped(file))
    except (OSError, ValueError):
        return none
    if (state.shape, state.dtype) != ((1,), TAR) or not _is_whole(index):
        return none
    of = State(*state[["size", "mtime_ns"]][0].tolist())
    return (index, of) if np.array_equal(state, _state(index, *of)) else none


def _state(index: PackedIndex, size: int, mtime_ns: int) -> np.ndarray:
    """First array of an index, (1,) `TAR`; its checksum covers all of the index."""
    state = np.array([(FORMAT, size, mtime_ns, 0)], TAR)
    check = xxhash.xxh3_64(state.tobytes() + f"{index.names.dtype}{index.names.shape}".encode())
    for array in index:
        check.update(np.ascontiguousarray(array).view(np.uint8).data)
    state["check"] = check.intdigest()
    return state


def _is_whole(index: PackedIndex) -> bool:
    names, first, frames = index
    return (
        (names.ndim, names.dtype.kind, frames.ndim, frames.dtype) == (1, "S", 1, FRAME)
        and (first.shape, first.dtype) == ((len(names) + 1,), np.dtype("<u8"))
        and first[0] == 0
        and first[-1] == len(frames)
        and bool((first[:-1] < first[1:]).all() and (names[:-1] < names[1:]).all())
    )


def _mapped(file: BinaryIO) -> np.ndarray:
    """Memory-map the array at the file's position, and move the file to the array's end.

    Raises:
        ValueError: no array is there, or one of Python objects.
    """
    try:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # NumPy parses it as Python code: that may fail in any way
        raise ValueError("no array") from error
    if dtype.hasobject:
        raise ValueError("objects")
    start = file.tell()
    array = np.memmap(file, dtype, "r", start, shape)
    file.seek(start + array.nbytes)
    return np.asarray(array)


def _indexed(tar: Path, earlier: PackedIndex | None) -> tuple[PackedIndex, np.ndarray]:
    """Find where the frames of a tar are, with their checksums.

    Args:
        earlier: index of the tar in another state, e.g. before it was copied. If the same frames
            are in the same places, their checksums are kept, see `_keep_checks`; if not, the whole
            tar is read.

    Returns:
        the index, and the state of the tar (1,) `TAR`.

    Raises:
        ReadError, TransientReadError, OSError: see `make_packed_index`.
    """
    before = tar.stat()
    index = _walked(tar)
    if earlier is not None and _same_places(index, earlier):
        _keep_checks(tar, index, earlier)
    else:
        _add_checks(tar, index.frames)
    after = tar.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise TransientReadError(f"{tar}: it is being written")
    return index, _state(index, after.st_size, after.st_mtime_ns)


def _same_places(index: PackedIndex, other: PackedIndex) -> bool:
    return (
        np.array_equal(index.names, other.names)
        and np.array_equal(index.first, other.first)
        and all(np.array_equal(index.frames[k], other.frames[k]) for k in ("offset", "size"))
    )


def _keep_checks(tar: Path, index: PackedIndex, earlier: PackedIndex) -> None:
    """Fill in the checksums of an earlier index, except of videos in which every frame differs.

    Those were replaced by videos of the same sizes. If only some frames differ, the tar is damaged:
    the old checksums are kept, so that reading those frames is an error. They are also kept for a
    video of one frame, unless most videos differ. A video is read on only if frame 0 differs.
    """
    index.frames["check"] = earlier.frames["check"]
    ends = index.first.tolist()
    videos = [index.frames[start:end] for start, end in itertools.pairwise(ends)]
    with tar.open("rb") as file:
        differ = [frames for frames in videos if _check_of(file, frames[0]) != frames["check"][0]]
        most = len(differ) > max(1, len(videos) / 2)
        for frames in differ:
            checks = np.array([_check_of(file, frame) for frame in frames], "<u8")
            if (checks != frames["check"]).all() and (len(frames) > 1 or most):
                frames["check"] = checks


def _add_checks(tar: Path, frames: np.ndarray) -> None:
    """Fill in the checksums of frames (F,) `FRAME`, reading the tar from start to end."""
    in_order = np.argsort(frames["offset"], kind="stable").tolist()
    shown = int(frames["size"].sum()) > SHOWN_BYTES
    label = f"checksums of {tar.name}"
    with tar.open("rb") as file:
        for place in track(in_order, total=len(frames), label=label, unit="frames", shown=shown):
            frames["check"][place] = _check_of(file, frames[place])


def _check_of(file: BinaryIO, frame: np.void) -> int:
    """Checksum of a frame's bytes; of fewer bytes if the tar ends early."""
    offset, size, _ = frame.tolist()
    file.seek(offset)
    return xxhash.xxh3_64_intdigest(file.read(size))


def _walked(tar: Path) -> PackedIndex:
    """Make the index of a tar from its headers; the checksums are 0.

    Raises:
        ReadError: see `make_packed_index`.
    """
    videos: dict[str, list[tuple[int, str, int, int]]] = {}
    try:
        with tarfile.open(tar, "r:", tarinfo=StrictInfo) as archive:
            for member in archive:
                folder, _, name = member.name.removeprefix("./").rpartition("/")
                match = _FRAME_NAME.fullmatch(name)
                if match and folder and member.isreg():
                    if member.size >= 1 << 32:
                        raise ReadError(
                            f"{tar}: {member.name} has {member.size:,} bytes; a frame has fewer "
                            "than 4 GiB"
                        )
                    numbers = _NUMBER.findall(match["stem"]) or ["-1"]
                    place = (int(numbers[-1]), name, member.offset_data, member.size)
                    videos.setdefault(folder, []).append(place)
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
    except tarfile.TarError as error:
        raise ReadError(f"{tar}: no whole uncompressed tar file: {cause_of(error)}") from error
    if not videos:
        raise ReadError(f"{tar}: holds no JPEG frames in folders")
    by_name = {name.encode("utf-8", "surrogateescape"): found for name, found in videos.items()}
    names = sorted(by_name)
    ends = np.cumsum([0, *(len(by_name[name]) for name in names)])
    frames = [(*place[2:], 0) for name in names for place in sorted(by_name[name])]
    return PackedIndex(np.array(names), ends.astype("<u8"), np.array(frames, FRAME))
