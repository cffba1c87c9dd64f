"""Sequential decoding with PyAV, from frame 0: exact on every file that FFmpeg decodes."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from vidadapt.files import is_url, state_of
from vidadapt.video.bounds import MAX_PIXELS, count_problem
from vidadapt.video.checksums import frame_checksum
from vidadapt.video.first_bytes import what_it_is
from vidadapt.video.orientation import orientation, shown_size

DECODE_ERRORS = (av.FFmpegError, OSError, ValueError, MemoryError)
# Options of each decoder, also of those that probe a file while it is opened.
LIMITS = {"max_pixels": str(MAX_PIXELS)}
# Formats that name other files or addresses, which FFmpeg would read in place of the video.
REFERRING = {
    *("concat", "concatf", "dash", "hls", "image2", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp"),
    *("vapoursynth", "webm_dash_manifest"),
}
PICTURE = "_pipe"  # ends the names of FFmpeg's formats of single pictures
TRANSIENT = (OSError, MemoryError)  # may be the machine's fault: EIO, ESTALE, ENOMEM, EMFILE


class ReadError(Exception):
    """A video cannot be read; the message names the file and the cause."""


class TransientReadError(ReadError):
    """A video cannot be read now, by a fault that need not be the file's: disk, network, memory."""


@contextmanager
def naming(name: str, place: str) -> Iterator[None]:
    """Let errors of this block name a video by `name`, not by the place of its copy."""
    try:
        yield
    except ReadError as error:
        if name == place:
            raise
        raise type(error)(str(error).replace(place, name)) from None


def refuse_count(path: str, num_frames: int) -> None:
    """Raise ReadError if a video has more frames than `bounds.MAX_FRAMES`."""
    if problem := count_problem(num_frames):
        raise ReadError(f"{path}: {problem}")


def unreadable_bytes(path: str) -> str:
    """Reason why a file's bytes cannot be read, or an object is not there; empty if they can.

    FFmpeg reports damage as input/output errors, too; this tells a failing disk from damage.
    """
    try:
        if is_url(path):
            state_of(path)
            return ""
        with Path(path).open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass
    except OSError as error:
        return cause_of(error)
    return ""


@functools.cache
def safe_options(protocols: str = "file", referring: str = "") -> dict[str, str]:
    """Options with which FFmpeg opens nothing but what it was asked to open.

    Args:
        protocols: that it may use, with commas between.
        referring: the one format of `REFERRING` that is allowed; empty: none.
    """
    formats = sorted(av.formats_available - (REFERRING - {referring}))
    return {"protocol_whitelist": protocols, "format_whitelist": ",".join(formats), **LIMITS}


def open_container(path: str, options: dict[str, str] | None = None) -> Any:
    """Open a file as FFmpeg's container, which reads no other file and no address.

    Raises:
        ReadError, TransientReadError: it cannot be opened.
    """
    try:
        container = av.open(path, options={**safe_options(), **(options or {})})
    except av.ArgumentError as error:
        cause = what_it_is(path) or "damaged, or a playlist or script that names other files"
        raise ReadError(f"{path}: {cause} ({error.strerror})") from error
    except av.InvalidDataError as error:
        meaning = what_it_is(path)
        said = f"{meaning} ({cause_of(error)})" if meaning else cause_of(error)
        raise ReadError(f"{path}: {said}") from error
    except DECODE_ERRORS as error:
        kind = TransientReadError if isinstance(error, TRANSIENT) else ReadError
        raise kind(f"{path}: {cause_of(error)}") from error
    refuse_picture(container, path)
    return container


def refuse_picture(container: Any, path: str) -> None:
    """Close a container of one picture, and raise a ReadError."""
    name = container.format.name
    if name.endswith(PICTURE) or name == "ico":
        container.close()
        kind_of = name.removesuffix(PICTURE).upper()
        raise ReadError(f"{path}: a picture ({kind_of}), no video; docs/images.md names those read")


def cause_of(error: BaseException) -> str:
    """First line of an error's message, without number and path."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = str(text).strip().splitlines()[0]
    if isinstance(error, av.ArgumentError):  # FFmpeg's answer to `max_pixels`
        line += f"; frames above {MAX_PIXELS:,} pixels are refused so"
    return line


def best_stream(container: Any, path: str) -> Any:
    """The container's best video stream, set to one thread: more conceal damage in another way.

    The cover of a song (an attached picture) does not count.

    Raises:
        ReadError: there is none, or its header promises more frames than `bounds.MAX_FRAMES`.
    """
    stream = container.streams.best("video")
    if stream is not None and stream.disposition & Disposition.attached_pic:
        moving = [
            s for s in container.streams.video if not s.disposition & Disposition.attached_pic
        ]
        if not moving:
            raise ReadError(f"{path}: no video; its only picture is a cover (an attached picture)")
        stream = moving[0]
    if stream is None or stream.codec_context is None:
        raise ReadError(f"{path}: no video stream that can be decoded")
    if problem := count_problem(stream.frames):
        raise ReadError(f"{path}: by its header {problem}")
    stream.codec_context.options = dict(LIMITS)
    stream.codec_context.thread_count = 1
    stream.codec_context.thread_type = "NONE"
    return stream


def data_packets(container: Any, stream: Any, faults: list[Exception]) -> Iterator[Any]:
    """Yield the stream's packets with data; they end at a demuxing error, added to `faults`."""
    ended = False
    while not ended:
        try:
            for packet in container.demux(stream):
                if packet.size:  # an empty packet would switch the decoder to draining
                    yield packet
            ended = True
        except IndexError:  # PyAV's, for a stream that appears after the file was opened: not ours
            continue
        except DECODE_ERRORS as error:
            faults.append(error)
            ended = True


