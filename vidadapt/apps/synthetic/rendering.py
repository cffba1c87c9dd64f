"""The families of synthetic videos and the renderer of one video.

In `source`, `target` and `composed` a class is a motion; `target` is between and across the
source's motions, `composed` puts them one after the other. The two actions of a mirrored or
time-reversed pair cannot be told apart by a frame of unknown time (see `actions`, also for those
without a partner). `target` and `composed` share no class, shape, object pattern, colour
range or background with `source`. In `appearance` the class is the shape, so one frame suffices.
In `together` two motions of `target` are seen at once, each of an object of its own: a video has
two labels.
Every video is a pure function of (action, family, seed, difficulty).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidadapt.apps.synthetic.actions import (
    COMPOSED_ACTIONS,
    SOURCE_ACTIONS,
    TARGET_ACTIONS,
    Action,
    Track,
    wandering,
)
from vidadapt.apps.synthetic.drawing import BACKGROUNDS, F32, PATTERNS, SHAPES, colour
from vidadapt.apps.synthetic.encoding import Frames

SHORT_SIDES = (72, 80, 88, 96)
ASPECTS = (1.0, 5 / 4, 4 / 3, 4 / 5, 3 / 4)
FRAME_RATES = (12, 15, 24, 25, 30)
NUM_FRAMES = (24, 80)


@dataclass(frozen=True)
class Family:
    """Classes and looks of one kind of video.

    Attributes:
        hues: ranges, in turns of the colour circle.
        at_once: classes of one video.
    """

    actions: Mapping[str, Action]
    shapes: tuple[str, ...]
    patterns: tuple[str, ...]
    backgrounds: tuple[str, ...]
    hues: tuple[tuple[float, float], ...]
    shape_of_action: Mapping[str, str] | None = None
    at_once: int = 1


_APPEARANCE = {
    f"a {shape}": shape
    for shape in ("disc", "square", "triangle", "ring", "cross", "bar", "star", "crescent")
}

_UNSEEN_LOOKS: dict[str, Any] = {
    "shapes": ("star", "hexagon", "crescent", "ell"),
    "patterns": ("spot", "wedge", "quarter"),
    "backgrounds": ("checks", "dots", "waves"),
    "hues": ((0.12, 0.20), (0.45, 0.53), (0.72, 0.92)),
}

FAMILIES: dict[str, Family] = {
    "source": Family(
        SOURCE_ACTIONS,
        shapes=("disc", "square", "triangle", "ring", "cross", "bar"),
        patterns=("halves", "shaded", "tip"),
        backgrounds=("gradient", "clouds", "stripes"),
        hues=((-0.03, 0.10), (0.25, 0.40), (0.55, 0.68)),
    ),
    "target": Family(TARGET_ACTIONS, **_UNSEEN_LOOKS),
    "composed": Family(COMPOSED_ACTIONS, **_UNSEEN_LOOKS),
    "together": Family(TARGET_ACTIONS, **_UNSEEN_LOOKS, at_once=2),
    "appearance": Family(
        dict.fromkeys(_APPEARANCE, wandering),
        shapes=tuple(_APPEARANCE.values()),
        patterns=tuple(PATTERNS),
        backgrounds=tuple(BACKGROUNDS),
        hues=((0.0, 1.0),),
        shape_of_action=_APPEARANCE,
    ),
}


def labels(family: str) -> list[str]:
    """Class names in label order."""
    return list(_family(family).actions)


def classes_at_once(family: str) -> list[tuple[int, ...]]:
    """Return the labels that a video of the family may have, each set once."""
    look = _family(family)
    return list(combinations(range(len(look.actions)), look.at_once))


def _family(name: str) -> Family:
    if name not in FAMILIES:
        raise ValueError(f"family {name!r} is unknown; known: {', '.join(FAMILIES)}")
    return FAMILIES[name]


def render(
    action: str | Sequence[str],
    family: str,
    seed: int | Sequence[int],
    difficulty: float = 0.3,
    *,
    num_frames: int | None = None,
) -> tuple[Frames, int]:
    """Frames (T, H, W, 3) uint8 RGB and frames per second of one video.

    Args:
        action: a class of the family; of `together` two.
        difficulty: from 0 (plain background, steady camera) to 1 (strong texture, up to six
            distractors, camera shake).
        num_frames: paint only this many frames, evenly spaced from first to last; default: all
            24-80.
    Raises:
        ValueError: unknown family or action, another number of them, difficulty outside [0, 1].
    """
    look = _family(family)
    actions = (action,) if isinstance(action, str) else tuple(action)
    for each in actions:
        if each not in look.actions:
            raise ValueError(
                f"family {family!r} has no action {each!r}; it has: {', '.join(look.actions)}"
            )
    if len(actions) != look.at_once:
        raise ValueError(f"family {family!r} shows {look.at_once} actions, got {len(actions)}")
    if not 0 <= difficulty <= 1:
        raise ValueError(f"difficulty must be in [0, 1], got {difficulty}")
    numbers = [list(look.actions).index(each) for each in actions]
    rng = np.random.default_rng([*np.atleast_1d(seed).tolist(), *numbers])

    short, aspect = int(rng.choice(SHORT_SIDES)), float(rng.choice(ASPECTS))
    long = 2 * round(short * max(aspect, 1 / aspect) / 2)
    height, width = (short, long) if aspect >= 1 else (long, short)
    total, fps = int(rng.integers(NUM_FRAMES[0], NUM_FRAMES[1] + 1)), int(rng.choice(FRAME_RATES))
    start, end = rng.uniform(0, 0.12), 1 - rng.uniform(0, 0.12)
    time = np.arange(total) / (total - 1)
    progress = np.clip((time - start) / (end - start), 0, 1)
    actors = [actor for each in actions for actor in look.actions[each](rng, progress)]
    shake = 0.09 * difficulty * _smooth_noise(rng, time)
    chosen = np.arange(total)
    if num_frames is not None:
        chosen = np.linspace(0, total - 1, num_frames).round().astype(int)

    back_hue, canvas = _background(rng, look, height, width, shake[:, chosen], difficulty)
    shape = look.shape_of_action[actions[0]] if look.shape_of_action else None
    radius = rng.uniform(0.28, 0.36)
    distractors = [
        (_resting_track(rng, time, difficulty), rng.uniform(0.08, 0.16))
        for _ in range(int(rng.integers(0, 1 + int(6 * difficulty))))
    ]
    for track, size in [*distractors, *((actor, radius) for actor in actors)]:
        sprite = _sprite(rng, look, back_hue, "card" if track.is_card else shape)
        _paint(canvas, track, sprite, size * short / 2, shake, chosen)
    return canvas, fps


def _smooth_noise(rng: np.random.Generator, time: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, T) sums of three slow sines, of about unit size."""
    rate, phase = rng.uniform(0.5, 3.0, (2, 3, 1)), rng.uniform(0, 2 * np.pi, (2, 3, 1))
    return np.sin(2 * np.pi * rate * time + phase).sum(1) / 2


