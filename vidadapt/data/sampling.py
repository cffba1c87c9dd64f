"""Choose the frames of a clip: pure integer arithmetic, no pixels.

Two policies; training and evaluation use the same one:

`dense`: T frames, `stride` apart. A video too short for a clip starts at frame 0 and repeats the
last frame on the stride's grid, (n - 1) // stride * stride.
    Training: the start is uniform over 0..n - T * stride, as in AdaptFormer's loader. Differs from
    it where n - 1 is a multiple of the stride in a video shorter than T * stride: there AdaptFormer
    stops one grid frame earlier, while training and test agree here. Differs from VideoMAE, which
    spreads T points over T * stride frames in training (spacing slightly above the stride), never
    takes the last start, n - T * stride, and of a video that is no longer than a clip takes the
    n // stride points of linspace(0, n, n // stride), at most n - 1, followed by frame n - 1.
    Evaluation: AdaptFormer's and VideoMAE's (Kinetics) test: every stride-th frame of the whole
    video, and K runs of T of them, starting at k / (K - 1) of the slack. K = 1 is the centre run.

`uniform` (TSN): the video is cut into T equal segments, and one frame is taken from each.
    Training: a random point of each segment. Differs from VideoMAE, whose integer segments never
    see the last n mod T frames, and which takes T times frame 0 from a video shorter than T: here
    every frame of any video is expected equally often, and a short video is spread over the clip.
    Evaluation: clip k of K takes the point (2i + 1) / 2 of segment i for K = 1, and the point k / K
    of it otherwise: for K = 2 exactly VideoMAE's SSv2 test clips.

`segments` (V-JEPA 2's frozen evaluation): the video is cut into equal parts, one for each of the
clip's segments; a segment is a window of its part, whose frames are spread over T * stride frames
(slightly more than `stride` apart). Parts shorter than that overlap, and their last frame is
repeated. A model encodes segments one by one and reads them together, so that frames of a later
segment may lie before those of an earlier one.
    Training: the window starts at random in its part. Evaluation: at the beginning of the part, one
    clip for all segments. Both as published, with what is odd in it: the last start of a window and
    the last frame of a short video are never taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

MOST_FPS = 1000


@dataclass(frozen=True)
class Sampling:
    """Rule by which clips are cut from a video in time, and the number of views in evaluation.

    Attributes:
        policy: `dense`, `uniform` or `segments`, see above.
        num_frames: T, frames of one clip, of all its segments together.
        stride: step from one frame of a dense clip or a segment to the next; 1 and unused in
            uniform sampling.
        num_clips: temporal clips at evaluation.
        num_crops: spatial crops of each clip at evaluation.
        segments: of a clip; 1 but for the policy `segments`.
        fps: the rate that every video is taken to have, see `by_time`; None: its own frames.
    """

    policy: Literal["dense", "uniform", "segments"]
    num_frames: int
    stride: int
    num_clips: int
    num_crops: int
    segments: int = 1
    fps: float | None = None

    def __post_init__(self) -> None:
        for name in ("num_frames", "stride", "num_clips", "num_crops", "segments"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.fps is not None and not 0 < self.fps <= MOST_FPS:
            raise ValueError(f"sampling_fps is {self.fps}; give a rate from above 0 to {MOST_FPS}")
        if self.num_frames % self.segments:
            raise ValueError(
                f"num_frames is {self.num_frames}, of all {self.segments} segments of a clip "
                f"together; give a multiple of {self.segments}"
            )
        if self.policy == "segments" and self.num_clips != 1:
            raise ValueError(
                f"num_clips is {self.num_clips}: this sampling reads the {self.segments} segments "
                "of a video together, as one clip; leave it at 1"
            )
        if self.policy == "uniform" and self.stride != 1:
            raise ValueError(
                f"stride {self.stride} has no meaning in uniform sampling (its frames are one per "
                "segment); leave it out, or choose a dense sampling preset"
            )


SAMPLINGS = {
    "image": Sampling("uniform", num_frames=1, stride=1, num_clips=1, num_crops=1),
    "adaptformer": Sampling("dense", num_frames=8, stride=4, num_clips=4, num_crops=3),
    "videomae_dense": Sampling("dense", num_frames=16, stride=4, num_clips=5, num_crops=3),
    "videomae_ssv2": Sampling("uniform", num_frames=16, stride=1, num_clips=2, num_crops=3),
    "vjepa2_ssv2": Sampling(
        "segments", num_frames=32, stride=4, num_clips=1, num_crops=3, segments=2
    ),
    "uniform8": Sampling("uniform", num_frames=8, stride=1, num_clips=2, num_crops=3),
}


def shortest_video(sampling: Sampling) -> int:
    """Return the number of frames below which a clip must repeat some.

    >>> shortest_video(SAMPLINGS["uniform8"]), shortest_video(SAMPLINGS["adaptformer"])
    (8, 29)
    """
    if sampling.policy == "segments":  # parts that are no longer than a window repeat its end
        return sampling.num_frames * sampling.stride + sampling.segments
    return (sampling.num_frames - 1) * sampling.stride + 1


def train_indices(
    sampling: Sampling, num_frames_in_video: int, rng: np.random.Generator
) -> np.ndarray:
    """Frame indices (T,) int64 of one random training clip, never decreasing in a segment.

    >>> rng = np.random.default_rng(0)
    >>> train_indices(SAMPLINGS["adaptformer"], 20, rng).tolist()  # short: no choice of start
    [0, 4, 8, 12, 16, 16, 16, 16]
    >>> train_indices(SAMPLINGS["uniform8"], 4, rng).tolist()  # T = 2 n: two of each frame
    [0, 0, 1, 1, 2, 2, 3, 3]
    >>> train_indices(SAMPLINGS["uniform8"], 8, rng).tolist()
    [0, 1, 2, 3, 4, 5, 6, 7]

    Raises:
        ValueError: a video without frames.
    """
    n, num_frames = _checked_length(num_frames_in_video), sampling.num_frames
    if sampling.policy == "dense":
        last_start = max(n - num_frames * sampling.stride, 0)
        start = int(rng.integers(last_start + 1))
        return _dense(n, start, num_frames, sampling.stride)
    if sampling.policy == "segments":
        slack = n // sampling.segments - num_frames // sampling.segments * sampling.stride
        starts = [int(rng.integers(max(slack, 1))) for _ in range(sampling.segments)]
        return _segments(sampling, n, starts)
    # Segment i covers [i n, (i + 1) n) in units of 1 / T frame; the points of all segments together
    # hit every frame T times, so no frame is favoured, whatever n.
    points = rng.integers(n, size=num_frames)
    return (np.arange(num_frames, dtype=np.int64) * n + points) // num_frames


def eval_indices(sampling: Sampling, num_frames_in_video: int, num_clips: int) -> np.ndarray:
    """Frame indices (num_clips, T) int64 of the evaluation clips; 1 clip is the centre one.

    >>> eval_indices(SAMPLINGS["adaptformer"], 45, 4)[:, 0].tolist()  # starts 0, 1, 2, 4, x stride
    [0, 4, 8, 16]
    >>> eval_indices(SAMPLINGS["adaptformer"], 45, 1).tolist()
    [[8, 12, 16, 20, 24, 28, 32, 36]]
    >>> eval_indices(SAMPLINGS["adaptformer"], 10, 2).tolist()
    [[0, 4, 8, 8, 8, 8, 8, 8], [0, 4, 8, 8, 8, 8, 8, 8]]
    >>> eval_indices(SAMPLINGS["videomae_ssv2"], 24, 2)[0].tolist()
    [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22]
    >>> eval_indices(SAMPLINGS["videomae_ssv2"], 24, 2)[1].tolist()
    [0, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18, 20, 21, 23]
    >>> eval_indices(SAMPLINGS["uniform8"], 32, 1).tolist()
    [[2, 6, 10, 14, 18, 22, 26, 30]]

    Raises:
        ValueError: a video without frames, or no clip asked for.
    """
    n, num_frames = _checked_length(num_frames_in_video), sampling.num_frames
    if num_clips < 1:
        raise ValueError(f"num_clips must be at least 1, not {num_clips}")
    if sampling.policy == "dense":
        on_grid = -(-n // sampling.stride)
        slack = max(on_grid - num_frames, 0)
        starts = [spread(slack, k, num_clips) * sampling.stride for k in range(num_clips)]
        return np.stack([_dense(n, start, num_frames, sampling.stride) for start in starts])
    if sampling.policy == "segments":
        if num_clips != 1:
            raise ValueError(
                f"num_clips is {num_clips}: this sampling reads the {sampling.segments} segments "
                "of a video together, as one clip; leave it at 1"
            )
        return _segments(sampling, n, [0] * sampling.segments)[None]
    segments = np.arange(num_frames, dtype=np.int64)
    if num_clips == 1:
        return ((2 * segments + 1) * n // (2 * num_frames))[None]
    clips = np.arange(num_clips, dtype=np.int64)[:, None]
    return (segments * num_clips + clips) * n // (num_frames * num_clips)


def spread(slack: int, k: int, count: int) -> int:
    """Offset k of `count` offsets from 0 to `slack`, both ends included; one offset is the centre.

    >>> [spread(4, k, 4) for k in range(4)], spread(5, 0, 1)
    ([0, 1, 2, 4], 2)
    """
    return slack // 2 if count == 1 else k * slack // (count - 1)


def _dense(n: int, start: int, num_frames: int, stride: int) -> np.ndarray:
    """T frames from `start`, `stride` apart; past the end, the last one of that grid repeats."""
    last = start + (n - 1 - start) // stride * stride
    return np.minimum(start + stride * np.arange(num_frames, dtype=np.int64), last)


def _checked_length(num_frames_in_video: int) -> int:
    if num_frames_in_video < 1:
        raise ValueError(f"a video of {num_frames_in_video} frames has no clip")
    return int(num_frames_in_video)


def _segments(sampling: Sampling, n: int, starts: Sequence[int]) -> np.ndarray:
    """The windows of all segments, each beginning at its start within its part of the video."""
    count, total = sampling.num_frames // sampling.segments, sampling.segments
    length, part = count * sampling.stride, n // total
    if part > length:
        steps = np.linspace(0, length, count).clip(max=length - 1)
        windows = [
            (start + steps).astype(np.int64) + number * part for number, start in enumerate(starts)
        ]
    else:
        last = min(length, n) - 1
        spread_out = np.linspace(0, last, last // sampling.stride)
        steps = np.concatenate([spread_out, np.full(count - len(spread_out), last)])
        steps = steps.clip(max=max(last - 1, 0)).astype(np.int64)
        between = max(n - length, 0) // max(total - 1, 1)
        windows = [steps + number * between for number in range(total)]
    return np.concatenate(windows)
