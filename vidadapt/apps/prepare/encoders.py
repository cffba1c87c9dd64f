"""Encode a video so that a few of its frames are read fast, and compare the copy with its source.

H.264 has a short group of pictures: a decoder starts at the key frame before each frame. Its
options, each measured on 2 to 16 frames of 240-line videos through our readers: no B-frames (a
third faster), x264's `fastdecode` (CAVLC and no deblocking: half the time), and a key frame every 4
frames (of 1, 2, 4 and 8 no other is faster by more than a fifth at any number of frames; with 1 and
2 the files are half as large again).

JPEGs are packed into a few large tar files, which `video.packed` reads. Each video becomes a part,
the piece of a tar that holds its frames, so that parts are made in parallel and survive a kill.
Parts are joined in the list's order, so the shards have the same bytes for any number of processes.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from av.video.stream import VideoStream
from PIL import Image

from vidadapt.video import (
    ReadError,
    Video,
    all_frames,
    best_stream,
    decoded_jpeg,
    make_packed_index,
    open_container,
    packed_index_path,
)

AT_ONCE = 32  # frames of the copy that are compared at a time
FRAME_RATE = Fraction(25)  # where the source gives none, or an absurd one
END = bytes(2 * tarfile.BLOCKSIZE)  # of every tar file


class Compared(NamedTuple):
    """Difference of a copy from its source.

    Attributes:
        errors: mean squared error of each frame, over all pixels and channels.
        source_size, size: height and width of the last frame in pixels, of source and copy.
    """

    errors: list[float]
    source_size: tuple[int, ...]
    size: tuple[int, ...]


def write_h264(source: str, target: Path, *, short_side: int, crf: int, gop: int) -> None:
    """Encode a video; it has the same bytes on every machine.

    Args:
        short_side: of the copy in pixels, see `even_size`.
        crf: x264's quality, less is better.
        gop: frames from one key frame to the next.
    """
    options = {
        "crf": str(crf),
        "preset": "medium",
        "tune": "fastdecode",
        "g": str(gop),
        "bf": "0",
        "sc_threshold": "0",  # no other key frames: a stretch of them would be large
        "mbtree": "0",  # with it the bytes differ from call to call
    }
    file = io.BytesIO()  # since FFmpeg does not always report a full disk
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream: VideoStream | None = None
        for frame in all_frames(source):
            small = resized(frame, even_size(frame.shape[0], frame.shape[1], short_side))
            if stream is None:
                stream = container.add_stream("libx264", rate=_rate(source), options=options)
                stream.height, stream.width, stream.pix_fmt = *small.shape[:2], "yuv420p"
                stream.codec_context.thread_count = 1  # the same bytes on every machine
            container.mux(stream.encode(av.VideoFrame.from_ndarray(small, format="rgb24")))
        assert stream is not None  # without a frame there was a ReadError
        container.mux(stream.encode())
    target.write_bytes(file.getvalue())


def compare_h264(source: str, copy: Video, short_side: int) -> Compared:
    """Decode a copy that `write_h264` made, and compare each frame with its source's.

    Raises:
        ReadError: the copy has another number of frames than its source.
    """
    errors: list[float] = []
    sizes: tuple[tuple[int, ...], tuple[int, ...]] = (), ()
    copied = _frames(copy)
    for frame in all_frames(source):
        small = resized(frame, even_size(frame.shape[0], frame.shape[1], short_side))
        again = next(copied, None)
        if again is None:
            break
        errors.append(squared_error(small, again))
        sizes = frame.shape[:2], small.shape[:2]
    else:
        if next(copied, None) is None and errors:
            return Compared(errors, *sizes)
    raise ReadError(f"{source}: its copy has another number of frames")


def write_jpegs(source: str, part: Path, *, name: str, short_side: int, quality: int) -> Compared:
    """Write the part of a shard that holds a video's frames, and compare each with its source's.

    Args:
        name: folder of the frames in the tar.
        short_side: of the frames in pixels, see `fitted`.
        quality: of the JPEGs, up to 100, more is better.
    """
    errors: list[float] = []
    sizes: tuple[tuple[int, ...], tuple[int, ...]] = (), ()
    with part.open("wb") as file:
        for frame in all_frames(source):
            small = resized(frame, fitted(frame.shape[0], frame.shape[1], short_side))
            data = jpeg(small, quality)
            member = tarfile.TarInfo(f"{name}/{len(errors):06d}.jpg")
            member.size = len(data)
            header = member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
            file.write(header + data + bytes(-len(data) % tarfile.BLOCKSIZE))
            again = decoded_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
            errors.append(squared_error(small, again))
            sizes = frame.shape[:2], small.shape[:2]
    return Compared(errors, *sizes)


def jpeg(frame: np.ndarray, quality: int) -> bytes:
    """Return a frame (H, W, 3) uint8 as a JPEG file with colours at half the size (4:2:0).

    Videos store colours in this way, too. Full colours (4:4:4) cost a fifth more bytes and a
    quarter more time to decode; in most videos the same bytes gain as much if spent on quality.
    """
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=quality, subsampling="4:2:0", optimize=True)
    return file.getvalue()


def write_shard(shard: Path, parts: Sequence[Path]) -> None:
    """Join parts to a tar with its index; the tar appears when both are whole.

    The index fits the tar once that is renamed, which changes neither its size nor its time.
    """
    partial = shard.with_name(f".{shard.name}.{os.getpid()}.partial")
    try:
        shard.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            for part in parts:
                with part.open("rb") as piece:
                    shutil.copyfileobj(piece, file, 1 << 20)
            file.write(END)
        make_packed_index(partial, packed_index_path(shard))
        partial.replace(shard)
    finally:
        partial.unlink(missing_ok=True)


def fitted(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return height and width in proportion to this short side; nothing is enlarged.

    >>> fitted(240, 426, 256), fitted(1080, 1920, 256), fitted(1921, 1080, 256)
    ((240, 426), (256, 455), (455, 256))
    """
    short = min(height, width)
    if short <= short_side:
        return height, width
    return round(height * short_side / short), round(width * short_side / short)


