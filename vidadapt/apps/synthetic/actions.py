"""Actions in a synthetic video: each action is a function from progress to object tracks.

Units: the origin is the centre of the frame, x to the right, y down, and the short side of the
frame spans -1 to 1. Progress `u` is a (T,) array rising from 0 to 1 while the action lasts.
Most actions come in time-reversed or mirrored pairs: a frame of unknown time cannot tell the two of
a pair apart. With a known time it can: an object that moves right starts further left. The source
actions without a partner are dropping, passing, chasing, pushing, trembling, blinking and resting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LIMIT = 0.6  # how far along its line a moving object may get from the middle


@dataclass(frozen=True)
class Track:
    """One object through time; every number is (T,) or constant.

    Attributes:
        scale: of the object's radius.
        angle: in radians.
        stretch: ratio of its two sides.
        is_card: a large card that hides things.
    """

    x: Array | float
    y: Array | float
    scale: Array | float = 1.0
    angle: Array | float = 0.0
    opacity: Array | float = 1.0
    stretch: Array | float = 1.0
    is_card: bool = False


Action = Callable[[np.random.Generator, Array], list[Track]]


def _phase(u: Array, start: float, end: float) -> Array:
    """Progress within the part [start, end] of the action.

    >>> _phase(np.array([0.0, 0.25, 0.5, 1.0]), 0.0, 0.5).tolist()
    [0.0, 0.5, 1.0, 1.0]
    """
    return np.clip((u - start) / (end - start), 0.0, 1.0)


def _there_and_back(u: Array, turn: float) -> Array:
    return np.minimum(_phase(u, 0.0, turn), 1.0 - _phase(u, turn, 1.0))


def _unit(degrees: float) -> tuple[float, float]:
    """Direction on the screen: 0 is right, 90 is up."""
    radians = np.deg2rad(degrees)
    return float(np.cos(radians)), float(-np.sin(radians))


def _on_line(degrees: float, along: Array, across: float) -> tuple[Array, Array]:
    """Positions on a straight line, `across` beside the centre of the frame."""
    dx, dy = _unit(degrees)
    return along * dx - across * dy, along * dy + across * dx


def _stroll(
    rng: np.random.Generator,
    progress: Array,
    degrees: float,
    length: tuple[float, float] = (0.65, 1.1),
) -> tuple[Array, Array]:
    """Positions on a random straight line in one direction; `progress` (T,) says how far along."""
    half = rng.uniform(*length) / 2
    along = rng.uniform(-1, 1) * max(LIMIT - half, 0.0)
    across = rng.uniform(-0.45, 0.45)
    return _on_line(degrees, along + half * (2 * progress - 1), across)


def _spot(rng: np.random.Generator, reach: float = 0.35) -> tuple[float, float]:
    return rng.uniform(-reach, reach), rng.uniform(-reach, reach)


def _turned(rng: np.random.Generator) -> float:
    return rng.uniform(0, 2 * np.pi)


# --- one event -----------------------------------------------------------------------------------


def _moving(degrees: float, rng: np.random.Generator, u: Array) -> list[Track]:
    x, y = _stroll(rng, u, degrees + rng.uniform(-8, 8))
    return [Track(x, y, angle=_turned(rng))]


def _resizing(sign: int, rng: np.random.Generator, u: Array) -> list[Track]:
    ratio = rng.uniform(1.9, 2.8)
    x, y = _spot(rng)
    middle = rng.uniform(0.8, 1.0)
    return [Track(x, y, middle * ratio ** (sign * (u - 0.5)), _turned(rng))]


def _turning(sign: int, rng: np.random.Generator, u: Array) -> list[Track]:
    x, y = _spot(rng)
    sweep = np.deg2rad(rng.uniform(120, 260))
    return [Track(x, y, rng.uniform(1.1, 1.5), _turned(rng) + sign * sweep * u)]


def _gap(inward: bool, rng: np.random.Generator, u: Array) -> list[Track]:
    dx, dy = _unit(rng.uniform(0, 360))
    x, y = _spot(rng, 0.15)
    far, near = rng.uniform(0.55, 0.68), rng.uniform(0.24, 0.28)
    s = far + (near - far) * (u if inward else 1 - u)
    return [Track(x + sign * s * dx, y + sign * s * dy, 0.9, _turned(rng)) for sign in (-1, 1)]


def _hidden(rng: np.random.Generator, hidden: Array) -> list[Track]:
    """An object at rest and a card in front of it; `hidden` (T,) is 1 where the card covers it."""
    x, y = _spot(rng, 0.3)
    dx, dy = _unit(rng.uniform(0, 360))
    away = rng.uniform(0.75, 0.95) * (1 - hidden)
    thing = Track(x, y, 0.85, _turned(rng))
    card = Track(x + away * dx, y + away * dy, 1.35, rng.uniform(-0.2, 0.2), is_card=True)
    return [thing, card]


def _covering(covers: bool, rng: np.random.Generator, u: Array) -> list[Track]:
    return _hidden(rng, u if covers else 1 - u)


def _dropping(rng: np.random.Generator, u: Array) -> list[Track]:
    """One object falls under gravity and bounces twice."""
    fall = 1 - (u / 0.4) ** 2
    bounce = 0.45 * (1 - ((u - 0.6) / 0.2) ** 2)
    second = 0.15 * (1 - ((u - 0.9) / 0.1) ** 2)
    height = np.where(u < 0.4, fall, np.where(u < 0.8, bounce, second))
    floor = rng.uniform(0.3, 0.7)
    x = rng.uniform(-0.5, 0.5)
    return [Track(x, floor - rng.uniform(0.8, 1.1) * height, angle=_turned(rng))]


def _fading(appears: bool, rng: np.random.Generator, u: Array) -> list[Track]:
    x, y = _spot(rng)
    return [Track(x, y, rng.uniform(0.9, 1.4), _turned(rng), u if appears else 1 - u)]


def _stretching(sign: int, rng: np.random.Generator, u: Array) -> list[Track]:
    x, y = _spot(rng)
    stretch = rng.uniform(2.0, 2.8) ** (sign * (u - 0.5))
    return [Track(x, y, rng.uniform(1.0, 1.3), rng.integers(4) * np.pi / 2, stretch=stretch)]


def _passing(rng: np.random.Generator, u: Array) -> list[Track]:
    """Two objects pass each other on parallel lines."""
    degrees = rng.uniform(0, 360)
    half, side = rng.uniform(0.45, 0.65), rng.uniform(0.22, 0.3)
    x, y = _on_line(degrees, half * (2 * u - 1), side)
    return [Track(sign * x, sign * y, 0.85, _turned(rng)) for sign in (-1, 1)]


def _chasing(rng: np.random.Generator, u: Array) -> list[Track]:
    """One object follows another along one line."""
    degrees = rng.uniform(0, 360)
    lead, half, across = rng.uniform(0.45, 0.55), rng.uniform(0.35, 0.5), rng.uniform(-0.3, 0.3)
    places = [half * (2 * u - 1) + offset for offset in (-lead / 2, lead / 2)]
    return [Track(*_on_line(degrees, s, across), 0.8, _turned(rng)) for s in places]


def _pushing(rng: np.random.Generator, u: Array) -> list[Track]:
    """One object runs into another, which moves on while the first stays."""
    degrees = rng.uniform(0, 360)
    across, run = rng.uniform(-0.3, 0.3), rng.uniform(0.55, 0.7)
    first = -0.15 - run * (1 - _phase(u, 0.0, 0.5))
    second = 0.3 + run * 0.7 * _phase(u, 0.5, 1.0)
    return [Track(*_on_line(degrees, s, across), 0.85, _turned(rng)) for s in (first, second)]


def _trembling(rng: np.random.Generator, u: Array) -> list[Track]:
    x, y = _spot(rng)
    wave = 0.16 * np.sin(2 * np.pi * rng.uniform(4, 7) * u + _turned(rng))
    dx, dy = _unit(rng.uniform(0, 360))
    return [Track(x + wave * dx, y + wave * dy, 1.1, _turned(rng))]


def _blinking(rng: np.random.Generator, u: Array) -> list[Track]:
    x, y = _spot(rng)
    lit = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * rng.uniform(2, 4) * u + _turned(rng)))
    return [Track(x, y, 1.1, _turned(rng), 0.15 + 0.85 * lit)]


def _resting(rng: np.random.Generator, u: Array) -> list[Track]:
    x, y = _spot(rng, 0.55)
    return [Track(x, y, rng.uniform(0.8, 1.4), _turned(rng))]


# --- near the source, but never part of it: between its directions, and two events at once ------


def _turn_and_resize(turn: int, growth: int, rng: np.random.Generator, u: Array) -> list[Track]:
    ratio = rng.uniform(1.9, 2.8)
    x, y = _spot(rng)
    size = rng.uniform(0.8, 1.0) * ratio ** (growth * (u - 0.5))
    sweep = np.deg2rad(rng.uniform(120, 260))
    return [Track(x, y, size, _turned(rng) + turn * sweep * u)]


# --- events put together in time: never part of the source ---------------------------------


def _returning(degrees: float, rng: np.random.Generator, u: Array) -> list[Track]:
    progress = _there_and_back(u, rng.uniform(0.45, 0.55))
    x, y = _stroll(rng, progress, degrees + rng.uniform(-8, 8))
    return [Track(x, y, angle=_turned(rng))]


def _breathing(sign: int, rng: np.random.Generator, u: Array) -> list[Track]:
    x, y = _spot(rng)
    ratio = rng.uniform(1.9, 2.8)
    size = ratio ** (sign * (_there_and_back(u, rng.uniform(0.45, 0.55)) - 0.5))
    return [Track(x, y, rng.uniform(0.8, 1.0) * size, _turned(rng))]


def _turn_and_move(turn_first: bool, rng: np.random.Generator, u: Array) -> list[Track]:
    switch = rng.uniform(0.45, 0.55)
    early, late = _phase(u, 0.0, switch), _phase(u, switch, 1.0)
    turn, move = (early, late) if turn_first else (late, early)
    x, y = _stroll(rng, move, rng.uniform(0, 360))
    sweep = rng.choice((-1, 1)) * np.deg2rad(rng.uniform(120, 220))
    return [Track(x, y, 1.15, _turned(rng) + sweep * turn)]


def _changing_speed(faster: bool, rng: np.random.Generator, u: Array) -> list[Track]:
    power = rng.uniform(2.3, 3.2)
    progress = u**power if faster else 1 - (1 - u) ** power
    x, y = _stroll(rng, progress, rng.uniform(0, 360), (0.85, 1.15))
    return [Track(x, y, angle=_turned(rng))]


def _circling(sign: int, rng: np.random.Generator, u: Array) -> list[Track]:
    x, y = _spot(rng, 0.2)
    radius = rng.uniform(0.35, 0.5)
    phase = _turned(rng) + sign * np.deg2rad(rng.uniform(230, 360)) * u
    return [Track(x + radius * np.cos(phase), y + radius * np.sin(phase), angle=_turned(rng))]


def _hiding(cover_first: bool, rng: np.random.Generator, u: Array) -> list[Track]:
    return _covering(cover_first, rng, _there_and_back(u, rng.uniform(0.45, 0.55)))


SOURCE_ACTIONS: dict[str, Action] = {
    "moving something right": partial(_moving, 0),
    "moving something up and right": partial(_moving, 45),
    "moving something up": partial(_moving, 90),
    "moving something up and left": partial(_moving, 135),
    "moving something left": partial(_moving, 180),
    "moving something down and left": partial(_moving, 225),
    "moving something down": partial(_moving, 270),
    "moving something down and right": partial(_moving, 315),
    "something approaching": partial(_resizing, 1),
    "something receding": partial(_resizing, -1),
    "turning something clockwise": partial(_turning, 1),
    "turning something counter-clockwise": partial(_turning, -1),
    "two things coming together": partial(_gap, True),
    "two things moving apart": partial(_gap, False),
    "covering something": partial(_covering, True),
    "uncovering something": partial(_covering, False),
    "dropping something so that it bounces": _dropping,
    "something appearing": partial(_fading, True),
    "something vanishing": partial(_fading, False),
    "stretching something": partial(_stretching, 1),
    "squeezing something": partial(_stretching, -1),
    "two things passing each other": _passing,
    "something chasing something": _chasing,
    "something pushing something": _pushing,
    "something trembling": _trembling,
    "something blinking": _blinking,
    "something at rest": _resting,
}

TARGET_ACTIONS: dict[str, Action] = {
    "moving something right, slightly up": partial(_moving, 22.5),
    "moving something up, slightly right": partial(_moving, 67.5),
    "moving something up, slightly left": partial(_moving, 112.5),
    "moving something left, slightly up": partial(_moving, 157.5),
    "moving something left, slightly down": partial(_moving, 202.5),
    "moving something down, slightly left": partial(_moving, 247.5),
    "moving something down, slightly right": partial(_moving, 292.5),
    "moving something right, slightly down": partial(_moving, 337.5),
    "something approaching while it turns clockwise": partial(_turn_and_resize, 1, 1),
    "something receding while it turns clockwise": partial(_turn_and_resize, 1, -1),
    "something approaching while it turns counter-clockwise": partial(_turn_and_resize, -1, 1),
    "something receding while it turns counter-clockwise": partial(_turn_and_resize, -1, -1),
}

COMPOSED_ACTIONS: dict[str, Action] = {
    "moving something right and back": partial(_returning, 0),
    "moving something left and back": partial(_returning, 180),
    "moving something up and back": partial(_returning, 90),
    "moving something down and back": partial(_returning, 270),
    "something approaching, then receding": partial(_breathing, 1),
    "something receding, then approaching": partial(_breathing, -1),
    "turning something, then moving it": partial(_turn_and_move, True),
    "moving something, then turning it": partial(_turn_and_move, False),
    "moving something faster and faster": partial(_changing_speed, True),
    "moving something slower and slower": partial(_changing_speed, False),
    "something circling clockwise": partial(_circling, 1),
    "something circling counter-clockwise": partial(_circling, -1),
    "covering something, then uncovering it": partial(_hiding, True),
    "uncovering something, then covering it": partial(_hiding, False),
}


def wandering(rng: np.random.Generator, u: Array) -> list[Track]:
    """A short move in a random direction, for classes told apart by appearance alone."""
    x, y = _stroll(rng, u, rng.uniform(0, 360), (0.1, 0.6))
    return [Track(x, y, rng.uniform(1.0, 1.6), _turned(rng) + rng.uniform(-0.6, 0.6) * u)]
