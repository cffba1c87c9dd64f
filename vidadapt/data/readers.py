"""READERS: a video file becomes exact frames, whatever its container, codec and state.

Contract: the frame returned for index i is bit-identical to the i-th frame of a full sequential
decode of the container's best video stream, whatever was read before, and the length is the number
of frames that such a decode yields.

A sequential decode with PyAV from frame 0 always holds that. `pyav_sparse` leaves out what the
wanted frames do not need, after that was seen to change none of them on this very file (`sparse`).
decord and torchcodec seek, which holds the contract only where every key frame starts a closed
group of pictures. Where the reader asked for does not hold it the file is read sequentially by
PyAV, and `Video.reader` says so. What was seen to break a seeking reader, and what is looked for
therefore:

* AVI, MPEG-TS, FLV, mpeg4 (packed B-frames, no timestamps): frames are off by 1 to 5 after a seek;
* open groups of pictures (HEVC's default, x264's open-gop) and intra refresh: frames shift;
* timestamps that disagree with the decoder's order: torchcodec swaps frames;
* joined files, whose packets bring parameters that the header lacks: wrong pixels after a seek;
* damaged packets: an error, or another concealment than in a sequential decode;
* interlaced video, 10 bit and deeper: colours are converted otherwise than by PyAV;
* narrow frames (some widths up to 72): wrong shapes;
* AV1, Theora, files without a duration: decord cannot open them.
"""

from __future__ import annotations

import functools
import operator
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from vidadapt.data import packed, sparse
from vidadapt.data.seekers import (
    Read,
    decord_read,
    load_decord,
    load_torchcodec,
    torchcodec_read,
)
from vidadapt.data.sequential import ReadError, TransientReadError, cause_of, read_sequentially
from vidadapt.data.survey import Survey, counted, header_facts

__all__ = [
    "READERS",
    "ReadError",
    "TransientReadError",
    "Video",
    "check_reader",
    "open_counted",
    "open_video",
]