def _resting_track(rng: np.random.Generator, time: NDArray[np.float64], difficulty: float) -> Track:
    drift = 0.1 * difficulty * _smooth_noise(rng, 0.5 * time)
    x, y, angle = rng.uniform(-1.1, 1.1), rng.uniform(-1.1, 1.1), rng.uniform(0, 6.28)
    return Track(x + drift[0], y + drift[1], angle=angle)


def _hue(rng: np.random.Generator, look: Family) -> float:
    low, high = look.hues[rng.integers(len(look.hues))]
    return float(rng.uniform(low, high))


def _background(
    rng: np.random.Generator,
    look: Family,
    height: int,
    width: int,
    shake: NDArray[np.float64],
    difficulty: float,
) -> tuple[float, Frames]:
    """Hue and canvas (T, H, W, 3): windows of one larger image, moved by half-pixel steps."""
    half = min(height, width) / 2
    margin = 2 + int(np.ceil(half * np.abs(shake).max(initial=0)))
    y = (np.arange(0, height + 2 * margin, 0.5, dtype=np.float32) - margin - height / 2) / half
    x = (np.arange(0, width + 2 * margin, 0.5, dtype=np.float32) - margin - width / 2) / half
    hue = _hue(rng, look)
    value = rng.uniform(0.25, 0.85)
    first = colour(hue, rng.uniform(0.05, 0.3), value)
    contrast = 0.05 + rng.uniform(0.3, 0.7) * difficulty
    second = colour(
        hue + rng.uniform(-0.05, 0.05),
        rng.uniform(0.05, 0.4),
        value + contrast * (1 if value < 0.5 else -1),
    )
    kind = look.backgrounds[rng.integers(len(look.backgrounds))]
    mix = BACKGROUNDS[kind](rng, x[None, :], y[:, None])[..., None]
    image = (first + (second - first) * mix).clip(0, 255).astype(np.uint8)
    canvas = np.empty((shake.shape[1], height, width, 3), np.uint8)
    left, top = np.round(2 * (margin - half * shake)).astype(int)
    for frame, i, j in zip(canvas, top, left, strict=True):
        frame[:] = image[i : i + 2 * height : 2, j : j + 2 * width : 2]
    return hue, canvas


