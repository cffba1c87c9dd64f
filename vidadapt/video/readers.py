"""READERS: exact frames from a video file, whatever its container, codec and state.

Contract: the frame returned for index i is bit-identical to the i-th frame of a full sequential
decode with PyAV of the container's best video stream, whatever was read before, and the length is
the number of frames that such a decode yields.

That decode runs once, when a file is counted, and gives a checksum of every frame. Each frame that
is read later is compared with its checksum. `pyav_sparse` skips what the wanted frames do not need;
if one of them differs, is not decoded or has no checksum, the file is read sequentially from
frame 0. If that differs, too, the file or the decoder is not what was counted, and `Video.changed`
says so.

decord and torchcodec, which seek, are used if they are asked for by name and returned every frame
of the file correctly when it was counted: starting at groups of pictures all over it, by readers
that had read nothing before. Their frames are compared at each read, too. Otherwise PyAV reads the
file, and `Video.reader` says so. Cases that broke a seeking library:

* AVI, MPEG-TS, FLV, mpeg4 (packed B-frames, no timestamps): frames are off by 1 to 5 after a seek;
* open groups of pictures (HEVC's default, x264's open-gop) and intra refresh: frames shift;
* timestamps that disagree with the decoder's order: torchcodec swaps frames;
* joined files, whose packets hold parameters that the header lacks, and 4:4:4 by an old x264,
  which gives its version only in the first packet: wrong pixels after a seek;
* damaged packets: an error, or damage concealed differently than in a sequential decode;
* interlaced video, 10 bit and deeper: colours are converted differently than by PyAV;
* mirrored pictures: turned, but not mirrored;
* narrow frames (some widths up to 72): wrong shapes;
* AV1, Theora, files without a duration: decord cannot open them.
"""

from __future__ import annotations

import functools
import operator
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from vidadapt.video import packed, sparse
from vidadapt.video.checksums import array_checksum, odd_arrays
from vidadapt.video.seekers import (
    Frames,
    Read,
    decord_read,
    entered_anywhere,
    load_decord,
    load_torchcodec,
    read_verified,
    torchcodec_read,
)
from vidadapt.video.sequential import (
    ReadError,
    TransientReadError,
    all_frames,
    cause_of,
    read_sequentially,
)
from vidadapt.video.survey import Survey, counted, header_facts

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
    """One open video file; a context manager. Call `open_video` or `open_counted` to make one.

    It is read sequentially if there is no faster `read`, or if that finds no exact frames. The
    checksums of the survey are of frames as shown if `as_shown` is set, else as decoded.

    Attributes:
        path: the file.
        reader: name of the reader in use, e.g. `pyav` where decord was asked for but is not exact
            on this file.
        codec: codec of the stream that is read, e.g. `h264`; empty from `open_counted`.
        header_frames: number of frames that the header promises, or None; once the frames have
            been counted, less those that an edit list hides.
        transient: an error met while counting that need not be the file's fault; empty: none.
        survey: all that is known about the file, see `Survey`.
        changed: one line on the first frame whose checksum was not that of the count, even when
            read in sequence; empty: there was none.
    """

    def __init__(
        self,
        path: str,
        reader: str,
        survey: Survey,
        read: Callable[[Sequence[int]], Frames | None] | None = None,
        as_shown: bool = False,
    ) -> None:
        self.path = path
        self.reader = reader
        self.codec = survey.codec
        self.header_frames = survey.header_frames
        self.transient = survey.transient
        self.survey = survey
        self._num_frames = survey.num_frames
        self.changed = ""
        self._read, self._as_shown = read, as_shown
        self._is_open = True

    def __len__(self) -> int:
        """Number of frames that decode; counts them (one decode) if it is not known yet.

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

        They are turned and mirrored as the metadata says. If the frames of a file change size, all
        are scaled to the size of the first. Afterwards `changed` says whether a frame differed from
        the count.

        Raises:
            IndexError: an index is negative or not below the number of frames, or none is given.
            ReadError: the frames cannot be decoded.
        """
        if not self._is_open:
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
        found = self._found(distinct)
        if len(found) < len(distinct):
            if self._num_frames is None:
                raise IndexError(
                    f"{self.path}: frame {high} of a video of {len(self)} frames"  # may decode
                )
            raise ReadError(
                f"{self.path}: frame {distinct[len(found)]} does not decode although the video "
                f"was counted as {self._num_frames} frames; has the file changed? "
                "Delete the video index beside its list"
            )
        if isinstance(found, np.ndarray) and wanted == distinct:
            return found
        place = {index: i for i, index in enumerate(distinct)}
        return np.stack([found[place[i]] for i in wanted])

    def _found(self, wanted: list[int]) -> Frames:
        """Frames at `wanted` (ascending, distinct); fewer if the stream ends early."""
        found = None if self._read is None else self._read(wanted)
        if found is not None:
            return found
        odd: list[int] = []
        checks = self.survey.checks
        found = read_sequentially(self.path, wanted, None if self._as_shown else checks, odd)
        if self._as_shown and checks is not None:
            odd = odd_arrays(found, checks, wanted)
        if odd and not self.changed:
            self.changed = (
                f"{self.path}: frame {odd[0]} is not what it was when the file was counted: the "
                "file has changed since, the disk returns other bytes, or it was counted with "
                f"another version of PyAV (this is {av.__version__})"
            )
        return found

    def close(self) -> None:
        """Free the decoder; `frames` raises ValueError from now on."""
        self._read, self._is_open = None, False

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

    All readers but `pyav` first decode it once, and then a bit of it again; decord and torchcodec
    decode it about three times, see `seekers.entered_anywhere`.

    Args:
        path: a regular file; names may begin with `-` and hold any character. Or a packed video,
            `shards/00000.tar/NAME` (see `packed`), which is always read by the reader "packed".
        reader: key of `READERS`.

    Raises:
        ReadError: the file is no readable video.
        TransientReadError: it is missing or cannot be read now, which need not be its fault.
        ValueError: no such reader.
        ImportError: torchcodec cannot be loaded.
    """
    place = packed.tar_and_name(path)
    if place is not None:
        return _open_packed(*place)
    check_reader(reader)
    return READERS[reader](_regular_file(path))


def open_counted(
    path: str | os.PathLike[str], reader: str, num_frames: int, checks: np.ndarray | None = None
) -> Video:
    """Open a file with the facts that an earlier `open_video` put into the video index.

    Nothing is decoded, so this takes no longer than opening the file. `codec` and `header_frames`
    are not set.

    Args:
        path: see `open_video`.
        reader: `Video.reader` of `open_video`: the reader that is exact on this file.
        num_frames: `len` of that video.
        checks: its `Survey.checks`; None: they are not known, and PyAV reads sequentially.

    Raises:
        ReadError, TransientReadError, ImportError: see `open_video`.
        ValueError: no such reader, or not one checksum for each frame.
    """
    place = packed.tar_and_name(path)
    if place is not None:
        return _open_packed(*place)
    check_reader(reader)
    if checks is not None and len(checks) != num_frames:
        raise ValueError(f"{path}: {len(checks)} checksums of {num_frames} frames")
    return _served(_regular_file(path), reader, Survey("", None, num_frames, "", "", checks=checks))


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
    """Open a packed video; each JPEG is decoded alone, whatever was read before."""
    frames = packed.frame_places(tar, name)
    checks = np.ascontiguousarray(frames["check"])
    facts = Survey("mjpeg", len(frames), len(frames), "", "", checks=checks)
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
    """Read sequentially from frame 0: exact on every file that FFmpeg decodes."""
    codec, header = header_facts(path)
    return Video(path, "pyav", Survey(codec, header, None, "", ""))


def open_decord(path: str) -> Video:
    """Read with decord where it is exact, else (or if it is not installed) with PyAV."""
    return _seeking(path, "decord") if load_decord() is not None else open_pyav(path)


def open_torchcodec(path: str) -> Video:
    """Read with torchcodec in exact seek mode where it is exact, else with PyAV.

    Its exact mode still returns frames one or two early after a seek in mpeg4 with B-frames.
    """
    return _seeking(path, "torchcodec")


def open_sparse(path: str) -> Video:
    """Read with `sparse` where it can read the file, else sequentially."""
    facts = counted(path)
    return _served(path, "pyav" if sparse.flaw(path, facts) else "pyav_sparse", facts)


def open_auto(path: str) -> Video:
    """Read with the faster of PyAV's two readers for the container and codec, if it can."""
    facts = counted(path)
    assert facts.look is not None
    pays = (facts.look.container, facts.codec) in SPARSE_PAYS
    return _served(path, "pyav_sparse" if pays and not sparse.flaw(path, facts) else "pyav", facts)