def even_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return height and width of the H.264 copy: as `fitted`, and even, which 4:2:0 needs.

    A source that is scaled is scaled to even sides. One that is not loses its last row or column
    where a side is odd: nothing is resampled for one pixel.

    >>> even_size(241, 427, 256), even_size(1080, 1920, 256), even_size(1, 5, 256)
    ((240, 426), (256, 456), (2, 4))
    """
    if min(height, width) <= short_side:
        return max(2, height // 2 * 2), max(2, width // 2 * 2)
    tall, wide = fitted(height, width, short_side)
    return (tall + 1) // 2 * 2, (wide + 1) // 2 * 2


def resized(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a frame (H, W, 3) uint8 in the size of its copy, (height, width).

    If each side stays or gets one pixel smaller, the frame is cut; any other change scales it, with
    Pillow's bicubic filter, which smooths before it drops pixels.
    """
    height, width = size
    if frame.shape[0] - height in (0, 1) and frame.shape[1] - width in (0, 1):
        return np.ascontiguousarray(frame[:height, :width])
    image = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def squared_error(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean squared error of two frames (H, W, 3) uint8.

    Raises:
        ValueError: they differ in size.
    """
    if a.shape != b.shape:
        raise ValueError(f"a frame of {a.shape[1]}x{a.shape[0]} became {b.shape[1]}x{b.shape[0]}")
    difference = (a.astype(np.float32) - b).ravel()
    return float(np.dot(difference, difference)) / difference.size


def psnr(mean_squared_error: float) -> float:
    """Return the peak signal-to-noise ratio of 8-bit values in dB, to two digits; inf if equal.

    >>> psnr(65025 / 10**4), psnr(0)
    (40.0, inf)
    """
    if mean_squared_error == 0:
        return float("inf")
    return round(float(10 * np.log10(255**2 / mean_squared_error)), 2)


def _rate(source: str) -> Fraction:
    """Return frames per second."""
    with open_container(source) as container:
        rate = best_stream(container, source).average_rate
    return rate.limit_denominator(1001) if rate and 0.1 < rate < 1000 else FRAME_RATE


def _frames(video: Video) -> Iterator[np.ndarray]:
    """Yield all frames of the copy, by the reader that will serve it."""
    if video.facts.reader == "pyav":
        yield from all_frames(video.file)  # `frames` would start at frame 0 for every part
        return
    for start in range(0, len(video), AT_ONCE):
        yield from video.frames(range(start, min(start + AT_ONCE, len(video))))
