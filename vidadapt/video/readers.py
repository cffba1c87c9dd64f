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

import av
import numpy as np
import torch

from vidadapt.files import Copy, fetched, is_url
from vidadapt.video import deep, images, packed, sparse
from vidadapt.video.checksums import array_checksum, odd_arrays
from vidadapt.video.facts import VideoFacts
from vidadapt.video.seekers import (
    SEEKERS,
    Frames,
    entered_anywhere,
    load_decord,
    load_torchcodec,
    open_seeking,
    read_verified,
)
from vidadapt.video.segments import cut, film_of
from vidadapt.video.sequential import (
    ReadError,
    TransientReadError,
    all_frames,
    cause_of,
    naming,
    read_sequentially,
)
from vidadapt.video.survey import counted


class Video:
    """One open video file; a context manager. Call `open_video` or `open_counted` to make one.

    It is read sequentially if there is no faster `read`, or if that finds no exact frames. The
    checksums of the facts are of frames as shown if `as_shown` is set, else as decoded. Of a
    segment, frame 0 is its first; `read` takes indices in its file.

    Attributes:
        file: its path, or the URL of an object.
        facts: what is known of it; `facts.reader` is the reader in use, e.g. `pyav` where decord
            was asked for but is not exact on this file.
        changed: one line on the first frame whose checksum was not that of the count, even when
            read in sequence; empty: there was none.
    """

    def __init__(
        self,
        file: str,
        facts: VideoFacts,
        read: Callable[[Sequence[int]], Frames | None] | None = None,
        as_shown: bool = False,
        copy: Copy | None = None,
    ) -> None:
        self.file, self.facts, self.changed = file, facts, ""
        self._read, self._as_shown, self._is_open = read, as_shown, True
        self._copy, self._place = copy, copy.path if copy else film_of(file)

    def __len__(self) -> int:
        """Number of frames that decode."""
        return self.facts.num_frames

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Read the frames at `indices` (any order, repeats allowed): uint8 (T, H, W, 3), RGB.

        They are turned and mirrored as the metadata says. If the frames of a file change size, all
        are scaled to the size of the first. Afterwards `changed` says whether a frame differed from
        the count.

        Raises:
            IndexError: an index is negative or not below the number of frames, or none is given.
            ReadError: the frames cannot be decoded.
        """
        return joined_frames(self.each(indices))

    def each(self, indices: Sequence[int] | np.ndarray) -> Frames:
        """Read frames as `frames` does, (H, W, 3) each, without copying them into one array."""
        if not self._is_open:
            raise ValueError(f"{self.file}: the video is closed")
        wanted = [operator.index(i) for i in indices]
        if not wanted:
            raise IndexError(f"{self.file}: no frame index was given")
        low, high = min(wanted), max(wanted)
        if low < 0:
            raise IndexError(f"{self.file}: frame {low}; indices start at 0")
        if high >= len(self):
            raise IndexError(f"{self.file}: frame {high} of a video of {len(self)} frames")
        distinct = sorted(set(wanted))
        with naming(self.file, self._place):
            found = self._found(distinct)
        if len(found) < len(distinct):
            raise ReadError(
                f"{self.file}: frame {distinct[len(found)]} does not decode although the video "
                f"was counted as {len(self)} frames; has the file changed? "
                "Delete the video index beside its list"
            )
        if wanted == distinct:
            return found
        place = {index: i for i, index in enumerate(distinct)}
        return [found[place[i]] for i in wanted]

    def _found(self, wanted: list[int]) -> Frames:
        """Frames at `wanted` (ascending, distinct); fewer if the stream ends early."""
        first = self.facts.first_frame
        wanted = [first + index for index in wanted]
        found = None if self._read is None else self._read(wanted)
        if found is not None:
            return found
        odd: list[int] = []
        checks = checks_in_file(self.facts) if len(self.facts.checks) else None
        if self.facts.reader == images.READER:
            found, library = images.decoded(self._place)[None], images.DECODED_WITH
        else:
            found = read_sequentially(self._place, wanted, None if self._as_shown else checks, odd)
            library = f"PyAV {av.__version__}"
        if self._as_shown and checks is not None:
            odd = odd_arrays(found, checks, wanted)
        if odd and not self.changed:
            self.changed = (
                f"{self.file}: frame {odd[0] - first} is not what it was when its file was counted:"
                " the file has changed since, the disk returns other bytes, or it was counted with "
                f"another version of its decoder (this is {library})"
            )
        return found

    def close(self) -> None:
        """Free the decoder; `frames` raises ValueError from now on."""
        self._read, self._is_open = None, False
        if self._copy is not None:
            self._copy.file.close()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def joined_frames(frames: Frames) -> np.ndarray:
    """Copy frames (H, W, 3) of one size into (T, H, W, 3); an array of them stays as it is.

    A list is emptied meanwhile, so that each frame is in memory once.
    """
    if isinstance(frames, np.ndarray):
        return frames
    left = list(reversed(frames))
    if isinstance(frames, list):
        frames.clear()
    joined = np.empty((len(left), *left[-1].shape), left[-1].dtype)
    for row in joined:
        row[...] = left.pop()
    return joined


def open_video(path: str | os.PathLike[str], reader: str = "auto") -> Video:
    """Decode a video file once, to count its frames, and open it for exact reading.

    All readers but `pyav` decode a bit of it again; decord and torchcodec decode it about three
    times, see `seekers.entered_anywhere`.

    Args:
        path: a regular file; names may begin with `-` and hold any character. Or a packed video,
            `shards/00000.tar/NAME` (see `packed`), which is always read by the reader "packed". An
            image is always read by the reader "image", see `images`. Or a URL, see `files.stores`:
            the object is fetched to a local folder, see `files.store_cache`. Or a segment of such a
            file, see `segments`; all of the file is decoded.
        reader: key of `READERS`.

    Raises:
        ReadError: the file is no readable video.
        TransientReadError: it is missing or cannot be read now, which need not be its fault.
        ValueError: no such reader.
        ImportError: torchcodec cannot be loaded.
    """
    if packed.tar_and_name(path) is not None:
        return _open_packed(path)
    check_reader(reader)
    name, place, copy = _local(path)
    with naming(name, place):
        facts = images.image_facts(place) or READERS[reader](counted(place))
        facts = cut(replace(facts, uneven="", packets=(), keys=()), name)
        if facts.error:
            raise ReadError(f"{name}: {facts.error}")
        return _open_file(name, facts, copy)


def open_counted(
    path: str | os.PathLike[str], facts: VideoFacts, parts: Sequence[torch.Tensor] | None = None
) -> Video:
    """Open a file with the facts that an earlier `open_video` found.

    Nothing is decoded, so this takes no longer than opening the file.

    Args:
        path: see `open_video`.
        facts: only `reader`, `num_frames` and `checks` matter, of a segment `first_frame`, `times`,
            `width` and `height`, too; without checks PyAV reads sequentially.
        parts: of a packed video, `packed_parts` of the frames that are to be read.

    Raises:
        ReadError, TransientReadError, ImportError: see `open_video`.
        ValueError: no such reader, or not one checksum for each frame.
    """
    if packed.tar_and_name(path) is not None:
        return _open_packed(path, parts)
    if facts.reader != images.READER:
        check_reader(facts.reader)
    if len(facts.checks) not in (0, facts.num_frames):
        raise ValueError(f"{path}: {len(facts.checks)} checksums of {facts.num_frames} frames")
    name, _, copy = _local(path)
    return _open_file(name, facts, copy)


def _local(path: str | os.PathLike[str]) -> tuple[str, str, Copy | None]:
    """What a video is called, its file, and if that is an object's, the copy that is kept open.

    Raises:
        TransientReadError: it is missing, or cannot be read or fetched now.
    """
    given = os.fspath(path)
    film = film_of(given)
    if not is_url(film):
        file = _regular_file(film)
        return file + given[len(film) :], file, None
    try:
        copy = fetched(film)
    except OSError as error:
        raise TransientReadError(f"{path}: {cause_of(error)}") from None
    return given, copy.path, copy


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


def check_reader(reader: str) -> None:
    """Raise ValueError for an unknown reader, ImportError where torchcodec cannot be loaded."""
    if reader not in READERS:
        raise ValueError(f"data.reader: {reader!r} is none of {', '.join(READERS)}")
    if reader == "torchcodec":
        load_torchcodec()
    if reader == "decord":
        load_decord()


def _open_packed(
    path: str | os.PathLike[str], parts: Sequence[torch.Tensor] | None = None
) -> Video:
    """Open a packed video; each JPEG is decoded alone, whatever was read before."""
    facts, read = packed.opened(path, parts)
    return Video(facts.path, facts, read)


def _open_file(file: str, facts: VideoFacts, copy: Copy | None) -> Video:
    """Open a counted file; PyAV reads it sequentially if checksums or the reader are missing."""
    name, checks, place = facts.reader, checks_in_file(facts), copy.path if copy else film_of(file)
    read: Callable[[Sequence[int]], Frames | None] | None = None
    if len(checks) and name == "pyav_sparse":
        read = functools.partial(sparse.read_sparsely, place, checks)
    elif len(checks) and name in SEEKERS:
        seek = open_seeking(name, place, len(checks), is_part=film_of(file) != file)
        read = functools.partial(read_verified, seek, checks) if seek else None
    if len(checks) and deep.pays(facts):
        read = functools.partial(deep.read_from_key_frame, place, facts, checks, read)
    if read is None and name not in ("pyav", images.READER):
        facts = replace(facts, reader="pyav")
    return Video(file, facts, read, as_shown=name in (*SEEKERS, images.READER), copy=copy)


def checks_in_file(facts: VideoFacts) -> np.ndarray:
    """Checks by a frame's index in its file; those before a segment are not set, nor looked at."""
    if not facts.first_frame or not len(facts.checks):
        return facts.checks
    checks = np.empty(facts.first_frame + len(facts.checks), np.uint64)
    checks[facts.first_frame :] = facts.checks
    return checks