def decode(context: Any, packet: Any, faults: list[Exception]) -> list[Any]:
    """Frames that one packet (None: the end) yields; a decoding error is added to `faults`."""
    try:
        return list(context.decode(packet))
    except DECODE_ERRORS as error:
        faults.append(error)
        return []


def read_sequentially(
    path: str,
    wanted: Sequence[int],
    checks: np.ndarray | None = None,
    odd: list[int] | None = None,
) -> list[np.ndarray]:
    """Read the frames at `wanted` (ascending, distinct), decoding from frame 0 to the last of them.

    Returns fewer frames than wanted if the stream ends early.

    Args:
        checks: `frame_checksum` of each frame of the video.
        odd: the indices whose frames have another checksum are added to it.

    Raises:
        ReadError: the file cannot be opened, a frame not converted, or there are too many.
        TransientReadError: frames are missing or odd, and an error was met that need not be the
            file's fault.
    """
    found: list[np.ndarray] = []
    faults: list[Exception] = []
    convert = VideoReformatter()
    for position, (frame, size) in enumerate(_frames(path, faults)):
        if position == wanted[len(found)]:
            if checks is not None and odd is not None and frame_checksum(frame) != checks[position]:
                odd.append(position)
            found.append(converted(path, convert, frame, position, size))
            if len(found) == len(wanted):
                break
    fault = next((fault for fault in faults if isinstance(fault, TRANSIENT)), None)
    if fault is not None and (odd or len(found) < len(wanted)):
        raise TransientReadError(f"{path}: {cause_of(fault)}")
    return found


def all_frames(path: str) -> Iterator[np.ndarray]:
    """Yield every frame (H, W, 3) uint8 of a sequential decode.

    Raises:
        ReadError: the file cannot be opened, or no frame decodes.
        TransientReadError: frames may be missing for a reason that need not be the file's fault.
    """
    faults: list[Exception] = []
    number, convert = 0, VideoReformatter()
    for decoded, size in _frames(path, faults):
        try:
            frame = converted(path, convert, decoded, number, size)
        except ReadError as error:  # the video ends here, see `survey`
            if not number or isinstance(error.__cause__, MemoryError):
                raise
            break
        yield frame
        number += 1
    for fault in faults:
        if isinstance(fault, MemoryError):
            raise TransientReadError(f"{path}: {cause_of(fault)}")
    if any(isinstance(fault, TRANSIENT) for fault in faults) and (why := unreadable_bytes(path)):
        raise TransientReadError(f"{path}: {why}")
    if not number:
        cause = cause_of(faults[0]) if faults else "the stream is empty"
        raise ReadError(f"{path}: no frame decodes ({cause})")


def _frames(path: str, faults: list[Exception]) -> Iterator[tuple[Any, tuple[int, int]]]:
    """Yield each decoded frame in order, with the width and height in pixels of the first one."""
    size: tuple[int, int] | None = None
    position = 0
    with open_container(path) as container:
        stream = best_stream(container, path)
        for packet in itertools.chain(data_packets(container, stream, faults), [None]):
            for frame in decode(stream.codec_context, packet, faults):
                refuse_count(path, position + 1)
                size = size or shown_size(frame)
                yield frame, size
                position += 1


def converted(
    path: str, convert: VideoReformatter, frame: Any, position: int, size: tuple[int, int]
) -> np.ndarray:
    """Return `upright_rgb`, or raise a ReadError that names the file and the frame."""
    try:
        return upright_rgb(convert, frame, size)
    except DECODE_ERRORS as error:
        raise ReadError(f"{path}: frame {position}: {cause_of(error)}") from error


def upright_rgb(convert: VideoReformatter, frame: Any, size: tuple[int, int]) -> np.ndarray:
    """Convert a decoded frame to upright RGB (H, W, 3) uint8; a view of memory of its own.

    Args:
        size: width and height in pixels to scale it to, as shown upright.
    """
    # By default every converter starts threads of its own: slower, and unsafe to fork.
    mirrored, turns = orientation(frame)
    before = size[::-1] if turns % 2 else size
    converted = convert.reformat(frame, *before, format="rgb24", threads=1)
    array = converted.to_ndarray()
    if converted is frame:
        # Damaged frames show what their memory held before. The decoder must get that memory back
        # whether or not a frame is wanted, or later frames would differ.
        array = array.copy()
    return np.rot90(array[:, ::-1] if mirrored else array, turns)
