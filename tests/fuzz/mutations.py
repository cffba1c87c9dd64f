"""Damage to bytes, as disks, networks and hands do it, and as somebody does who means harm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data) + 1))]


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bits flipped."""
    changed = bytearray(data)
    for place in rng.integers(len(data), size=int(rng.integers(1, 9))):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def overwritten(data: bytes, rng: np.random.Generator) -> bytes:
    """A stretch replaced: by zeros, as of a lost block, or by noise."""
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 257))
    length = min(length, len(data) - start)
    filler = bytes(length) if rng.integers(2) else rng.bytes(length)
    return data[:start] + filler + data[start + length :]


def cut_out(data: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(data)))
    return data[:start] + data[start + int(rng.integers(1, 65)) :]


def repeated(data: bytes, rng: np.random.Generator) -> bytes:
    """A stretch that stands there twice."""
    start = int(rng.integers(len(data)))
    end = start + int(rng.integers(1, 513))
    return data[:end] + data[start:]


def extreme(data: bytes, rng: np.random.Generator) -> bytes:
    """A number that is as large or as small as can be: a length, a count, an offset."""
    width = int(rng.choice([1, 2, 4]))
    value = int(rng.choice(EDGES)) & ((1 << 8 * width) - 1)
    place = int(rng.integers(max(1, len(data) - width)))
    order = "big" if rng.integers(2) else "little"
    return data[:place] + value.to_bytes(width, order) + data[place + width :]


def extreme_at_start(data: bytes, rng: np.random.Generator) -> bytes:
    """`extreme` among the first bytes, where headers are."""
    return extreme(data[:1024], rng) + data[1024:]


MUTATIONS: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (
    truncated,
    flipped,
    overwritten,
    cut_out,
    repeated,
    extreme,
    extreme_at_start,
)


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Up to three kinds of damage, one after the other; none once in 16 times."""
    for _ in range(int(rng.choice([0, *[1] * 7, *[2] * 4, *[3] * 4]))):
        if data:
            data = MUTATIONS[int(rng.integers(len(MUTATIONS)))](data, rng)
    return data
