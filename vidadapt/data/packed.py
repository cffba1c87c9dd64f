"""Packed frames: the JPEG frames of many videos in one tar file, and an index that finds them.

A packed video is listed as `shards/00000.tar/NAME`: its frames are the tar's members whose folder
is NAME, those that end in .jpg or .jpeg, in the order of the last number in their names. Any tar
program reads such a file, and uncompressed tars of frames made elsewhere serve as they are.

The index lies beside the tar as `00000.tar.index`: three arrays in NumPy's format (see `Index`),
memory-mapped, so that processes share them. Where it is missing, damaged, or not of a tar of this
size, it is made anew by walking through the tar.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import io
import os
import re
import secrets
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image

from vidadapt.data.bounds import size_problem
from vidadapt.data.sequential import ReadError, TransientReadError, cause_of

try:
    from torchvision.io import ImageReadMode, decode_jpeg
except ImportError:  # torchvision 0.29 announces that its decoders will go
    decode_jpeg = None

FRAME = np.dtype([("offset", "<u8"), ("size", "<u4")])  # where a JPEG lies in the tar, in bytes
_FRAME_NAME = re.compile(r"(?P<stem>.*)\.jpe?g", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+")


class Index(NamedTuple):
    """Where the frames of a tar lie.

    Attributes:
        names: (V,) sorted names of the videos, UTF-8.
        first: (V + 2,) uint64: the frames of video v are `frames[first[v]:first[v + 1]]`; then the
            size of the tar in bytes.
        frames: (F,) `FRAME`.
    """

    names: np.ndarray
    first: np.ndarray
    frames: np.ndarray


def split(path: str | os.PathLike[str]) -> tuple[Path, str] | None:
    """The tar and the name of a packed video; None: the path is a file of its own.

    >>> split("/data/shards/00000.tar/videos/a b.webm")
    (PosixPath('/data/shards/00000.tar'), 'videos/a b.webm')
    >>> split("/data/a.webm") is None, split("/data/00000.tar") is None
    (True, True)
    """
    text = os.fspath(path)
    end = text.find(".tar/")
    while end >= 0:
        tar, name = Path(text[: end + 4]), text[end + 5 :].strip("/")
        if name and not tar.is_dir():  # a folder may have such a name, too
            return tar, name
        end = text.find(".tar/", end + 5)
    return None


def file_of(path: str | os.PathLike[str]) -> Path:
    """The file that lies on disk: the tar of a packed video, any other path itself."""
    place = split(path)
    return Path(path) if place is None else place[0]


def decoded(data: torch.Tensor) -> np.ndarray:
    """The RGB frame (H, W, 3) uint8 of a JPEG file's bytes (N,) uint8.

    Of the decoders at hand torchvision's is the fastest, by 1.2 to 1.5 times over Pillow and 2 over
    PyAV. Where it is not there, Pillow serves, with the same values.

    Raises:
        ValueError: they are no JPEG, end early, or tell of more pixels than `bounds.MAX_PIXELS`.
    """
    if bytes(data[-2:].numpy()) != b"\xff\xd9":  # what is missing would be decoded as grey
        raise ValueError("a JPEG that ends early")
    if problem := size_problem(*jpeg_size(data.numpy())):
        raise ValueError(problem)
    try:
        if decode_jpeg is None:
            return np.asarray(Image.open(io.BytesIO(data.numpy().tobytes())).convert("RGB"))
        return decode_jpeg(data, mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()
    except (RuntimeError, OSError) as error:
        raise ValueError(cause_of(error)) from error


def jpeg_size(data: np.ndarray) -> tuple[int, int]:
    """Width and height in pixels by the header of a JPEG file's bytes (N,) uint8.

    Its segments are a marker (0xff and a kind) and a length each (ITU-T T.81, B.1.1); that of the
    frame is of a kind from 0xc0 to 0xcf, but for 0xc4, 0xc8 and 0xcc.

    Raises:
        ValueError: there is no such segment.
    """
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        kind = int(data[place + 1])
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = (
                int(data[at]) << 8 | int(data[at + 1]) for at in (place + 5, place + 7)
            )
            return width, height
        if kind == 0xFF:  # fill bytes may stand before a marker
            place += 1
        elif kind == 0x01 or 0xD0 <= kind <= 0xD8:  # markers alone
            place += 2
        else:
            place += 2 + _number(data, place + 2)
    raise ValueError("no JPEG: its header tells no size")


def _number(data: np.ndarray, place: int) -> int:
    return int(data[place]) << 8 | int(data[place + 1])


def frames_of(tar: Path, name: str) -> np.ndarray:
    """Where the frames of a video lie in its tar: (F,) `FRAME`, in the video's order.

    Raises:
        ReadError: the tar is none, or holds no such video.
        TransientReadError: it cannot be read now.
    """
    try:
        facts = tar.stat()
        index = _index(str(tar), facts.st_size, facts.st_mtime_ns)
    except FileNotFoundError as error:
        raise TransientReadError(f"{tar}: no such file") from error
    except OSError as error:
        raise TransientReadError(f"{tar}: {cause_of(error)}") from error
    key = np.bytes_(name.encode("utf-8", "surrogateescape"))
    place = bisect.bisect_left(index.names, key)
    if place == len(index.names) or index.names[place] != key:
        raise ReadError(f"{tar}/{name}: the tar holds no frames of that name")
    frames = index.frames[int(index.first[place]) : int(index.first[place + 1])]
    ends = frames["offset"].astype(float) + frames["size"]
    if not len(frames) or (ends > facts.st_size).any():
        raise ReadError(f"{tar}/{name}: {index_of(tar)} is damaged; delete it, it is made anew")
    return frames


def read(tar: Path, name: str, frames: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
    """Frames at `wanted` (T, H, W, 3) uint8; only their bytes are read.

    Args:
        frames: what `frames_of` returned.
        wanted: one or more.

    Raises:
        ReadError: a frame is damaged, or of another size than the rest.
        TransientReadError: the tar cannot be read now.
    """
    found = np.empty(0, np.uint8)
    index = 0
    try:
        with tar.open("rb", buffering=0) as file:
            for number, index in enumerate(wanted):
                offset, size = frames[index].tolist()
                data = torch.empty(size, dtype=torch.uint8)
                if os.preadv(file.fileno(), [data.numpy().data], offset) != size:
                    raise ValueError("the tar ends early")
                frame = decoded(data)
                if number == 0:
                    found = np.empty((len(wanted), *frame.shape), np.uint8)
                if frame.shape != found.shape[1:]:
                    raise ValueError("of another size than the first that was wanted")
                found[number] = frame  # while it is in the processor's cache
    except ValueError as error:
        raise ReadError(f"{tar}/{name}: frame {index}: {error}") from error
    except OSError as error:
        raise TransientReadError(f"{tar}: {cause_of(error)}") from error
    return found


def index_of(tar: Path) -> Path:
    """Where the index of a tar lies."""
    return tar.with_name(tar.name + ".index")


def make_index(tar: Path, index: Path) -> Index:
    """Walk through a tar and write its index, replacing it at once.

    Raises:
        ReadError: the tar is none, ends early, or holds no JPEG frames.
        OSError: one of them cannot be read or written.
    """
    made = _walked(tar)
    partial = index.with_name(f".{index.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("wb") as file:
            for array in made:
                np.save(file, array, allow_pickle=False)
        partial.replace(index)
    finally:
        partial.unlink(missing_ok=True)
    return made


@functools.cache
def _index(tar: str, size: int, mtime_ns: int) -> Index:
    """The index of a tar in this state: mapped, or made where there is none that fits."""
    path = index_of(Path(tar))
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        found = Index(_mapped(file), _mapped(file), _mapped(file))
        if _is_whole(found) and found.first[-1] == size:
            return found
    with contextlib.suppress(OSError):
        return make_index(Path(tar), path)
    return _walked(Path(tar))  # the folder cannot be written: each process makes its own


def _is_whole(index: Index) -> bool:
    names, first, frames = index
    return (
        (names.ndim, names.dtype.kind, frames.ndim, frames.dtype) == (1, "S", 1, FRAME)
        and (first.shape, first.dtype) == ((len(names) + 2,), np.dtype("<u8"))
        and first[0] == 0
        and first[-2] == len(frames)
        and bool((first[:-2] < first[1:-1]).all() and (names[:-1] < names[1:]).all())
    )


def _mapped(file: BinaryIO) -> np.ndarray:
    """The array that begins here in the file, memory-mapped; the file is then at its end.

    Raises:
        ValueError: none does, or one of Python objects.
    """
    try:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # NumPy reads it as Python does: that may fail in any way
        raise ValueError("no array") from error
    if dtype.hasobject:
        raise ValueError("objects")
    start = file.tell()
    array = np.memmap(file, dtype, "r", start, shape)
    file.seek(start + array.nbytes)
    return np.asarray(array)


def _walked(tar: Path) -> Index:
    videos: dict[str, list[tuple[int, str, int, int]]] = {}
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                folder, _, name = member.name.removeprefix("./").rpartition("/")
                match = _FRAME_NAME.fullmatch(name)
                if match and folder and member.isreg():
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
    counts = [len(by_name[name]) for name in names]
    ends = [*np.cumsum([0, *counts]).tolist(), tar.stat().st_size]
    frames = [place[2:] for name in names for place in sorted(by_name[name])]
    return Index(np.array(names), np.array(ends, "<u8"), np.array(frames, FRAME))
