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
from vidadapt.video.sequential import ReadError, cause_of

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


def decord_read(path: str, num_frames: int) -> Read | None:
    """Open a file with decord; None: not installed, cannot open it, or counts other frames."""
    decord = load_decord()
    if decord is None:
        return None
    try:
        reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
    except (decord.DECORDError, RuntimeError):
        return None

    def read(wanted: Sequence[int]) -> np.ndarray:
        try:
            return reader.get_batch(list(wanted)).asnumpy()
        except decord.DECORDError as error:
            raise ReadError(f"{path}: decord cannot decode it: {cause_of(error)}") from error

    return read if len(reader) == num_frames else None


def torchcodec_read(path: str, num_frames: int) -> Read | None:
    """Open a file with torchcodec; None: it cannot open it, or counts other frames."""
    torchcodec = load_torchcodec()
    try:
        decoder = torchcodec.VideoDecoder(
            path, seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC"
        )
    except (RuntimeError, ValueError):
        return None

    def read(wanted: Sequence[int]) -> np.ndarray:
        try:
            return decoder.get_frames_at(list(wanted)).data.numpy()
        except RuntimeError as error:
            raise ReadError(f"{path}: torchcodec cannot decode it: {cause_of(error)}") from error

    return read if len(decoder) == num_frames else None


def read_verified(read: Read, checks: np.ndarray, wanted: Sequence[int]) -> Frames | None:
    """Frames at `wanted`; None if one cannot be read, or differs from its checksum.

    Args:
        checks: `array_checksum` of each frame of the video.
    """
    try:
        frames = read(wanted)
    except ReadError:
        return None
    return None if len(frames) < len(wanted) or odd_arrays(frames, checks, wanted) else frames


def entered_anywhere(
    opened: Callable[[], Read | None], checks: np.ndarray, keys: Sequence[int]
) -> bool:
    """Whether a library returns each frame right, in stretches between groups and at random.

    Each stretch or pattern is read as training reads it: by a reader that has read nothing before.

    Args:
        opened: opens the file anew.
        checks: `array_checksum` of each frame, from a sequential decode.
        keys: indices of the frames at which groups of pictures begin.
    """
    count = len(checks)
    chosen = keys[:: max(1, len(keys) // MOST_ENTERED)]
    starts = sorted({0, *chosen})
    stretches = [range(a, b) for a, b in itertools.pairwise([*starts, count])]
    rng = np.random.default_rng(0)
    patterns = [sorted(set(rng.integers(0, count, 8).tolist())) for _ in range(PATTERNS)]
    try:
        for wanted in [*stretches, *patterns, range(count - 1, count)]:
            read = opened()
            for first in range(0, len(wanted), AT_ONCE):
                places = list(wanted[first : first + AT_ONCE])
                if read is None or read_verified(read, checks, places) is None:
                    return False
    except Exception:  # whatever a library raises: PyAV has just decoded the file
        return False
    return True
