"""Checksums of decoded frames: each read is compared with the decode that counted the file."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import av
import numpy as np
import xxhash

from vidadapt.video.orientation import display_matrix


def frame_checksum(frame: Any) -> int:
    """xxh3_64 of the pixels of a decoded frame, and of everything that decides how they are shown.

    It covers the used part of each row of each plane, since padding and alignment differ between
    machines; and the interlaced flag, since FFmpeg converts an interlaced frame field by field.
    """
    name, width, height = frame.format.name, frame.width, frame.height
    about = f"{name} {width}x{height} {frame.colorspace} {frame.color_range} "
    about += f"{frame.interlaced_frame} "
    digest = xxhash.xxh3_64(about.encode() + display_matrix(frame))
    for plane, (rows, used) in zip(frame.planes, row_bytes(name, width, height), strict=True):
        stride = plane.line_size
        if stride < 0:  # bottom-up: PyAV gives its rows only after a change of format
            other = "gbrap16le" if name == "rgba64le" else "rgba64le"
            return frame_checksum(frame.reformat(format=other, threads=1))
        # One item a row: numpy copies them twice as fast as rows of bytes.
        padded = stride not in (0, used)
        part = np.ndarray((rows,), f"V{used}", plane, 0, (stride,)).tobytes() if padded else plane
        digest.update(part)
    return int(digest.intdigest())


def array_checksum(array: np.ndarray) -> int:
    """xxh3_64 of the shape and the bytes of an array, e.g. of a frame (H, W, 3) uint8."""
    digest = xxhash.xxh3_64(str(array.shape).encode())
    digest.update(np.ascontiguousarray(array).data)
    return int(digest.intdigest())


def odd_arrays(
    frames: Sequence[np.ndarray] | np.ndarray, checks: np.ndarray, wanted: Sequence[int]
) -> list[int]:
    """Those of `wanted` whose `array_checksum` differs from the one in `checks` (of all frames)."""
    pairs = zip(wanted, frames, strict=False)  # a stream may end early
    return [place for place, frame in pairs if array_checksum(frame) != checks[place]]


@functools.lru_cache(maxsize=256)
def row_bytes(name: str, width: int, height: int) -> tuple[tuple[int, int], ...]:
    """Rows and used bytes per row, for each plane of a pixel format (FFmpeg's name).

    >>> row_bytes("yuv420p", 5, 3), row_bytes("yuyv422", 5, 3), row_bytes("monow", 9, 1)
    (((3, 5), (2, 3), (2, 3)), ((3, 12),), ((1, 2),))
    """
    form = av.VideoFormat(name, width, height)
    if form.has_palette:
        return (height, width), (1, 1024)  # 256 colours of 4 bytes
    planes = sorted({component.plane for component in form.components})
    if len(planes) == 1:
        together = 1024 // form.chroma_width(1024)  # pixels that share one colour sample
        padded = -(-width // together) * together
        return ((height, -(-padded * form.padded_bits_per_pixel // 8)),)
    rows = []
    for plane in planes:
        parts = [component for component in form.components if component.plane == plane]
        rows.append((parts[0].height, sum((p.bits + 7) // 8 * p.width for p in parts)))
    return tuple(rows)