class Video:
    """One open video file; a context manager. `READERS` makes these, `open_video` and
    `open_counted` are the entries.

    Attributes:
        path: the file.
        reader: name of the reader that serves it, e.g. `pyav` where decord was asked for but its
            contract does not hold.
        codec: codec of the stream that is read, e.g. `h264`; empty from `open_counted`.
        header_frames: number of frames that the header promises, or None; less those that an edit
            list hides once the frames have been counted.
        transient: an error met while counting that need not be the file's fault; empty: none.
        survey: all that is known of the file, see `Survey`.
    """

    def __init__(
        self,
        path: str,
        reader: str,
        survey: Survey,
        read: Read,
    ) -> None:
        self.path = path
        self.reader = reader
        self.codec = survey.codec
        self.header_frames = survey.header_frames
        self.transient = survey.transient
        self.survey = survey
        self._num_frames = survey.num_frames
        self._read: Read | None = read

    def __len__(self) -> int:
        """Number of frames that decode; counts them (one decode) where it is not yet known.

        Raises:
            ReadError: no frame decodes.
        """
        if self._num_frames is None:
            facts = self.survey = counted(self.path)
            self._num_frames = facts.num_frames
            self.header_frames, self.transient = facts.header_frames, facts.transient
        assert self._num_frames is not None
        return self._num_frames

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Frames at `indices` (any order, repeats allowed) as uint8 (T, H, W, 3), RGB.

        The rotation of the metadata is applied. In a file whose frames change size all are scaled
        to the size of the first.

        Raises:
            IndexError: an index is negative or not below the number of frames, or there is none.
            ReadError: the frames cannot be decoded.
        """
        if self._read is None:
            raise ValueError(f"{self.path}: the video is closed")
        wanted = [operator.index(i) for i in indices]
        if not wanted:
            raise IndexError(f"{self.path}: no frame index was given")
        low, high = min(wanted), max(wanted)
        if low < 0:
            raise IndexError(f"{self.path}: frame {low}; indices start at 0")
        if self._num_frames is not None and high >= self._num_frames:
            raise IndexError(f"{self.path}: frame {high} of a video of {self._num_frames} frames")
        distinct = sorted(set(wanted))
        found = self._read(distinct)
        if len(found) < len(distinct):
            if self._num_frames is None:
                raise IndexError(
                    f"{self.path}: frame {high} of a video of {len(self)} frames"  # may decode
                )
            raise ReadError(
                f"{self.path}: frame {distinct[len(found)]} does not decode although the video "
                f"was counted as {self._num_frames} frames; has the file changed? "
                "Delete its frame-count index"
            )
        if isinstance(found, np.ndarray) and wanted == distinct:
            return found
        place = {index: i for i, index in enumerate(distinct)}
        return np.stack([found[place[i]] for i in wanted])

    def close(self) -> None:
        """Free the decoder; `frames` raises ValueError from now on."""
        self._read = None

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_video(path: str | os.PathLike[str], reader: str = "auto") -> Video:
    """Open a video file for exact reading.

    decord and torchcodec decode it once, to learn whether they may seek in it and can read its ends
    and its middle; `pyav_sparse` decodes it about twice, see `sparse.flaw`; `auto` does what they
    do. Else, or where they cannot, PyAV serves it.

    Args:
        path: a regular file; names may begin with `-` and hold any character. Or a packed video,
            `shards/00000.tar/NAME` (see `packed`), which is always read by the reader "packed".
        reader: key of `READERS`.

    Raises:
        ReadError: the file is missing or is no readable video.
        TransientReadError: it cannot be read now, which need not be the file's fault.
        ValueError: no such reader.
        ImportError: torchcodec cannot be loaded.
    """
    place = packed.split(path)
    if place is not None:
        return _open_packed(*place)
    check_reader(reader)
    return READERS[reader](_regular_file(path))


def open_counted(path: str | os.PathLike[str], reader: str, num_frames: int) -> Video:
    """Open a file of which the frame-count index tells what `open_video` has found out once.

    Nothing is found out again, so it takes no longer than opening the file. Its `codec` and
    `header_frames` are not told.

    Args:
        path: see `open_video`.
        reader: `FrameCount.reader`: the reader that is exact on this file.
        num_frames: `FrameCount.num_frames`.

    Raises:
        ReadError, TransientReadError, ValueError, ImportError: see `open_video`.
    """
    place = packed.split(path)
    if place is not None:
        return _open_packed(*place)
    check_reader(reader)
    file = _regular_file(path)
    facts = Survey("", None, num_frames, "", "")
    read = FAST[reader](file, num_frames) if reader in FAST else None
    return _sequential(file, facts) if read is None else Video(file, reader, facts, read)


def _regular_file(path: str | os.PathLike[str]) -> str:
    # An absolute path is never taken for an option or a protocol ("-x.mp4", "a:b.mp4").
    absolute = os.path.abspath(path)  # noqa: PTH100 (Path.absolute would keep "..")
    try:
        mode = os.stat(absolute).st_mode  # noqa: PTH116
    except FileNotFoundError as error:
        raise TransientReadError(f"{absolute}: no such file") from error
    except OSError as error:
        raise TransientReadError(f"{absolute}: {cause_of(error)}") from error
    if not stat.S_ISREG(mode):
        raise TransientReadError(f"{absolute}: not a regular file")
    return absolute


def _open_packed(tar: Path, name: str) -> Video:
    """A packed video; a frame's JPEG is decoded alone, whatever was read before."""
    frames = packed.frames_of(tar, name)
    facts = Survey("mjpeg", len(frames), len(frames), "", "")
    read = functools.partial(packed.read, tar, name, frames)
    return Video(f"{tar}/{name}", "packed", facts, read)


def check_reader(reader: str) -> None:
    """Raise ValueError for an unknown reader, ImportError where torchcodec cannot be loaded."""
    if reader not in READERS:
        raise ValueError(f"data.reader: {reader!r} is none of {', '.join(READERS)}")
    if reader == "torchcodec":
        load_torchcodec()
    if reader == "decord":
        load_decord()


def open_pyav(path: str) -> Video:
    """Sequential decoding from frame 0: holds the contract on every file that FFmpeg decodes."""
    codec, header = header_facts(path)
    return _sequential(path, Survey(codec, header, None, "", ""))


def _sequential(path: str, facts: Survey) -> Video:
    return Video(path, "pyav", facts, functools.partial(read_sequentially, path))


