"""Decode whole JPEG files in memory to frames, and refuse damaged ones."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from vidadapt.video.bounds import size_problem
from vidadapt.video.sequential import cause_of

try:
    from torchvision.io import ImageReadMode, decode_jpeg
except ImportError:  # torchvision 0.29 announces that its decoders will be removed
    decode_jpeg = None

END = b"\xff\xd9"  # marker at the end of every JPEG file
_PROGRESSIVE = 0xC2  # kind of the frame's marker
_END = 0xD9  # kind of the marker that ends a picture
_APP2 = 0xE2  # kind of the marker of a segment that lists further pictures (MPF)
_SCAN = 0xDA  # kind of the marker of a scan, whose segment is followed by data
# Ends the data of a scan. It begins with one plain byte, which `re` finds ten times as fast.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# Fewest bits of an 8 x 8 block by the kind of the frame's marker: a Huffman code for its mean and,
# unless the file is progressive, one for the rest. Arithmetic codes may be shorter.
_LEAST_BITS = {0xC0: 2, 0xC1: 2, _PROGRESSIVE: 1}
_GREY = 128  # value that libjpeg gives to pixels whose data is missing
_SOURCE_LINE = re.compile(r"decode_jpeg, \S+:\d+, ")  # torchvision puts it before a cause
_FILLER = np.random.default_rng(0).integers(0, 255, 256, dtype=np.uint8).tobytes()  # no marker


class Header(NamedTuple):
    """Header of a JPEG file: kind of its frame's marker, size in pixels."""

    kind: int
    width: int
    height: int


def decoded_jpeg(data: torch.Tensor) -> np.ndarray:
    """Return the RGB frame (H, W, 3) uint8 of a JPEG file's bytes (N,) uint8.

    torchvision's decoder is the fastest one available: 1.2 to 1.5 times as fast as Pillow's and
    twice as fast as PyAV's. Without it, Pillow decodes, with the same values.

    Both show grey where a file's data is missing. Such a file is refused: by its length, if that
    cannot hold the pixels; else by `_ends_early`, which runs if the last pixel is grey, and on
    progressive files, where finer scans cover the grey.

    Raises:
        ValueError: no JPEG, a damaged one, or one of more pixels than `bounds.MAX_PIXELS`.
    """
    content = data.numpy().tobytes()
    if not content.endswith(END):
        raise ValueError("a JPEG that ends early")
    header = read_header(content)
    if problem := size_problem(header.width, header.height):
        raise ValueError(problem)
    blocks = -(-header.width // 8) * -(-header.height // 8)
    if 8 * len(content) < blocks * _LEAST_BITS.get(header.kind, 0):
        raise ValueError(
            f"a damaged JPEG: {len(content):,} bytes cannot hold the {header.width} x "
            f"{header.height} pixels of its header"
        )
    try:
        if decode_jpeg is None:
            frame = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        else:
            frame = decode_jpeg(data, mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()
        doubtful = header.kind == _PROGRESSIVE or (frame[-1, -1] == _GREY).all()
        damaged = doubtful and _ends_early(content)
    except (RuntimeError, OSError) as error:
        raise ValueError(_SOURCE_LINE.sub("", cause_of(error))) from error
    if damaged:
        raise ValueError("a damaged JPEG: its data ends before its last pixel")
    return frame


def end_of_first(content: bytes) -> int:
    """Number of bytes of the first JPEG in a file; all there are, if its end is missing."""
    return next((at for kind, at in _segments(content) if kind == _END), len(content))


def is_motion(content: bytes) -> bool:
    """Check that a file holds JPEGs one after the other, as a video.

    Phones put further pictures behind the first one, too, and list them in a segment of it.
    """
    for kind, at in _segments(content):
        if kind == _APP2 and content[at + 2 : at + 6] == b"MPF\0":
            return False
        if kind == _END:
            return content[at : at + 3] == b"\xff\xd8\xff"
    return False


def read_header(content: bytes) -> Header:
    """Read the header of a JPEG file.

    The kind of the frame's segment is one from 0xc0 to 0xcf, except 0xc4, 0xc8 and 0xcc.

    Raises:
        ValueError: there is no such segment.
    """
    for kind, place in _segments(content):
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC) and place + 7 <= len(content):
            height, width = (
                int.from_bytes(content[at : at + 2], "big") for at in (place + 3, place + 5)
            )
            return Header(kind, width, height)
    raise ValueError("no JPEG: its header tells no size")


def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield the kind of each segment of the first picture and the offset of its length, up to the
    first invalid one; at last that of the end, which has no length.

    A segment begins with a marker (0xff and a kind) and a length (ITU-T T.81, B.1.1); the data of
    a scan follows its segment.
    """
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        kind = content[place + 1]
        if kind == 0xFF:  # fill bytes may come before a marker
            place += 1
        elif kind == 0x01 or 0xD0 <= kind <= 0xD8:  # markers without a length
            place += 2
        elif kind == _END:
            yield kind, place + 2
            return
        else:
            yield kind, place + 2
            place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
            if kind == _SCAN:
                found = _MARKER.search(content, place)
                place = found.start() if found else len(content)


def _ends_early(content: bytes) -> bool:
    """Check if a decoder reads beyond the data of a scan: more bytes there change the pixels."""
    longer, copied = b"", 0
    for kind, place in _segments(content):
        if kind == _SCAN and (end := _MARKER.search(content, place + 2)):
            data = content[copied : end.start()]
            longer += data.rstrip(b"\xff") + _FILLER  # without fill bytes before the marker
            copied = end.start()
    return not np.array_equal(_small(content), _small(longer + content[copied:]))


def _small(content: bytes) -> np.ndarray:
    """The picture at an eighth of its size: the blocks' means, which are quick to decode."""
    with Image.open(io.BytesIO(content)) as image:
        image.draft("RGB", (1, 1))
        return np.asarray(image.convert("RGB"))
