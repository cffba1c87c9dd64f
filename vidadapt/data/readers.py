"""READERS: a video file becomes exact frames, whatever its container, codec and state.

Contract: the frame returned for index i is bit-identical to the i-th frame of a full sequential
decode of the container's best video stream, whatever was read before, and the length is the number
of frames that such a decode yields.

A sequential decode with PyAV from frame 0 always holds that. Seeking is faster, and holds it only
where every key frame starts a closed group of pictures: there decord (or torchcodec) reads the
file. Everywhere else the file is read sequentially by PyAV, and `Video.reader` says so. What was
seen to break a seeking reader, and what is looked for therefore:

* AVI, MPEG-TS, FLV, mpeg4 (packed B-frames, no timestamps): frames are off by 1 to 5 after a seek;
* open groups of pictures (HEVC's default, x264's open-gop) and intra refresh: frames shift;
* timestamps that disagree with the decoder's order: torchcodec swaps frames;
* damaged packets: an error, or another concealment than in a sequential decode;
* interlaced video, 10 bit and deeper: colours are converted otherwise than by PyAV;
* narrow frames (some widths up to 72): wrong shapes;
* AV1, Theora, files without a duration: decord cannot open them.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import multiprocessing
import operator
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vidadapt.data.seekable import Shown, holds_idr, order_doubt, output_doubt, stream_doubt

DECODE_ERRORS = (av.FFmpegError, OSError, ValueError, MemoryError)


class ReadError(Exception):
    """A video cannot be read; the message names the file and the cause."""


@dataclass(frozen=True)
class Survey:
    """What walking through the packets of a file tells.

    Attributes:
        codec: codec of the best video stream, e.g. `h264`.
        header_frames: number of frames that the header promises; None where it tells nothing.
        num_frames: number of frames that decode; None if nothing was decoded.
        doubt: why a seeking reader may break the contract on this file; empty: no reason found.
        cause: the first error that was met; empty: none.
    """

    codec: str
    header_frames: int | None
    num_frames: int | None
    doubt: str
    cause: str


class Video:
    """One open video file; a context manager. `READERS` makes these, `open_video` is the entry.

    Attributes:
        path: the file.
        reader: name of the reader that serves it, e.g. `pyav` where decord was asked for but its
            contract does not hold.
        codec: codec of the stream that is read, e.g. `h264`.
        header_frames: number of frames that the header promises, or None.
    """

    def __init__(
        self,
        path: str,
        reader: str,
        survey: Survey,
        read: Callable[[Sequence[int]], list[np.ndarray]],
    ) -> None:
        self.path = path
        self.reader = reader
        self.codec = survey.codec
        self.header_frames = survey.header_frames
        self._num_frames = survey.num_frames
        self._read: Callable[[Sequence[int]], list[np.ndarray]] | None = read

    def __len__(self) -> int:
        """Number of frames that decode; counts them (one decode) where it is not yet known.

        Raises:
            ReadError: no frame decodes.
        """
        if self._num_frames is None:
            self._num_frames = _counted(self.path).num_frames
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


def open_video(
    path: str | os.PathLike[str], reader: str = "decord", num_frames: int | None = None
) -> Video:
    """Open a video file for exact reading.

    Args:
        path: a regular file; names may begin with `-` and hold any character.
        reader: key of `READERS`. Pass `FrameCount.reader` where the file is in the frame-count
            index: it was chosen after a full decode, so it also knows of damaged packets.
        num_frames: exact number of frames if known; without it decord and torchcodec decode the
            file once, to learn whether they may seek in it.

    Raises:
        ReadError: the file is missing or is no readable video.
        ValueError: no such reader.
        ImportError: torchcodec cannot be loaded.
    """
    check_reader(reader)
    # An absolute path is never taken for an option or a protocol ("-x.mp4", "a:b.mp4").
    absolute = os.path.abspath(path)  # noqa: PTH100 (Path.absolute would keep "..")
    if not Path(absolute).exists():
        raise ReadError(f"{absolute}: no such file")
    if not Path(absolute).is_file():
        raise ReadError(f"{absolute}: not a regular file")
    return READERS[reader](absolute, num_frames)


def check_reader(reader: str) -> None:
    """Raise ValueError for an unknown reader, ImportError where torchcodec cannot be loaded."""
    if reader not in READERS:
        raise ValueError(f"data.reader: {reader!r} is none of {', '.join(READERS)}")
    if reader == "torchcodec":
        _torchcodec()
    if reader == "decord":
        _decord()


def survey(path: str, decode: bool) -> Survey:
    """Walk through all packets of the best video stream, decoding them or not.

    Raises:
        ReadError: the file cannot be opened or holds no video stream.
    """
    faults: list[str] = []
    stamps: list[int | None] = []
    keys: list[int] = []
    shown: list[Shown] = []
    odd = ""
    with _open(path) as container:
        stream = _best_stream(container, path)
        context, header_frames = stream.codec_context, stream.frames or None
        codec, form = context.codec.canonical_name, container.format.name.split(",")[0]
        field_order = getattr(context, "field_order", None)  # PyAV 18 and newer
        doubt = stream_doubt(
            form, codec, context.pix_fmt, (context.width, context.height), field_order
        )
        for packet in itertools.chain(_packets(container, stream, faults), [None]):
            if packet is not None:
                stamps.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(len(stamps) - 1)
                    if codec == "h264" and not (doubt or odd):
                        idr = holds_idr(bytes(packet), context.extradata)
                        odd = "" if idr else "a key frame that is no IDR picture"
                if packet.is_discard or packet.is_corrupt:
                    odd = odd or "discarded or corrupt packets"
            for frame in _decode(context, packet, faults) if decode else ():
                size = (frame.width, frame.height, frame.format.name)
                flags = (bool(frame.key_frame), frame.is_corrupt, frame.interlaced_frame)
                shown.append(Shown(frame.pts, size, *flags))
    doubt = doubt or odd or order_doubt(stamps, keys)
    cause = next(iter(faults), "")
    if not decode:
        return Survey(codec, header_frames, None, doubt or cause, cause)
    doubt = doubt or output_doubt(shown, len(stamps), keys) or cause
    return Survey(codec, header_frames, len(shown), doubt, cause)


def _open(path: str) -> Any:
    try:
        return av.open(path)
    except DECODE_ERRORS as error:
        raise ReadError(f"{path}: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """One line of an error, without number and path."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).strip().splitlines()[0]


