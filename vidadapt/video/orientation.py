"""Orientation of frames: the display matrix of phones and editors, as `ffmpeg` applies it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from av.sidedata.sidedata import SideDataContainer


def display_matrix(frame: Any) -> bytes:
    """The display matrix of a decoded frame, nine int32; empty where it has none."""
    # `frame.side_data` would keep the frame until the next garbage collection: that costs memory,
    # and changes damaged parts of later frames, which show what their memory held before.
    try:
        held = SideDataContainer(frame)  # type: ignore[call-arg]  # its stub has no arguments
    except ValueError:  # data of a kind unknown to PyAV, as in a photograph: use its rotation
        return _turned(frame.rotation)
    return next((bytes(data) for data in held if data.type.name == "DISPLAYMATRIX"), b"")


def _turned(degrees: int) -> bytes:
    """Display matrix of a turn to the left by `degrees`; empty for 0.

    >>> [upright(np.frombuffer(_turned(by), np.int32).tolist()) for by in (90, 180, -90)]
    [(False, 1), (False, 2), (False, 3)]
    """
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    turn = np.array([cosine, -sine, 0, sine, cosine, 0, 0, 0, 1 << 14]) * (1 << 16)
    return turn.round().astype(np.int32).tobytes() if degrees else b""


def orientation(frame: Any) -> tuple[bool, int]:
    """Return `upright` of a decoded frame."""
    matrix = display_matrix(frame)
    return upright(np.frombuffer(matrix, np.int32).tolist()) if matrix else (False, 0)


def shown_size(frame: Any) -> tuple[int, int]:
    """Width and height in pixels of a decoded frame as it is shown upright."""
    _, turns = orientation(frame)
    return (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)


def upright(matrix: Sequence[int]) -> tuple[bool, int]:
    """Tell if a picture is mirrored left to right, and how many quarters it is then turned left.

    The result is that of `ffmpeg` for angles that are, to the nearest degree, multiples of 90
    degrees. At other angles, and for a matrix that flattens the picture, nothing is applied.

    Args:
        matrix: nine numbers m, with x' = m[0] x + m[3] y and y' = m[1] x + m[4] y.

    >>> upright([0, 1, 0, -1, 0, 0, 0, 0, 1])  # a quarter to the right
    (False, 3)
    >>> upright([-1, 0, 0, 0, 1, 0, 0, 0, 1]), upright([1, 0, 0, 0, -1, 0, 0, 0, 1])
    ((True, 0), (True, 2))
    >>> upright([0, 1, 0, 1, 0, 0, 0, 0, 1]), upright([1, 1, 0, -1, 1, 0, 0, 0, 1])
    ((True, 1), (False, 0))
    """
    a, b, _, c, d = matrix[:5]
    across, down = math.hypot(a, c), math.hypot(b, d)
    if not across or not down:
        return False, 0
    angle = round(math.degrees(math.atan2(b / down, a / across))) % 360
    if angle % 90:
        return False, 0
    mirrored = {0: d < 0, 90: c > 0, 180: d > 0, 270: c < 0}[angle]
    return mirrored, (-angle // 90 + 2 * mirrored) % 4
