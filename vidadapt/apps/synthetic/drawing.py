"""Shapes, patterns and backgrounds of synthetic videos, drawn with signed distance functions.

A shape maps points (x, y) in its own frame, in units of its radius, to a signed distance (negative
inside). A pattern maps the same points to a mix in [0, 1] of two colours. A background maps pixel
coordinates in units of half the short side to such a mix.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Shape = Callable[[F32, F32], NDArray[Any]]
Field = Callable[[F32, F32], NDArray[Any]]


def _box(x: F32, y: F32, half_x: float, half_y: float) -> NDArray[Any]:
    return np.maximum(np.abs(x) - half_x, np.abs(y) - half_y)


def _triangle(x: F32, y: F32) -> NDArray[Any]:
    return np.maximum(y - 0.5, 0.866 * np.abs(x) - 0.5 * y - 0.5)


def _star(x: F32, y: F32) -> NDArray[Any]:
    return 0.7 * (np.hypot(x, y) - 0.7 - 0.3 * np.cos(5 * np.arctan2(y, x)))


def _hexagon(x: F32, y: F32) -> NDArray[Any]:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(y, 0.866 * x + 0.5 * y) - 0.8


def _crescent(x: F32, y: F32) -> NDArray[Any]:
    return np.maximum(np.hypot(x, y) - 0.95, 0.65 - np.hypot(x - 0.5, y))


def _ell(x: F32, y: F32) -> NDArray[Any]:
    return np.minimum(_box(x + 0.45, y, 0.3, 0.9), _box(x, y - 0.6, 0.75, 0.3))


SHAPES: dict[str, Shape] = {
    "disc": lambda x, y: np.hypot(x, y) - 0.9,
    "square": lambda x, y: _box(x, y, 0.75, 0.75),
    "triangle": _triangle,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.65) - 0.28,
    "cross": lambda x, y: np.minimum(_box(x, y, 0.95, 0.32), _box(x, y, 0.32, 0.95)),
    "bar": lambda x, y: _box(x, y, 1.0, 0.42),
    "star": _star,
    "hexagon": _hexagon,
    "crescent": _crescent,
    "ell": _ell,
    "card": lambda x, y: _box(x, y, 0.95, 0.95),
}


def _soft_step(value: NDArray[Any]) -> F32:
    return np.clip(value * 4 + 0.5, 0, 1).astype(np.float32)


# None of these looks the same after a half turn, so that turning shows on every shape.
PATTERNS: dict[str, Field] = {
    "halves": lambda x, y: _soft_step(x),
    "shaded": lambda x, y: np.clip(0.5 + 0.6 * x, 0, 1),
    "tip": lambda x, y: _soft_step(x - 0.35),
    "spot": lambda x, y: _soft_step(0.35 - np.hypot(x - 0.45, y)),
    "wedge": lambda x, y: _soft_step(x - np.abs(y)),
    "quarter": lambda x, y: _soft_step(np.minimum(x, y)),
}


def gradient(rng: np.random.Generator, x: F32, y: F32) -> F32:
    angle = rng.uniform(0, 2 * np.pi)
    return (0.5 + 0.4 * (np.cos(angle) * x + np.sin(angle) * y)).clip(0, 1).astype(np.float32)


def clouds(rng: np.random.Generator, x: F32, y: F32) -> F32:
    """Smooth value noise: a coarse random grid, interpolated."""
    cells = int(rng.integers(4, 12))
    grid = rng.uniform(0, 1, (cells, cells))

    def weights(n: int) -> NDArray[np.float64]:
        position = np.linspace(0, cells - 1, n)[:, None]
        return np.clip(1 - np.abs(position - np.arange(cells)), 0, 1)

    return (weights(y.shape[0]) @ grid @ weights(x.shape[1]).T).astype(np.float32)


def _rotated(rng: np.random.Generator, x: F32, y: F32, low: float, high: float) -> tuple[F32, F32]:
    angle, scale = rng.uniform(0, 2 * np.pi), rng.uniform(low, high)
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return (c * x + s * y).astype(np.float32), (c * y - s * x).astype(np.float32)


def stripes(rng: np.random.Generator, x: F32, y: F32) -> NDArray[Any]:
    a, _ = _rotated(rng, x, y, 6, 14)
    return 0.5 + 0.5 * np.sin(a)


def checks(rng: np.random.Generator, x: F32, y: F32) -> NDArray[Any]:
    a, b = _rotated(rng, x, y, 5, 10)
    return np.clip(0.5 + 2 * np.sin(a) * np.sin(b), 0, 1)


def dots(rng: np.random.Generator, x: F32, y: F32) -> NDArray[Any]:
    a, b = _rotated(rng, x, y, 5, 10)
    return np.clip(1.5 * (np.cos(a) + np.cos(b)) - 0.8, 0, 1)


def waves(rng: np.random.Generator, x: F32, y: F32) -> NDArray[Any]:
    a, b = _rotated(rng, x, y, 6, 11)
    return 0.5 + 0.5 * np.sin(a + 1.5 * np.sin(0.7 * b))


BACKGROUNDS: dict[str, Callable[[np.random.Generator, F32, F32], NDArray[Any]]] = {
    draw.__name__: draw for draw in (gradient, clouds, stripes, checks, dots, waves)
}


def colour(hue: float, saturation: float, value: float) -> F32:
    """RGB in [0, 255] as float32 (3,); hue in turns."""
    return (255 * np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))).astype(np.float32)
