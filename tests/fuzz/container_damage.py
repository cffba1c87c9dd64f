"""Damage to the bytes of a file where its container's tables and packets are, which leaves most of
it decodable.

Each function of `DAMAGES` gets a file's ending, its bytes and a generator, and returns other bytes,
or None where the file has nothing of the kind.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from mutations import mutated
from seed_videos import seeds

TRANSPORT = 188  # bytes of a packet of an MPEG transport stream
FOLDERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf"}
TABLES = (
    *(b"stts", b"ctts", b"stss", b"stsz", b"stsc", b"stco", b"elst", b"mdhd", b"mvhd", b"tkhd"),
    *(b"trun", b"tfdt", b"tfhd", b"hdlr", b"stsd"),
)


class Box(NamedTuple):
    """A box of mp4 and mov: its name, where it begins, and where its content does and ends."""

    name: bytes
    start: int
    content: int
    end: int


def boxes(data: bytes, start: int = 0, end: int | None = None) -> list[Box]:
    """All boxes, the ones within others after them."""
    found, end = [], len(data) if end is None else end
    while start + 8 <= end:
        size, content = int.from_bytes(data[start : start + 4], "big"), start + 8
        if size == 1:
            size, content = int.from_bytes(data[content : content + 8], "big"), start + 16
        stop = start + size if size else end
        if stop < content or stop > end:
            break
        found.append(Box(data[start + 4 : start + 8], start, content, stop))
        if found[-1].name in FOLDERS:
            found += boxes(data, content, stop)
        start = stop
    return found


def tables(ending: str, data: bytes, rng: np.random.Generator) -> bytes | None:
    """A number in a table of mp4 and mov, replaced by one that is near, or by another there."""
    held = [box for box in boxes(data) if box.name in TABLES and box.end - box.content >= 12]
    if not held:
        return None
    for _ in range(int(rng.integers(1, 3))):
        box = held[int(rng.integers(len(held)))]
        places = range(box.content + 4, box.end - 3, 4)
        place, other = (places[int(rng.integers(len(places)))] for _ in range(2))
        (value,) = struct.unpack(">I", data[place : place + 4])
        ways = (value + 1, value - 1, value + int(rng.integers(-9, 10)), 2 * value, 0)
        way = int(rng.integers(len(ways) + 1))
        new = data[other : other + 4] if way == len(ways) else _unsigned(ways[way])
        data = data[:place] + new + data[place + 4 :]
    return data


def _unsigned(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4, "big")


def edits(ending: str, data: bytes, rng: np.random.Generator) -> bytes | None:
    """An edit list of mp4 and mov: what it hides, where it begins, in one part or several."""
    held = boxes(data)
    tables_of = {box.name: box for box in held}
    if not {b"moov", b"tkhd", b"stts", b"mvhd", b"mdhd"} <= tables_of.keys():
        return None
    after = [box for box in held if box.start > tables_of[b"moov"].start and box.name == b"mdat"]
    if after:  # which would move
        return None
    ticks = {
        name: int.from_bytes(data[box.content + 12 : box.content + 16], "big")
        for name, box in tables_of.items()
        if name in (b"mdhd", b"mvhd")
    }
    entries = b""
    count = int(rng.choice([1, 1, 1, 2, 3]))
    for _ in range(count):
        begin = float(rng.choice([0, 0.04, 0.1, 0.24, 0.3, 0.5])) + float(rng.choice([0, 0, 0.013]))
        length = float(rng.choice([0.1, 0.3, 0.5, 5]))
        media = -1 if rng.integers(8) == 0 else int(begin * ticks[b"mdhd"])
        entries += struct.pack(">IiI", int(length * ticks[b"mvhd"]), media, 1 << 16)
    content = bytes(4) + count.to_bytes(4, "big") + entries
    elst = struct.pack(">I4s", 8 + len(content), b"elst") + content
    edts = struct.pack(">I4s", 8 + len(elst), b"edts") + elst
    trak = next(b for b in held if b.name == b"trak" and b.end > tables_of[b"stts"].start)
    old = next((b for b in held if b.name == b"edts" and trak.start < b.start < trak.end), None)
    tkhd = next(b for b in held if b.name == b"tkhd" and b.start > trak.start)
    begin, end = (old.start, old.end) if old else (tkhd.end, tkhd.end)
    longer = len(edts) - (end - begin)
    data = data[:begin] + edts + data[end:]
    for box in (tables_of[b"moov"], trak):
        size = _unsigned(box.end - box.start + longer)
        data = data[: box.start] + size + data[box.start + 4 :]
    return data


def transport(ending: str, data: bytes, rng: np.random.Generator) -> bytes | None:
    """Packets of a transport stream: lost, twice, exchanged, or with another continuity counter."""
    if ending != "ts":
        return None
    parts = [data[i : i + TRANSPORT] for i in range(0, len(data), TRANSPORT)]
    for _ in range(int(rng.integers(1, 4))):
        place, way = int(rng.integers(3, len(parts))), int(rng.integers(4))
        if way == 0:
            del parts[place]
        elif way == 1:
            parts.insert(place, parts[place])
        elif way == 2:
            parts[place - 1 : place + 1] = parts[place], parts[place - 1]
        else:
            part = parts[place]
            parts[place] = part[:3] + bytes([part[3] ^ 1 << int(rng.integers(8))]) + part[4:]
        if len(parts) < 5:
            break
    return b"".join(parts)


def appended(ending: str, data: bytes, rng: np.random.Generator) -> bytes | None:
    """Another file behind this one, as `cat` joins them."""
    if ending not in ("ts", "mpg", "flv", "mkv", "webm", "avi", "ogg", "oggtheora", "gif"):
        return None
    others = [seed.data for seed in seeds() if seed.ending == ending]
    other = others[int(rng.integers(len(others)))]
    cut = int(rng.choice([0, 0, len(other) // 3 // TRANSPORT * TRANSPORT]))
    return data + other[cut:]


def anything(ending: str, data: bytes, rng: np.random.Generator) -> bytes | None:
    """Damage that knows nothing of files, see `mutations`."""
    return mutated(data, rng)


DAMAGES: dict[str, Callable[[str, bytes, np.random.Generator], bytes | None]] = {
    "tables": tables,
    "edit list": edits,
    "transport": transport,
    "appended": appended,
    "bytes": anything,
}
