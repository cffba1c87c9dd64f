"""The frames of a clip in its file, by number or by time (`data.sampling_fps`).

By time, a video is taken as one of `Sampling.fps` frames a second, whatever its own rate, and
whether that is constant: its frame k is the one that is shown k / fps seconds after the first. All
policies of `sampling` then choose among these.
"""

from __future__ import annotations

import math

import numpy as np

from vidadapt.data.sampling import Sampling, eval_indices, train_indices
from vidadapt.lists import Videos, listing
from vidadapt.video import MAX_FRAMES, ROUNDING, ReadError, VideoFacts


def shown_frames(times: np.ndarray, fps: float) -> np.ndarray:
    """Index (M,) int64 of the frame that is shown at each time k / fps of a video, M at least 1.

    That is the last frame whose timestamp is not later than that by more than `video.ROUNDING`. The
    last frame of a video is shown as long as the mean.

    Args:
        times: (N,) seconds of the frames, never decreasing.

    >>> shown_frames(np.array([0, 0.04, 0.08, 0.12]), 50).tolist()
    [0, 0, 1, 1, 2, 2, 3, 3]
    >>> shown_frames(np.array([5, 5.033, 5.067, 5.1, 6]), 10).tolist()  # at 5.8 still that of 5.1
    [0, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4]
    """
    passed, late = times - times[0], float(ROUNDING)
    length = float(passed[-1]) * len(passed) / max(len(passed) - 1, 1)
    grid = np.arange(max(1, math.ceil((length - late) * fps))) / fps
    return np.searchsorted(passed, grid + late, side="right") - 1


def train_frames(sampling: Sampling, facts: VideoFacts, rng: np.random.Generator) -> np.ndarray:
    """Frame indices (T,) int64 of one random training clip, see `sampling.train_indices`."""
    if sampling.fps is None:
        return train_indices(sampling, facts.num_frames, rng)
    shown = shown_frames(facts.times, sampling.fps)
    return shown[train_indices(sampling, len(shown), rng)]


def clip_frames(sampling: Sampling, facts: VideoFacts, num_clips: int) -> np.ndarray:
    """Frame indices (num_clips, T) int64 of evaluation clips, see `sampling.eval_indices`."""
    if sampling.fps is None:
        return eval_indices(sampling, facts.num_frames, num_clips)
    shown = shown_frames(facts.times, sampling.fps)
    return shown[eval_indices(sampling, len(shown), num_clips)]


def lengths(videos: Videos, sampling: Sampling) -> np.ndarray:
    """Frames (N,) int64 that each video has for a clip; 0: unreadable."""
    counts = videos.column("num_frames")
    if sampling.fps is None:
        return counts
    for place in np.flatnonzero(counts).tolist():
        counts[place] = len(shown_frames(videos.facts(place).times, sampling.fps))
    return counts


def refuse_untimed(videos: Videos, sampling: Sampling) -> None:
    """Refuse videos whose frames have no times, or impossible ones, if clips are taken by time.

    Raises:
        ReadError: with the first of them.
    """
    if sampling.fps is None:
        return
    most = MAX_FRAMES / sampling.fps
    untimed = []
    for place in np.flatnonzero(videos.column("num_frames")).tolist():
        times = videos.facts(place).times
        if not len(times) or not times[-1] - times[0] <= most:
            untimed.append(videos.file(place))
    if untimed:
        title = f"data.sampling_fps: it is not known when frames of {len(untimed)} videos are shown"
        why = f"(packed frames never tell, and nothing lasts {most:,.0f} s); leave it out"
        raise ReadError(listing(f"{title} {why}", untimed))