def _seeking(path: str, name: str) -> Video:
    """Open a file with a library that seeks, or with PyAV where that is not exact."""
    facts = counted(path)
    if facts.doubt or facts.keys is None:
        return _served(path, "pyav", facts)
    checks = np.array([array_checksum(frame) for frame in all_frames(path)], np.uint64)
    opened = functools.partial(SEEKERS[name], path, len(checks))
    if len(checks) != facts.num_frames or not entered_anywhere(opened, checks, facts.keys.tolist()):
        return _served(path, "pyav", facts)
    return _served(path, name, replace(facts, checks=checks))


def _served(path: str, name: str, facts: Survey) -> Video:
    """Open a counted file; PyAV reads it sequentially if the checksums or reader are missing."""
    checks, as_shown = facts.checks, name in SEEKERS
    assert facts.num_frames is not None
    if checks is not None and name == "pyav_sparse":
        read = functools.partial(sparse.read_sparsely, path, checks)
        return Video(path, "pyav_sparse", facts, read)
    seek = SEEKERS[name](path, facts.num_frames) if checks is not None and as_shown else None
    if checks is None or seek is None:
        return Video(path, "pyav", facts, as_shown=as_shown)
    return Video(path, name, facts, functools.partial(read_verified, seek, checks), as_shown)


SEEKERS: dict[str, Callable[[str, int], Read | None]] = {
    "decord": decord_read,
    "torchcodec": torchcodec_read,
}
READERS: dict[str, Callable[[str], Video]] = {
    "auto": open_auto,
    "decord": open_decord,
    "pyav": open_pyav,
    "pyav_sparse": open_sparse,
    "torchcodec": open_torchcodec,
}
# Containers and codecs where skipping frames is faster. Time for 8 frames spread over a video,
# as a multiple of a sequential decode's, side by side on one thread (PyAV 18.1; 2 to 16 frames and
# dense clips rank them alike); with a key frame every 4 frames: 0.55.
SPARSE_PAYS = {
    *(("mov", "h264"), ("matroska", "h264"), ("flv", "h264"), ("mpegts", "h264")),  # 0.65 to 0.68
    *(("avi", "mpeg4"), ("mov", "mpeg4"), ("matroska", "mpeg4")),  # 0.55 to 0.58
    *(("matroska", "vp9"), ("mov", "vp9")),  # 0.90 to 0.92
}
