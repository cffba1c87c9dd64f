"""Packed frames: the JPEG frames of many videos in one tar file, read through an index of it.

A packed video is listed as `shards/00000.tar/NAME`: its frames are the .jpg and .jpeg members in
the tar's folder NAME, ordered by the last number in their names. Any tar program reads such a file,
and uncompressed tars of frames made elsewhere can be used as they are. `packed_index` finds the
frames; each read is compared with the checksum that it holds.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
import xxhash

from vidadapt.video.facts import COUNTED_WITH, VideoFacts
from vidadapt.video.jpeg import decoded_jpeg
from vidadapt.video.packed_index import index_in_state, packed_index_path
from vidadapt.video.sequential import ReadError, TransientReadError, cause_of


def tar_and_name(path: str | os.PathLike[str]) -> tuple[Path, str] | None:
    """The tar and the name of a packed video; None: the path is a file of its own.

    >>> tar_and_name("/data/shards/00000.tar/videos/a b.webm")
    (PosixPath('/data/shards/00000.tar'), 'videos/a b.webm')
    >>> tar_and_name("/data/a.webm") is None, tar_and_name("/data/00000.tar") is None
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
    """The file on disk: the tar of a packed video, or the path itself."""
    place = tar_and_name(path)
    return Path(path) if place is None else place[0]


def opened(
    path: str | os.PathLike[str],
) -> tuple[VideoFacts, Callable[[Sequence[int]], np.ndarray]]:
    """Find a packed video; return what is known of it, and what reads its frames.

    Raises:
        ReadError, TransientReadError: see `frame_places`.
    """
    place = tar_and_name(path)
    assert place is not None
    frames = frame_places(*place)
    facts = VideoFacts(
        "/".join(map(str, place)),
        num_frames=len(frames),
        header_frames=len(frames),
        reader="packed",
        codec="mjpeg",
        counted_with=COUNTED_WITH,
        checks=np.ascontiguousarray(frames["check"]),
    )
    return facts, functools.partial(read, *place, frames)


def frame_places(tar: Path, name: str) -> np.ndarray:
    """Places of a video's frames in its tar: (F,) `FRAME`, in the video's order.

    Raises:
        ReadError: no tar, one without this video, or one with a damaged index.
        TransientReadError: it cannot be read now.
    """
    try:
        facts = tar.stat()
        index = index_in_state(str(tar), facts.st_size, facts.st_mtime_ns)
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
        raise ReadError(
            f"{tar}/{name}: {packed_index_path(tar)} is damaged; delete it, it is made anew"
        )
    return frames


def read(tar: Path, name: str, frames: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
    """Read the frames at `wanted` (T, H, W, 3) uint8: only their bytes, which are checked.

    Args:
        frames: what `frame_places` returned.
        wanted: one index or more.

    Raises:
        ReadError: a frame is damaged, or of another size than the rest.
        TransientReadError: the tar cannot be read now.
    """
    found = np.empty(0, np.uint8)
    index = 0
    try:
        with tar.open("rb", buffering=0) as file:
            for number, index in enumerate(wanted):
                offset, size, check = frames[index].tolist()
                data = torch.empty(size, dtype=torch.uint8)
                if os.preadv(file.fileno(), [data.numpy().data], offset) != size:
                    raise ValueError("the tar ends early")
                if xxhash.xxh3_64_intdigest(data.numpy().data) != check:
                    raise ValueError(
                        "its bytes are not those that were indexed: the tar is damaged; or, if it "
                        f"was changed on purpose, delete {packed_index_path(tar).name} beside it"
                    )
                frame = decoded_jpeg(data)
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


def make_packed_indexes(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Make the missing indices of the tars of packed videos, one by one, with progress.

    Call this before processes with a time limit read from the tars. A tar that cannot be indexed is
    skipped: reading it says why.
    """
    places = map(tar_and_name, paths)
    for tar in dict.fromkeys(place[0] for place in places if place is not None):
        with contextlib.suppress(ReadError, OSError):
            facts = tar.stat()
            index_in_state(str(tar), facts.st_size, facts.st_mtime_ns)
