"""Damage to images: to bytes, to the parts that they are made of, and to sizes in headers.

Each function of `DAMAGES` gets an image's bytes, those of another image and a generator, and
returns other bytes, or None where the image has nothing of the kind.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

import mutations
import numpy as np

PNG = b"\x89PNG\r\n\x1a\n"
SIDES = (0, 1, 7, 63, 1000, 8192, 8193, 16383, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}


class Part(NamedTuple):
    """A chunk or segment: where it begins, where what it holds does, where that and all ends."""

    start: int
    content: int
    stop: int
    end: int


def parts(data: bytes) -> list[Part]:
    """Chunks of PNG and WebP, segments of JPEG; none of other kinds, or up to the first wrong."""
    if data.startswith(PNG):
        return _chunks(data, len(PNG), ">I", 4, 1)
    if data[:4] == b"RIFF":
        return _chunks(data, 12, "<I", 0, 2)
    return _segments(data) if data.startswith(b"\xff\xd8") else []


def _chunks(data: bytes, place: int, form: str, behind: int, even: int) -> list[Part]:
    found = []
    while place + 8 <= len(data):
        # A PNG's length comes before its chunk's name, a WebP's behind it.
        (length,) = struct.unpack_from(form, data, place + (0 if behind else 4))
        end = place + 8 + length + behind + (length % even if even == 2 else 0)
        if end > len(data):
            break
        found.append(Part(place, place + 8, place + 8 + length, end))
        place = end
    return found


def _segments(data: bytes) -> list[Part]:
    found, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        stop = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        end = stop
        if data[place + 1] == 0xDA:  # with the data of the scan
            while end + 1 < len(data) and not (data[end] == 0xFF and _ends_scan(data[end + 1])):
                end += 1
        if end > len(data):
            break
        found.append(Part(place, place + 4, stop, end))
        place = end
    return found


def _ends_scan(kind: int) -> bool:
    return kind not in (0, 0xFF) and not 0xD0 <= kind <= 0xD7


def mended(data: bytes) -> bytes:
    """The checksums of a PNG and the length of a WebP made right again, so that more is read."""
    if data.startswith(PNG):
        for part in _chunks(data, len(PNG), ">I", 4, 1):
            check = zlib.crc32(data[part.start + 4 : part.stop])
            data = data[: part.stop] + check.to_bytes(4, "big") + data[part.end :]
    elif data[:4] == b"RIFF":
        data = data[:4] + struct.pack("<I", (len(data) - 8) & 0xFFFFFFFF) + data[8:]
    return data


def surgery(data: bytes, other: bytes, rng: np.random.Generator) -> bytes | None:
    """A part lost, twice, exchanged with the next one, or taken from another image."""
    mine, theirs = parts(data), parts(other)
    if len(mine) < 2:
        return None
    place = int(rng.integers(len(mine)))
    pieces = [data[part.start : part.end] for part in mine]
    before, after = data[: mine[0].start], data[mine[-1].end :]
    way = int(rng.integers(4))
    if way == 0:
        del pieces[place]
    elif way == 1:
        pieces.insert(int(rng.integers(len(pieces))), pieces[place])
    elif way == 2:
        pieces[place - 1], pieces[place] = pieces[place], pieces[place - 1]
    else:
        part = theirs[int(rng.integers(len(theirs)))] if theirs else mine[place]
        pieces.insert(place, (other if theirs else data)[part.start : part.end])
    return mended(before + b"".join(pieces) + after)


def within(data: bytes, other: bytes, rng: np.random.Generator) -> bytes | None:
    """Damage to what a part holds, in the right form otherwise."""
    held = [part for part in parts(data) if part.stop > part.content]
    if not held:
        return None
    part = held[int(rng.integers(len(held)))]
    content = mutations.flipped(data[part.content : part.stop], rng)
    if rng.integers(2):
        content = mutations.extreme(data[part.content : part.stop], rng)[: len(content)]
    return mended(data[: part.content] + content + data[part.stop :])


def lengths(data: bytes, other: bytes, rng: np.random.Generator) -> bytes | None:
    """The length of a part, wrong by a little or much."""
    held = parts(data)
    if not held:
        return None
    part = held[int(rng.integers(len(held)))]
    form, at = (">I", part.start) if data.startswith(PNG) else ("<I", part.start + 4)
    if data.startswith(b"\xff\xd8"):
        form, at = ">H", part.start + 2
    (value,) = struct.unpack_from(form, data, at)
    most = 0xFFFF if form == ">H" else 0xFFFFFFFF
    new = (value + int(rng.integers(-9, 10)), 0, 2 * value, most)[int(rng.integers(4))] & most
    changed = data[:at] + struct.pack(form, new) + data[at + struct.calcsize(form) :]
    return changed if rng.integers(2) else mended(changed)


def tags(data: bytes, other: bytes, rng: np.random.Generator) -> bytes | None:
    """A number of a TIFF's table of tags: replaced by one near it, an extreme or another's."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return None
    (table,) = struct.unpack_from(f"{order}I", data, 4)
    if table + 2 > len(data):
        return None
    (count,) = struct.unpack_from(f"{order}H", data, table)
    count = min(count, (len(data) - table - 2) // 12)
    if not count:
        return None
    for _ in range(int(rng.integers(1, 3))):
        at = table + 2 + 12 * int(rng.integers(count))
        tag, form, number, value = struct.unpack_from(f"{order}HHII", data, at)
        short = form == 3 and number == 1
        if short:
            (value,) = struct.unpack_from(f"{order}H", data, at + 8)
        edge = int(rng.choice(mutations.EDGES))
        ways = (value + 1, value - 1, 2 * value, 0, edge, value + int(rng.integers(-99, 99)))
        way = int(rng.integers(len(ways) + 3))
        if way < len(ways):
            new = ways[way] & (0xFFFF if short else 0xFFFFFFFF)
            put = struct.pack(*((f"{order}HH", new, 0) if short else (f"{order}I", new)))
            data = data[: at + 8] + put + data[at + 12 :]
        elif way == len(ways):
            data = data[: at + 4] + struct.pack(f"{order}I", edge) + data[at + 8 :]
        elif way == len(ways) + 1:
            kind = int(rng.integers(20))
            data = data[: at + 2] + struct.pack(f"{order}H", kind) + data[at + 4 :]
        else:
            near = (tag + int(rng.integers(-3, 4))) & 0xFFFF
            data = data[:at] + struct.pack(f"{order}H", near) + data[at + 2 :]
    return data


def bomb(data: bytes, other: bytes, rng: np.random.Generator) -> bytes | None:
    """A header that promises another size than the data has: huge, none, or a little more."""
    width, height = (int(rng.choice(SIDES)) for _ in range(2))
    if rng.integers(3) == 0:
        width, height = 44 + int(rng.integers(-3, 40)), 35 + int(rng.integers(-3, 40))
    if data.startswith(PNG):
        return mended(data[:16] + struct.pack(">II", width, height) + data[24:])
    if data[:2] == b"BM" and len(data) > 26:
        return data[:18] + struct.pack("<II", width, height) + data[26:]
    if data.startswith(b"\xff\xd8"):
        for part in parts(data):
            if 0xC0 <= data[part.start + 1] <= 0xC2:
                at, size = part.content + 1, (height & 0xFFFF, width & 0xFFFF)
                return data[:at] + struct.pack(">HH", *size) + data[at + 4 :]
    if data[:4] == b"RIFF":
        chunk, size = data[12:16], struct.pack("<HH", width & 0x3FFF, height & 0x3FFF)
        if chunk == b"VP8X":  # the canvas; the picture in it keeps its size
            sides = (side & 0xFFFFFF for side in (width, height))
            return data[:24] + b"".join(s.to_bytes(3, "little") for s in sides) + data[30:]
        if chunk == b"VP8 ":
            return data[:26] + size + data[30:]
        bits = (width & 0x3FFF) | (height & 0x3FFF) << 14 | data[24] >> 4 << 28
        return data[:21] + bits.to_bytes(4, "little") + data[25:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return None
    (table,) = struct.unpack_from(f"{order}I", data, 4)
    for at in range(table + 2, len(data) - 11, 12):
        (tag,) = struct.unpack_from(f"{order}H", data, at)
        if tag in (256, 257):
            put = struct.pack(f"{order}HHII", tag, 4, 1, (width, height)[tag - 256])
            data = data[:at] + put + data[at + 12 :]
    return data


def spliced(data: bytes, other: bytes, rng: np.random.Generator) -> bytes | None:
    """The beginning of one image and the rest of another."""
    cut = int(rng.choice([4, 8, 12, 26, 54, 200]))
    return data[:cut] + other[cut if rng.integers(2) else 0 :]


def behind(data: bytes, other: bytes, rng: np.random.Generator) -> bytes | None:
    """Another image, or noise, behind this one; or an end that is gone, and filled with zeros."""
    way = int(rng.integers(3))
    if way == 2:
        cut = int(rng.integers(len(data)))
        return data[:cut] + bytes(len(data) - cut)
    return data + (other if way else rng.bytes(int(rng.integers(1, 200))))


def truncated(data: bytes, other: bytes, rng: np.random.Generator) -> bytes | None:
    """A file that ends early, often by a little."""
    cut = int(rng.integers(1, 40)) if rng.integers(2) else int(rng.integers(len(data)))
    return data[: max(0, len(data) - cut)]


def anything(data: bytes, other: bytes, rng: np.random.Generator) -> bytes | None:
    """Damage that knows nothing of files, see `mutations`."""
    return mutations.mutated(data, rng)


DAMAGES: dict[str, Callable[[bytes, bytes, np.random.Generator], bytes | None]] = {
    "surgery": surgery,
    "within": within,
    "lengths": lengths,
    "tags": tags,
    "bomb": bomb,
    "spliced": spliced,
    "behind": behind,
    "truncated": truncated,
    "bytes": anything,
}