def pyav_facts(facts: VideoFacts) -> VideoFacts:
    """Choose sequential reading from frame 0: exact on every file that FFmpeg decodes."""
    return replace(facts, reader="pyav")


def sparse_facts(facts: VideoFacts) -> VideoFacts:
    """Choose `sparse` where it can read the file, else sequential reading."""
    return replace(facts, reader="pyav" if sparse.flaw(facts) else "pyav_sparse")


def auto_facts(facts: VideoFacts) -> VideoFacts:
    """Choose the faster of PyAV's two readers for the container and codec, if it can."""
    pays = (facts.container, facts.codec) in SPARSE_PAYS
    return sparse_facts(facts) if pays else pyav_facts(facts)


def seeker_facts(name: str, facts: VideoFacts) -> VideoFacts:
    """Choose a library that seeks where it is exact, else (or if it is missing) PyAV.

    torchcodec's exact mode still returns frames one or two early after a seek in mpeg4 with
    B-frames.
    """
    known = pyav_facts(facts)
    if facts.doubt or (name == "decord" and load_decord() is None):
        return known
    checks = np.array([array_checksum(frame) for frame in all_frames(facts.path)], np.uint64)
    if len(checks) != len(known.checks):
        return known
    exact = entered_anywhere(name, facts.path, checks, facts.keys)
    return replace(facts, reader=name, checks=checks) if exact else known


# Each takes the facts of a decode; it returns them with the reader, and the checksums that this
# one compares.
READERS: dict[str, Callable[[VideoFacts], VideoFacts]] = {
    "auto": auto_facts,
    "decord": functools.partial(seeker_facts, "decord"),
    "pyav": pyav_facts,
    "pyav_sparse": sparse_facts,
    "torchcodec": functools.partial(seeker_facts, "torchcodec"),
}
# Containers and codecs where skipping frames is faster. Time for 8 frames spread over a video,
# as a multiple of a sequential decode's, side by side on one thread (PyAV 18.1; 2 to 16 frames and
# dense clips rank them alike); with a key frame every 4 frames: 0.55.
SPARSE_PAYS = {
    *(("mov", "h264"), ("matroska", "h264"), ("flv", "h264"), ("mpegts", "h264")),  # 0.65 to 0.68
    *(("avi", "mpeg4"), ("mov", "mpeg4"), ("matroska", "mpeg4")),  # 0.55 to 0.58
    *(("matroska", "vp9"), ("mov", "vp9")),  # 0.90 to 0.92
}
