"""Transcode one video to H.264 with a short group of pictures, from which a few frames are read
fast: a decoder starts at the key frame before each.

The options, each measured on 2 to 16 frames of 240-line videos through our readers: no B-frames
(a third faster), x264's `fastdecode` (CAVLC and no deblocking: half the time), and a key frame
every 4 frames (of 1, 2, 4 and 8 no other is faster by more than a fifth at any number of frames;
with 1 and 2 the files are half as large again).
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
from av.video.stream import VideoStream

from vidadapt.apps.prepare.copies import (
    CopyJob,
    Outcome,
    below_floor,
    failed,
    fitted,
    measured,
    of_truncated,
    scaled_frames,
    squared_error,
)
from vidadapt.video import (
    ReadError,
    Video,
    all_frames,
    best_stream,
    open_container,
    open_video,
    promised_frames,
    read_sequentially,
)

AT_ONCE = 32  # frames of the copy that are compared at a time
FRAME_RATE = Fraction(25)  # where the source gives none, or an absurd one


def even_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width of the H.264 copy: as `fitted`, and even, which 4:2:0 needs.

    A source that is scaled is scaled to even sides. One that is not loses its last row or column
    where a side is odd: nothing is resampled for one pixel.

    >>> even_size(241, 427, 256), even_size(1080, 1920, 256), even_size(1, 5, 256)
    ((240, 426), (256, 456), (2, 4))
    """
    if min(height, width) <= short_side:
        return max(2, height // 2 * 2), max(2, width // 2 * 2)
    tall, wide = fitted(height, width, short_side)
    return (tall + 1) // 2 * 2, (wide + 1) // 2 * 2


def transcode_video(job: CopyJob) -> Outcome:
    """Encode a video, decode the copy again and compare; no file is left of a copy that fails.

    The copy is written under a partial name and renamed after the comparison.
    """
    try:
        with contextlib.ExitStack() as cleanup:
            job.target.parent.mkdir(parents=True, exist_ok=True)
            cleanup.callback(job.partial.unlink, missing_ok=True)
            facts = os.stat(job.source)  # noqa: PTH116
            promised = promised_frames(job.source)
            job.partial.write_bytes(_encoded(job))
            with open_video(job.partial) as video:
                errors, size = _errors(job, video)
                count = replace(video.facts, path=job.name)
            copy = measured(job, job.name, facts, errors, size)
            if problem := below_floor(job, copy.worst_psnr):
                return Outcome(None, None, problem)
            notes = of_truncated(job.source, promised, copy.frames) + _of_cut(job, size)
            job.partial.replace(job.target)
            return Outcome(copy, count, notes=notes)
    except Exception as error:
        return failed(job, error)


def _of_cut(job: CopyJob, size: tuple[int, int]) -> tuple[tuple[str, str], ...]:
    """The note on a copy that was cut to even sides; none if it was not."""
    height, width, _ = read_sequentially(job.source, [0])[0].shape
    if min(height, width) > job.short_side or (height, width) == size:
        return ()
    line = f"{job.source}: {width}x{height} became {size[1]}x{size[0]}"
    return (("last row or column left out, since H.264's sides are even", line),)


def _encoded(job: CopyJob) -> bytes:
    """Return the copy's bytes. In memory, since FFmpeg does not always report a full disk."""

    def size(height: int, width: int) -> tuple[int, int]:
        return even_size(height, width, job.short_side)

    options = {
        "crf": str(job.quality),
        "preset": "medium",
        "tune": "fastdecode",
        "g": str(job.gop),
        "bf": "0",
        "sc_threshold": "0",  # no other key frames: a stretch of them would be large
        "mbtree": "0",  # with it the bytes differ from call to call
    }
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream: VideoStream | None = None
        for frame in scaled_frames(job.source, size):
            if stream is None:
                added = container.add_stream("libx264", rate=_rate(job.source), options=options)
                stream = added
                stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], "yuv420p"
                stream.codec_context.thread_count = 1  # the same bytes on every machine
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        assert stream is not None  # without a frame there was a ReadError
        container.mux(stream.encode())
    return file.getvalue()


def _rate(source: str) -> Fraction:
    with open_container(source) as container:
        rate = best_stream(container, source).average_rate
    return rate.limit_denominator(1001) if rate and 0.1 < rate < 1000 else FRAME_RATE


def _errors(job: CopyJob, video: Video) -> tuple[list[float], tuple[int, int]]:
    """Mean squared error of each frame of the copy, and its height and width.

    Raises:
        ReadError: the copy has another number of frames than its source.
    """

    def size(height: int, width: int) -> tuple[int, int]:
        return even_size(height, width, job.short_side)

    errors: list[float] = []
    shape = (0, 0)
    copied = _frames(video)
    for source in scaled_frames(job.source, size):
        frame = next(copied, None)
        if frame is None:
            break
        errors.append(squared_error(source, frame))
        shape = frame.shape[:2]
    else:
        if next(copied, None) is None and errors:
            return errors, shape
    raise ReadError(f"{job.source}: its copy has another number of frames")


def _frames(video: Video) -> Iterator[np.ndarray]:
    """Yield all frames of the copy, by the reader that will serve it."""
    if video.facts.reader == "pyav":
        yield from all_frames(video.file)  # `frames` would start at frame 0 for every part
        return
    for start in range(0, len(video), AT_ONCE):
        yield from video.frames(range(start, min(start + AT_ONCE, len(video))))