def _best_stream(container: Any, path: str) -> Any:
    """The container's best video stream, set to one thread: more conceal damage in another way."""
    stream = container.streams.best("video")
    if stream is None or stream.codec_context is None:
        raise ReadError(f"{path}: no video stream that can be decoded")
    stream.codec_context.thread_count = 1
    stream.codec_context.thread_type = "NONE"
    return stream


def _packets(container: Any, stream: Any, faults: list[str]) -> Iterator[Any]:
    """The stream's packets that hold data; a demuxing error ends them and joins `faults`."""
    try:
        for packet in container.demux(stream):
            if packet.size:  # an empty packet would switch the decoder to draining
                yield packet
    except DECODE_ERRORS as error:
        faults.append(_cause(error))


def _decode(context: Any, packet: Any, faults: list[str]) -> list[Any]:
    """Frames that one packet (None: the end) yields; an undecodable packet joins `faults`."""
    try:
        return list(context.decode(packet))
    except DECODE_ERRORS as error:
        faults.append(_cause(error))
        return []


def _counted(path: str) -> Survey:
    """`survey` with a full decode; ReadError if no frame decodes."""
    facts = survey(path, decode=True)
    if not facts.num_frames:
        raise ReadError(f"{path}: no frame decodes ({facts.cause or 'the stream is empty'})")
    return facts


def _read_sequentially(path: str, wanted: Sequence[int]) -> list[np.ndarray]:
    """Frames at `wanted` (ascending, distinct), decoding from frame 0 to the last of them.

    Returns fewer frames than wanted where the stream ends before.
    """
    found: list[np.ndarray] = []
    faults: list[str] = []
    size: tuple[int, int] | None = None
    convert = VideoReformatter()
    position = 0
    with _open(path) as container:
        stream = _best_stream(container, path)
        for packet in itertools.chain(_packets(container, stream, faults), [None]):
            for frame in _decode(stream.codec_context, packet, faults):
                size = size or (frame.width, frame.height)
                if position == wanted[len(found)]:
                    try:
                        rgb = convert.reformat(frame, *size, format="rgb24").to_ndarray()
                    except DECODE_ERRORS as error:
                        raise ReadError(f"{path}: frame {position}: {_cause(error)}") from error
                    found.append(_upright(rgb, frame.rotation))
                    if len(found) == len(wanted):
                        return found
                position += 1
    return found


