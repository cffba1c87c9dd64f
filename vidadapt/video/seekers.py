"""Libraries that seek: decord, and torchcodec where it is installed."""

from __future__ import annotations

import functools
import importlib
import itertools
import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType

import numpy as np

from vidadapt.video.checksums import odd_arrays
from vidadapt.video.sequential import cause_of

AT_ONCE = 8  # frames in memory, however long the video is
MOST_ENTERED = 32  # groups of pictures; of more, evenly spaced ones: 32 to 63
PATTERNS = 4

Frames = Sequence[np.ndarray] | np.ndarray
Read = Callable[[Sequence[int]], Frames]


@functools.cache
def load_decord() -> ModuleType | None:
    """Import decord when it is first needed; None and one warning if it cannot be loaded."""
    try:
        module = importlib.import_module("decord")
    except (ImportError, OSError) as error:
        if multiprocessing.parent_process() is None:  # loader workers would repeat the notice
            warnings.warn(f"decord cannot be loaded ({error}): PyAV reads all videos", stacklevel=2)
        return None
    module.logging.set_level(module.logging.QUIET)
    return module


@functools.cache
def load_torchcodec() -> ModuleType:
    try:
        return importlib.import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError) as error:
        raise ImportError(
            f"data.reader torchcodec cannot be loaded ({cause_of(error)}): "
            "pip install 'vidadapt[torchcodec]' and install FFmpeg 4 to 9 on the system, "
            "or use data.reader auto"
        ) from error


def _open_decord(path: str) -> tuple[int, Read]:
    """Open a file with decord; return its number of frames and what reads them."""
    decord = load_decord()
    if decord is None:
        raise ImportError("decord")
    reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
    return len(reader), lambda wanted: reader.get_batch(list(wanted)).asnumpy()


def _open_torchcodec(path: str) -> tuple[int, Read]:
    """Open a file with torchcodec; return its number of frames and what reads them."""
    decoder = load_torchcodec().VideoDecoder(
        path, seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC"
    )
    return len(decoder), lambda wanted: decoder.get_frames_at(list(wanted)).data.numpy()


SEEKERS: dict[str, Callable[[str], tuple[int, Read]]] = {
    "decord": _open_decord,
    "torchcodec": _open_torchcodec,
}


def open_seeking(name: str, path: str, num_frames: int, is_part: bool = False) -> Read | None:
    """Open a file with a library; None: it is missing, cannot open it, or counts other frames.

    Args:
        is_part: the file has `num_frames` frames or more.
    """
    try:
        count, read = SEEKERS[name](path)
    except Exception:  # whatever a library raises: PyAV has decoded the file
        return None
    return read if count == num_frames or (is_part and count > num_frames) else None


def read_verified(read: Read, checks: np.ndarray, wanted: Sequence[int]) -> Frames | None:
    """Read the frames at `wanted`; None if one cannot be read, or differs from its checksum.

    Args:
        checks: `array_checksum` of each frame of the video.
    """
    try:
        frames = read(wanted)
    except Exception:  # whatever a library raises
        return None
    return None if len(frames) < len(wanted) or odd_arrays(frames, checks, wanted) else frames


def entered_anywhere(name: str, path: str, checks: np.ndarray, keys: Sequence[int]) -> bool:
    """Check that a library returns each frame right, in stretches between groups and at random.

    Each stretch or pattern is read as training reads it: by a reader that has read nothing before.

    Args:
        name: key of `SEEKERS`.
        checks: `array_checksum` of each frame, from a sequential decode.
        keys: indices of the frames at which groups of pictures begin.
    """
    count = len(checks)
    chosen = keys[:: max(1, len(keys) // MOST_ENTERED)]
    starts = sorted({0, *chosen})
    stretches = [range(a, b) for a, b in itertools.pairwise([*starts, count])]
    rng = np.random.default_rng(0)
    patterns = [sorted(set(rng.integers(0, count, 8).tolist())) for _ in range(PATTERNS)]
    for wanted in [*stretches, *patterns, range(count - 1, count)]:
        read = open_seeking(name, path, count)
        for first in range(0, len(wanted), AT_ONCE):
            places = list(wanted[first : first + AT_ONCE])
            if read is None or read_verified(read, checks, places) is None:
                return False
    return True
