"""The record of one video file: what one full decode found in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import av
import numpy as np
import xxhash

ENDS_EARLY = "the file ends early"
NO_CHECKS = np.empty(0, np.uint64)
NO_TIMES = np.empty(0, np.float64)
COUNTED_WITH = f"PyAV {av.__version__}, libavcodec " + ".".join(
    map(str, av.library_versions["libavcodec"])
)


@dataclass(frozen=True)
class VideoFacts:
    """Facts about one video file.

    Attributes:
        path: as in the list; of a file that is in no list, its absolute path.
        requested: the reader that was asked for, key of `READERS`.
        size: in bytes, for a packed video that of its tar; -1: there is no file.
        mtime_ns: modification time in nanoseconds, of the same file.
        num_frames: frames that decode; 0: the file is unreadable.
        header_frames: frames that the header promises, without those that an edit list hides; None:
            it gives no number. Of a Matroska file that ends early, about as many as its bytes had.
        reader: name of the reader that is exact on this file, for `open_counted`.
        codec: of the best video stream, by FFmpeg's name, e.g. `h264`; empty: not known.
        container: FFmpeg's first name of it, e.g. `mov` (mp4, too), `matroska` (webm, too).
        pixel_format: of the first frame, by FFmpeg's name, e.g. `yuv420p`.
        width, height: of the first frame in pixels, as shown: after it is turned; 0: not known.
        rotation: of the first frame's display matrix in degrees, as in the file; it does not show
            that a picture is mirrored. Frames are shown as `orientation` reads the matrix.
        frame_rate: mean frames a second, from the stream's header, or else from the timestamps.
        duration: seconds from the first to the last frame's timestamp, plus one frame; if frames
            lack timestamps, their number divided by the header's rate. None, like the rate, if
            there are neither.
        doubt: why no seeking library (`seekers`) is tried on this file; empty: one may be tried.
        cause: the first error in a file that can be read nevertheless.
        error: why the file cannot be read; empty if it can be.
        counted_with: versions of PyAV and of FFmpeg's decoders.
        checks: (num_frames,) uint64, `frame_checksum` of each frame; for a file that a seeking
            library reads, `array_checksum` of each as it is shown; empty: none were taken.
        times: (num_frames,) float64, seconds from the first frame of the file to each; empty: they
            were not asked for, or are not known.
        first_frame: of a segment (see `segments`), its first frame's index in the file; else 0.
        remark: what its times rest on where frames have no timestamps, and by how much a segment is
            shorter than its name says; empty: nothing.
        holds: False: an error may not be the file's fault, so an index does not keep the facts.
        uneven: how the frames differ, so that each is best decoded after all earlier ones; empty:
            they do not. This and what follows is known after a decode, until a reader is chosen.
        packets: of each frame, the number of the packet that it was decoded from; -1: not known.
        keys: indices of the frames at which groups of pictures begin.
    """

    path: str
    requested: str = ""
    size: int = -1
    mtime_ns: int = 0
    num_frames: int = 0
    header_frames: int | None = None
    reader: str = ""
    codec: str = ""
    container: str = ""
    pixel_format: str = ""
    width: int = 0
    height: int = 0
    rotation: int = 0
    frame_rate: float | None = None
    duration: float | None = None
    doubt: str = ""
    cause: str = ""
    error: str = ""
    counted_with: str = ""
    checks: np.ndarray = field(default_factory=lambda: NO_CHECKS, repr=False, compare=False)
    times: np.ndarray = field(default_factory=lambda: NO_TIMES, repr=False, compare=False)
    first_frame: int = 0
    remark: str = ""
    holds: bool = True
    uneven: str = field(default="", repr=False, compare=False)
    packets: Sequence[int] = field(default=(), repr=False, compare=False)
    keys: Sequence[int] = field(default=(), repr=False, compare=False)

    @property
    def digest(self) -> int:
        """XXH3 of the checks; 0: there are none."""
        return xxhash.xxh3_64_intdigest(self.checks.tobytes()) if len(self.checks) else 0

    @property
    def truncated(self) -> str:
        """How much the video lacks, in words; empty if it is whole."""
        line = cut_short(self.path, self.header_frames, self.num_frames)
        if line and self.cause.startswith(ENDS_EARLY):
            return f"{self.path}: {self.cause}; {self.num_frames} frames decode"
        return line


def cut_short(path: str, promised: int | None, decoded: int) -> str:
    """Say how many frames a truncated video lacks; empty if it is whole.

    It is truncated if its header promises at least two frames more than decode. One is tolerated:
    every HMDB51 AVI with packed B-frames promises one too many.

    >>> cut_short("a.avi", 90, 50), cut_short("a.avi", 90, 89), cut_short("a.webm", None, 3)
    ('a.avi: the header promises 90 frames, 50 decode', '', '')
    """
    if not decoded or promised is None or promised <= decoded + 1:
        return ""
    return f"{path}: the header promises {promised} frames, {decoded} decode"