def _upright(rgb: np.ndarray, rotation: int) -> np.ndarray:
    """Apply the rotation in degrees of a frame's display matrix, if it is a meaningful one."""
    turns = rotation // 90 if rotation % 90 == 0 and abs(rotation) < 360 else 0
    return np.rot90(rgb, turns)


def open_pyav(path: str, num_frames: int | None) -> Video:
    """Sequential decoding from frame 0: holds the contract on every file that FFmpeg decodes."""
    with _open(path) as container:
        stream = _best_stream(container, path)
        codec, header = stream.codec_context.codec.canonical_name, stream.frames or None
    facts = Survey(codec, header, num_frames, "", "")
    return Video(path, "pyav", facts, functools.partial(_read_sequentially, path))


def open_decord(path: str, num_frames: int | None) -> Video:
    """decord where it may seek, PyAV elsewhere and where decord is not installed."""
    decord = _decord()
    if decord is None:
        return open_pyav(path, num_frames)
    facts = _facts(path, num_frames)
    if facts.doubt:
        return open_pyav(path, facts.num_frames)
    try:
        reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
    except (decord.DECORDError, RuntimeError):
        return open_pyav(path, facts.num_frames)
    if len(reader) != facts.num_frames:
        return open_pyav(path, facts.num_frames)

    def read(wanted: Sequence[int]) -> list[np.ndarray]:
        try:
            return list(reader.get_batch(list(wanted)).asnumpy())
        except decord.DECORDError as error:
            raise ReadError(f"{path}: decord cannot decode it: {_cause(error)}") from error

    return Video(path, "decord", facts, read)


def open_torchcodec(path: str, num_frames: int | None) -> Video:
    """torchcodec in exact seek mode where it may seek, PyAV elsewhere.

    Its exact mode still returns frames one or two early after a seek in mpeg4 with B-frames.
    """
    torchcodec = _torchcodec()
    facts = _facts(path, num_frames)
    if facts.doubt:
        return open_pyav(path, facts.num_frames)
    try:
        decoder = torchcodec.VideoDecoder(
            path, seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC"
        )
    except (RuntimeError, ValueError):
        return open_pyav(path, facts.num_frames)
    if len(decoder) != facts.num_frames:
        return open_pyav(path, facts.num_frames)

    def read(wanted: Sequence[int]) -> list[np.ndarray]:
        try:
            return list(decoder.get_frames_at(list(wanted)).data.numpy())
        except RuntimeError as error:
            raise ReadError(f"{path}: torchcodec cannot decode it: {_cause(error)}") from error

    return Video(path, "torchcodec", facts, read)


READERS: dict[str, Callable[[str, int | None], Video]] = {
    "decord": open_decord,
    "pyav": open_pyav,
    "torchcodec": open_torchcodec,
}


def _facts(path: str, num_frames: int | None) -> Survey:
    """What decides who reads the file; decodes it only where the number of frames is unknown."""
    if num_frames is None:
        return _counted(path)
    facts = survey(path, decode=False)
    return Survey(facts.codec, facts.header_frames, num_frames, facts.doubt, facts.cause)


@functools.cache
def _decord() -> ModuleType | None:
    """decord, imported when first needed; None and one notice where it is not installed."""
    try:
        module = importlib.import_module("decord")
    except (ImportError, OSError) as error:
        if multiprocessing.parent_process() is None:  # loader workers would repeat the notice
            warnings.warn(f"decord cannot be loaded ({error}): PyAV reads all videos", stacklevel=2)
        return None
    module.logging.set_level(module.logging.QUIET)
    return module


@functools.cache
def _torchcodec() -> ModuleType:
    try:
        return importlib.import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError) as error:
        raise ImportError(
            f"data.reader torchcodec cannot be loaded ({_cause(error)}): "
            "pip install 'vidadapt[torchcodec]' and install FFmpeg 4 to 9 on the system, "
            "or use data.reader decord"
        ) from error