Sprite = tuple[str, str, F32, F32]


def _sprite(rng: np.random.Generator, look: Family, back_hue: float, shape: str | None) -> Sprite:
    """Shape, pattern and two colours, more vivid than any background."""
    shape = shape or look.shapes[rng.integers(len(look.shapes))]
    pattern = look.patterns[rng.integers(len(look.patterns))]
    hue = max(
        (_hue(rng, look) for _ in range(3)), key=lambda h: abs((h - back_hue + 0.5) % 1 - 0.5)
    )
    bright, dark = rng.uniform(0.85, 1.0), rng.uniform(0.2, 0.5)
    pair = [colour(hue, rng.uniform(0.7, 1.0), bright), colour(hue, rng.uniform(0.3, 1.0), dark)]
    first = int(rng.integers(2))
    return shape, pattern, pair[first], pair[1 - first]


def _paint(
    canvas: Frames,
    track: Track,
    sprite: Sprite,
    radius: float,
    shake: NDArray[np.float64],
    chosen: NDArray[np.int64],
) -> None:
    """Blend one object over every frame, in a patch just large enough, at subpixel positions.

    Args:
        canvas: the frames to paint, in place.
        radius: of the object at scale 1, in pixels.
        shake: (2, T) shift of the camera, of all frames of the video.
        chosen: which of them the canvas holds.
    """
    shape, pattern, first, second = sprite
    height, width = canvas.shape[1:3]
    half = min(height, width) / 2
    middle_x, middle_y, scale, angle, opacity, stretch = (
        np.broadcast_to(np.asarray(value, float), shake.shape[1])[chosen]
        for value in (track.x, track.y, track.scale, track.angle, track.opacity, track.stretch)
    )
    size = (radius * scale).astype(np.float32)
    stretch = np.sqrt(stretch).astype(np.float32)[:, None, None]
    cx = width / 2 + half * (middle_x + shake[0, chosen])
    cy = height / 2 + half * (middle_y + shake[1, chosen])
    reach = int(np.ceil((size * np.maximum(stretch, 1 / stretch)[:, 0, 0]).max() * 1.4)) + 2
    left, top = np.floor(cx).astype(int) - reach, np.floor(cy).astype(int) - reach
    grid = np.arange(2 * reach + 1, dtype=np.float32) + 0.5
    px = (grid + (left - cx)[:, None]).astype(np.float32)[:, None, :]
    py = (grid + (top - cy)[:, None]).astype(np.float32)[:, :, None]
    cos, sin = (f(angle).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
    unit = size[:, None, None]
    x, y = (cos * px + sin * py) / (unit * stretch), (cos * py - sin * px) / (unit / stretch)
    alpha = np.clip(0.5 - SHAPES[shape](x, y) * unit, 0, 1)
    alpha = (alpha * opacity.astype(np.float32)[:, None, None])[..., None]
    ink = first + (second - first) * PATTERNS[pattern](x, y)[..., None]
    for k, frame in enumerate(canvas):
        y0, y1 = max(top[k], 0), min(top[k] + grid.size, height)
        x0, x1 = max(left[k], 0), min(left[k] + grid.size, width)
        if y0 >= y1 or x0 >= x1:
            continue
        part = np.s_[y0 - top[k] : y1 - top[k], x0 - left[k] : x1 - left[k]]
        under = frame[y0:y1, x0:x1].astype(np.float32)
        frame[y0:y1, x0:x1] = under + alpha[k][part] * (ink[k][part] - under) + 0.5