def open_decord(path: str) -> Video:
    """decord where it may seek, PyAV elsewhere and where decord is not installed."""
    if load_decord() is None:
        return open_pyav(path)
    return _first_proven(path, ["decord"], counted(path))


def open_torchcodec(path: str) -> Video:
    """torchcodec in exact seek mode where it may seek, PyAV elsewhere.

    Its exact mode still returns frames one or two early after a seek in mpeg4 with B-frames.
    """
    return _first_proven(path, ["torchcodec"], counted(path))


def open_sparse(path: str) -> Video:
    """`sparse` where its frames are those of a sequential decode, PyAV elsewhere."""
    return _first_proven(path, ["pyav_sparse"], counted(path, sparse.CODECS))


def open_auto(path: str) -> Video:
    """The fastest reader for the file's container and codec by `FASTEST`, where it is exact.

    Elsewhere decord where it may seek, else PyAV.
    """
    facts = counted(path, sparse.CODECS)
    assert facts.look is not None
    fastest = FASTEST.get((facts.look.container, facts.codec), "decord")
    return _first_proven(path, list(dict.fromkeys([fastest, "decord"])), facts)


def _first_proven(path: str, names: Sequence[str], facts: Survey) -> Video:
    """The first reader that holds the contract on this file; else PyAV.

    Who serves a file is settled here, once, for the frame-count index.
    """
    for name in names:
        proven = _sparse_is_exact if name == "pyav_sparse" else _seeking_is_exact
        read = proven(path, name, facts)
        if read is not None:
            return Video(path, name, facts, read)
    return _sequential(path, facts)


def _sparse_is_exact(path: str, name: str, facts: Survey) -> Read | None:
    return None if sparse.flaw(path, facts) else FAST[name](path, len(facts.shown))


def _seeking_is_exact(path: str, name: str, facts: Survey) -> Read | None:
    """None where it may not seek, or its first, middle and last frame have not the right shape."""
    assert facts.num_frames is not None
    read = None if facts.doubt else FAST[name](path, facts.num_frames)
    if read is None:
        return None
    ends = sorted({0, facts.num_frames // 2, facts.num_frames - 1})
    shape = read_sequentially(path, [0])[0].shape
    try:
        good = [frame.shape for frame in read(ends)] == [shape] * len(ends)
    except Exception:  # whatever a library raises: PyAV has just decoded the file
        good = False
    return read if good else None


def _sparse_read(path: str, num_frames: int) -> Read:
    return functools.partial(sparse.read_sparsely, path)


FAST: dict[str, Callable[[str, int], Read | None]] = {
    "decord": decord_read,
    "pyav_sparse": _sparse_read,
    "torchcodec": torchcodec_read,
}
READERS: dict[str, Callable[[str], Video]] = {
    "auto": open_auto,
    "decord": open_decord,
    "pyav": open_pyav,
    "pyav_sparse": open_sparse,
    "torchcodec": open_torchcodec,
}
# By container and codec. Time for 8 frames spread over a video, as a multiple of sequential PyAV's,
# side by side on one thread (PyAV 18.1, decord 0.6, torchcodec 0.17; 2 to 16 frames and dense clips
# rank them alike); "-": not exact there. With a key frame every 4 frames: 1.0, 0.7, 0.55.
FASTEST = {  # decord, torchcodec, pyav_sparse
    ("mov", "h264"): "pyav_sparse",  # 1.17, 1.06, 0.66
    ("matroska", "h264"): "pyav_sparse",  # 1.13, 1.04, 0.65
    ("flv", "h264"): "pyav_sparse",  # -, -, 0.65
    ("mpegts", "h264"): "pyav_sparse",  # -, -, 0.68
    ("avi", "mpeg4"): "pyav_sparse",  # -, -, 0.58
    ("mov", "mpeg4"): "pyav_sparse",  # -, -, 0.58
    ("matroska", "mpeg4"): "pyav_sparse",  # -, -, 0.55
    ("matroska", "vp9"): "pyav_sparse",  # 1.17, 1.08, 0.92
    ("mov", "vp9"): "pyav_sparse",  # -, -, 0.90
}
