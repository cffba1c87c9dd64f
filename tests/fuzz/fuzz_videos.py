"""Damaged videos: the frames of a sequential decode of the same file, or an error."""

from __future__ import annotations

import functools
import tempfile
from collections import Counter
from pathlib import Path

import av
import numpy as np
from encoded import X264, numbered, write
from fuzz_attempts import Defect, Job, judged
from mutations import mutated

from vidadapt.data.readers import ReadError, TransientReadError, open_counted, open_video

SHARED = Path(__file__).parents[3] / "shared" / "clips"
LARGEST = 150_000  # bytes of a shared clip that is used: decoded four times for one input
READERS = ("auto", "decord", "pyav", "pyav_sparse")
# Codec, ending and options of the generated ones.
GENERATED = (
    ("libx264", "mp4", {"x264-params": X264}),
    ("libx264", "mkv", {"x264-params": X264}),
    ("libx264", "ts", {}),
    ("libx264", "flv", {"x264-params": X264}),
    ("libx265", "mp4", {"x265-params": "log-level=none:keyint=6"}),
    ("libvpx-vp9", "webm", {"g": "6"}),
    ("libvpx", "webm", {}),
    ("mpeg4", "avi", {"bf": "2"}),
    ("mpeg4", "mp4", {"bf": "2"}),
    ("mpeg2video", "mpg", {}),
)
MAX_PIXELS, MAX_FRAMES = 1 << 26, 1 << 21  # above which a file is refused, as `bounds` says


@functools.cache
def seeds() -> tuple[tuple[str, bytes], ...]:
    """Ending and content of whole videos."""
    with tempfile.TemporaryDirectory() as folder:
        made = [
            (ending, write(Path(folder) / f"v.{ending}", codec, options, numbered(14)).read_bytes())
            for codec, ending, options in GENERATED
        ]
    kinds = (".mp4", ".webm", ".avi", ".mkv", ".mov", ".3gp", ".oggtheora")
    shared = [
        (path.suffix[1:], path.read_bytes())
        for path in sorted(SHARED.rglob("*"))
        if path.suffix in kinds and path.stat().st_size <= LARGEST
    ]
    return (*made, *shared)


def check_video(job: Job, scratch: Path, outcomes: Counter[str]) -> None:
    rng = job.rng()
    ending, data = seeds()[int(rng.integers(len(seeds())))]
    file = scratch / f"video.{ending}"
    file.write_bytes(mutated(data, rng))
    expected = slow_decode(file)
    reader = READERS[int(rng.integers(len(READERS)))]
    errors = (ReadError, TransientReadError)

    def read() -> tuple[int, str, list[int], np.ndarray]:
        with open_video(file, reader) as video:
            wanted = [0, len(video) - 1, *rng.integers(len(video), size=4).tolist()]
            return len(video), video.reader, wanted, video.frames(wanted)

    outcome, found = judged(read, errors, str(file))
    if found is None:
        if expected:
            raise Defect(f"{reader}: an error, where {len(expected)} frames decode")
        outcomes[outcome] += 1
        return
    count, served, wanted, frames = found
    compare(f"{reader} ({served})", expected, count, wanted, frames)
    # As a training does, which knows the count.
    with open_counted(file, served, count) as video:
        few = wanted[2:4]
        compare(f"{served}, counted", expected, count, few, video.frames(few))
    outcomes[outcome] += 1


def compare(
    who: str, expected: list[np.ndarray], count: int, wanted: list[int], frames: np.ndarray
) -> None:
    if count != len(expected):
        raise Defect(f"{who}: {count} frames, where {len(expected)} decode")
    for index, frame in zip(wanted, frames, strict=True):
        if not np.array_equal(frame, expected[index]):
            raise Defect(f"{who}: frame {index} of {count} is not that of a sequential decode")


def slow_decode(path: Path) -> list[np.ndarray]:
    """All frames of the best stream, packet by packet, as plainly as can be; none for no video."""
    frames: list[np.ndarray] = []
    size = None
    options = {"max_pixels": str(MAX_PIXELS)}
    try:
        with av.open(str(path), options=options) as container:
            stream = container.streams.best("video")
            if stream is None or stream.codec_context is None or stream.frames > MAX_FRAMES:
                return []
            stream.codec_context.thread_count = 1
            stream.codec_context.options = options
            packets = container.demux(stream)
            over = False
            while not over:
                try:
                    packet = next(packets)
                    if packet.size == 0:
                        continue
                except IndexError:  # PyAV, at a stream that comes up late: another one's packet
                    packets = container.demux(stream)
                    continue
                except (StopIteration, av.FFmpegError):
                    packet, over = None, True
                try:
                    decoded = stream.codec_context.decode(packet)
                except av.FFmpegError:
                    continue
                for frame in decoded:
                    size = size or (frame.width, frame.height)
                    whole = frame.reformat(*size, format="rgb24").to_ndarray()
                    turns = {-270: 1, -180: 2, -90: 3, 90: 1, 180: 2, 270: 3}.get(frame.rotation, 0)
                    frames.append(np.rot90(whole, turns))
    except (av.FFmpegError, OSError, ValueError):
        pass
    return frames
