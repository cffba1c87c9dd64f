"""Encode videos, many at a time; the same frames give the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar, cast

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from vidadapt.console import track
from vidadapt.data import cores
from vidadapt.files import replaced
from vidadapt.processes import end_with_parent

Frames = NDArray[np.uint8]
Item = TypeVar("Item")

# By suffix. libx264's macroblock tree is off: with it, the bytes of the same frames differ from
# call to call where a side is no multiple of 16.
CODECS: dict[str, tuple[str, dict[str, str]]] = {
    ".mp4": ("libx264", {"crf": "23", "preset": "veryfast", "g": "12", "mbtree": "0"}),
    ".webm": ("libvpx-vp9", {"crf": "30", "b": "0", "deadline": "realtime", "cpu-used": "8"}),
    ".avi": ("mpeg4", {"qmin": "3", "qmax": "5"}),
}


def write_video(path: str | Path, frames: Frames, fps: int) -> None:
    """Encode frames (T, H, W, 3) uint8; the suffix chooses container and codec.

    Raises:
        ValueError: unknown suffix, odd frame size.
    """
    path = Path(path)
    if path.suffix not in CODECS:
        raise ValueError(f"{path}: cannot write {path.suffix!r}; choose one of {', '.join(CODECS)}")
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"{path}: frame sides must be even, got {height} x {width}")
    codec, options = CODECS[path.suffix]
    encode(path, frames, fps, codec, options, {"fflags": "+bitexact"})


def encode(
    path: Path,
    frames: Frames,
    fps: int,
    codec: str,
    options: Mapping[str, str],
    container_options: Mapping[str, str] | None = None,
) -> None:
    """Encode frames (T, H, W, 3) uint8 as yuv420p, by options of FFmpeg."""
    with (
        replaced(path) as partial,
        av.open(str(partial), "w", options=dict(container_options or {})) as container,
    ):
        stream = cast("VideoStream", container.add_stream(codec, rate=fps, options=dict(options)))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        # The same bytes on every machine, and no idle threads.
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def in_processes(
    work: Callable[[Item], Any],
    items: Sequence[Item],
    *,
    label: str,
    num_processes: int | None = None,
    progress: bool = True,
) -> None:
    """Call `work` on every item, in so many processes; default: one per processor."""
    spawn = get_context("spawn")
    workers = cores() if num_processes is None else num_processes
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=end_with_parent) as pool:
        done = pool.map(work, items, chunksize=4)
        for _ in track(done, total=len(items), label=label, unit="videos", shown=progress):
            pass
