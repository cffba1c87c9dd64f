"""Packed frames: the JPEG frames of many videos in one tar file, read through an index of it.

A packed video is listed as `shards/00000.tar/NAME`: its frames are the .jpg and .jpeg members in
the tar's folder NAME, ordered by the last number in their names. Any tar program reads such a file,
and uncompressed tars of frames made elsewhere can be used as they are. `packed_index` finds the
frames; each read is compared with the checksum that it holds. Of a tar in a store, only the bytes
of the wanted frames are fetched.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import xxhash

from vidadapt.files import State, is_url, known_state, read_ranges
from vidadapt.video.facts import COUNTED_WITH, VideoFacts
from vidadapt.video.jpeg import decoded_jpeg
from vidadapt.video.packed_index import index_in_state
from vidadapt.video.segments import film_of
from vidadapt.video.sequential import ReadError, TransientReadError, cause_of


def tar_and_name(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """The tar's path or URL and the name of a packed video; None: the path is a file of its own.

    >>> tar_and_name("/data/shards/00000.tar/videos/a b.webm")
    ('/data/shards/00000.tar', 'videos/a b.webm')
    >>> tar_and_name("/data/a.webm") is None, tar_and_name("/data/00000.tar") is None
    (True, True)
    """
    text = os.fspath(path)
    end = text.find(".tar/")
    while end >= 0:
        tar, name = text[: end + 4], text[end + 5 :].strip("/")
        if name and (is_url(tar) or not Path(tar).is_dir()):  # a folder may have such a name, too
            return tar, name
        end = text.find(".tar/", end + 5)
    return None


def file_of(path: str | os.PathLike[str]) -> str:
    """The file or object: the tar of a packed video, the film of a segment, or the path itself."""
    place = tar_and_name(path)
    return film_of(os.fspath(path)) if place is None else place[0]


def state_now(path: str | os.PathLike[str]) -> State:
    """State of a video's file or object: bytes, and its time of change in ns or what stands for it.

    Raises:
        OSError: it cannot be had; see `stores.read_ranges`.
    """
    file = file_of(path)
    if is_url(file):
        return known_state(file)
    facts = os.stat(file)  # noqa: PTH116
    return State(facts.st_size, facts.st_mtime_ns)


def opened(
    path: str | os.PathLike[str], parts: Sequence[torch.Tensor] | None = None
) -> tuple[VideoFacts, Callable[[Sequence[int]], np.ndarray]]:
    """Find a packed video; return what is known of it, and what reads its frames.

    Args:
        parts: `packed_parts` of the frames that are to be read.

    Raises:
        ReadError, TransientReadError: see `frame_places`.
    """
    place = tar_and_name(path)
    assert place is not None
    frames = frame_places(*place)
    facts = VideoFacts(
        "/".join(place),
        num_frames=len(frames),
        header_frames=len(frames),
        reader="packed",
        codec="mjpeg",
        counted_with=COUNTED_WITH,
        checks=np.ascontiguousarray(frames["check"]),
    )
    return facts, functools.partial(read, *place, frames, parts=parts)


def packed_parts(path: str, wanted: Sequence[int]) -> list[torch.Tensor]:
    """Read the JPEGs of the frames at `wanted` (ascending, distinct), which are not checked here.

    Raises:
        ReadError, TransientReadError, OSError: they cannot be read.
    """
    place = tar_and_name(path)
    assert place is not None
    return list(_parts(place[0], _places(frame_places(*place), wanted)))


def frame_places(tar: str, name: str) -> np.ndarray:
    """Places of a video's frames in its tar: (F,) `FRAME`, in the video's order.

    Raises:
        ReadError: no tar, one without this video, or one with a damaged index.
        TransientReadError: it cannot be read now.
    """
    try:
        state = state_now(tar)
        index = index_in_state(tar, *state)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError) and not is_url(tar)
        cause = "no such file" if missing else cause_of(error)
        raise TransientReadError(f"{tar}: {cause}") from error
    key = np.bytes_(name.encode("utf-8", "surrogateescape"))
    place = bisect.bisect_left(index.names, key)
    if place == len(index.names) or index.names[place] != key:
        raise ReadError(f"{tar}/{name}: the tar holds no frames of that name")
    frames = index.frames[int(index.first[place]) : int(index.first[place + 1])]
    ends = frames["offset"].astype(float) + frames["size"]
    if not len(frames) or (ends > state.size).any():
        raise ReadError(f"{tar}/{name}: {tar}.index is damaged; delete it, it is made anew")
    return frames


def read(
    tar: str,
    name: str,
    frames: np.ndarray,
    wanted: Sequence[int],
    parts: Sequence[torch.Tensor] | None = None,
) -> np.ndarray:
    """Read the frames at `wanted` (T, H, W, 3) uint8: only their bytes, which are checked.

    Args:
        frames: what `frame_places` returned.
        wanted: one index or more.
        parts: their bytes, where they were read ahead.

    Raises:
        ReadError: a frame is damaged, or of another size than the rest.
        TransientReadError: the tar cannot be read now.
    """
    found = np.empty(0, np.uint8)
    index = 0
    try:
        bytes_of = _parts(tar, _places(frames, wanted)) if parts is None else parts
        for number, (index, data) in enumerate(zip(wanted, bytes_of, strict=True)):
            if len(data) != frames[index]["size"]:
                raise ValueError("the tar ends early")
            if xxhash.xxh3_64_intdigest(data.numpy().data) != frames[index]["check"]:
                raise ValueError(
                    "its bytes are not those that were indexed: the tar is damaged; or, if it "
                    f"was changed on purpose, delete {tar}.index"
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


def _places(frames: np.ndarray, wanted: Sequence[int]) -> list[tuple[int, int]]:
    """Offset and size of each wanted frame."""
    return [(int(frame["offset"]), int(frame["size"])) for frame in frames[list(wanted)]]


def _parts(tar: str, places: Sequence[tuple[int, int]]) -> Iterator[torch.Tensor]:
    """Yield the bytes (at most `size`,) uint8 at each place (offset, size)."""
    if is_url(tar):
        for part in read_ranges(tar, places):
            yield torch.frombuffer(bytearray(part), dtype=torch.uint8)
        return
    with Path(tar).open("rb", buffering=0) as file:
        for offset, size in places:
            data = torch.empty(size, dtype=torch.uint8)
            yield data[: os.preadv(file.fileno(), [data.numpy().data], offset)]


def make_packed_indexes(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Make the missing indices of the tars of packed videos, one by one, with progress.

    Call this before processes with a time limit read from the tars. A tar that cannot be indexed is
    skipped: reading it says why.
    """
    places = map(tar_and_name, paths)
    for tar in dict.fromkeys(place[0] for place in places if place is not None):
        with contextlib.suppress(ReadError, OSError):
            index_in_state(tar, *state_now(tar))
