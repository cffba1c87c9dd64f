"""Sequential decoding with PyAV, from frame 0: exact on every file that FFmpeg decodes.

`survey` learns what decides who may read a file; `read_sequentially` and `all_frames` read it.
"""

from __future__ import annotations

import functools
import itertools
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vidadapt.data.seekable import Shown, holds_idr, order_doubt, output_doubt, stream_doubt

DECODE_ERRORS = (av.FFmpegError, OSError, ValueError, MemoryError)
TRANSIENT = (OSError, MemoryError)  # may be the machine's fault: EIO, ESTALE, ENOMEM, EMFILE


class ReadError(Exception):
    """A video cannot be read; the message names the file and the cause."""


class TransientReadError(ReadError):
    """A video cannot be read now, by a fault that need not be the file's: disk, network, memory."""


@dataclass(frozen=True)
class Look:
    """What a video looks like, by its stream and its decoded frames.

    Attributes:
        container: by FFmpeg's first name of it, e.g. `mov` (mp4, too), `matroska` (webm, too).
        pixel_format: of the first frame, by FFmpeg's name, e.g. `yuv420p`.
        width, height: of the first frame in pixels, as shown: after the rotation.
        rotation: of the first frame's display matrix in degrees, as it stands in the file; shown
            is what `applied_turns` makes of it.
        frame_rate: mean frames a second by the stream's header, or else by the timestamps.
        duration: seconds, from the first to the last frame's timestamp and one frame more; where
            frames lack timestamps, their number by the header's rate. None, as the rate: there are
            neither.
    """

    container: str
    pixel_format: str
    width: int
    height: int
    rotation: int
    frame_rate: float | None
    duration: float | None


@dataclass(frozen=True)
class Survey:
    """What walking through the packets of a file tells.

    Attributes:
        codec: codec of the best video stream, e.g. `h264`.
        header_frames: number of frames that the header promises; None where it tells nothing. After
            a decode, less those that an edit list hides.
        num_frames: number of frames that decode; None if nothing was decoded.
        doubt: why a seeking reader may break the contract on this file; empty: no reason found.
        cause: the first error that was met; empty: none.
        transient: the first error that need not be the file's fault; empty: none.
        look: what the frames look like; None if none was decoded.
        shown: each frame that decodes, in order.
    """

    codec: str
    header_frames: int | None
    num_frames: int | None
    doubt: str
    cause: str
    transient: str = ""
    look: Look | None = None
    shown: tuple[Shown, ...] = ()


def survey(path: str, prints: Collection[str] = ()) -> Survey:
    """Decode all packets of the best video stream.

    Args:
        prints: codecs of which a checksum of each frame is taken, for `Shown.print`.

    Raises:
        ReadError: the file cannot be opened or holds no video stream.
        TransientReadError: its bytes cannot be read.
    """
    faults: list[Exception] = []
    num_hidden = 0
    stamps: list[int | None] = []
    keys: list[int] = []
    shown: list[Shown] = []
    odd = ""
    rotation = 0
    with open_container(path) as container:
        stream = best_stream(container, path)
        context, header_frames = stream.codec_context, stream.frames or None
        codec, form = context.codec.canonical_name, container.format.name.split(",")[0]
        rate, tick = stream.average_rate, stream.time_base
        field_order = getattr(context, "field_order", None)  # PyAV 18 and newer
        doubt = stream_doubt(
            form, codec, context.pix_fmt, (context.width, context.height), field_order
        )
        for packet in itertools.chain(data_packets(container, stream, faults), [None]):
            if packet is not None:
                stamps.append(packet.pts)
                packet.pts = len(stamps) - 1  # the frame that it yields has it, too
                if packet.is_keyframe:
                    keys.append(len(stamps) - 1)
                    if codec == "h264" and not (doubt or odd):
                        idr = holds_idr(bytes(packet), context.extradata)
                        odd = "" if idr else "a key frame that is no IDR picture"
                num_hidden += packet.is_discard
                if packet.is_discard or packet.is_corrupt:
                    odd = odd or "discarded or corrupt packets"
            for frame in _decode(context, packet, faults):
                size = (frame.width, frame.height, frame.format.name)
                flags = (bool(frame.key_frame), frame.is_corrupt, frame.interlaced_frame)
                rotation = rotation if shown else frame.rotation
                number = frame.pts if frame.pts in range(len(stamps)) else None
                stamp = None if number is None else stamps[number]
                check = checksum(frame) if codec in prints else 0
                shown.append(Shown(stamp, size, *flags, number, check))
    doubt = doubt or odd or order_doubt(stamps, keys)
    cause = cause_of(faults[0]) if faults else ""
    transient = next((cause_of(fault) for fault in faults if isinstance(fault, TRANSIENT)), "")
    if transient and (why := unreadable_bytes(path)):
        raise TransientReadError(f"{path}: {why}")
    num_visible = len(stamps) - num_hidden
    if form == "mov" and header_frames and header_frames > num_visible:
        header_frames -= _num_hidden(path, num_visible)
    doubt = doubt or output_doubt(shown, len(stamps), keys) or cause
    look = _look(form, shown, rotation, rate, tick) if shown else None
    return Survey(codec, header_frames, len(shown), doubt, cause, transient, look, tuple(shown))


def checksum(frame: Any) -> int:
    """CRC-32 of the pixels of a decoded frame with planes, and of how they become colours."""
    value = zlib.crc32(
        f"{frame.format.name} {frame.width}x{frame.height} {frame.rotation} "
        f"{frame.colorspace} {frame.color_range}".encode()
    )
    for plane, component in zip(frame.planes, frame.format.components, strict=False):
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # with padding
        used = plane.width * ((component.bits + 7) // 8)
        value = zlib.crc32(rows[: plane.height, :used].tobytes(), value)
    return value


def _look(
    container: str,
    shown: Sequence[Shown],
    rotation: int,
    rate: Fraction | None,
    tick: Fraction | None,
) -> Look:
    """What the decoded frames look like; `tick` is the unit of their timestamps in seconds."""
    width, height, pixel_format = shown[0].size
    if applied_turns(rotation) % 2:
        width, height = height, width
    stamps = [frame.stamp for frame in shown if frame.stamp is not None]
    span = max(stamps) - min(stamps) if len(stamps) == len(shown) else 0
    duration = len(shown) / rate if rate else None
    if span and tick:
        duration = span * tick * Fraction(len(shown), len(shown) - 1)
        rate = rate or len(shown) / duration
    return Look(
        container,
        pixel_format,
        width,
        height,
        rotation,
        float(rate) if rate else None,
        None if duration is None else float(duration),
    )


def counted(path: str, prints: Collection[str] = ()) -> Survey:
    """`survey`, but ReadError if no frame decodes."""
    facts = survey(path, prints)
    if not facts.num_frames:
        kind = TransientReadError if facts.transient else ReadError
        raise kind(f"{path}: no frame decodes ({facts.cause or 'the stream is empty'})")
    return facts


def header_facts(path: str) -> tuple[str, int | None]:
    """Codec of the best video stream, and how many frames its header promises, if it tells."""
    with open_container(path) as container:
        stream = best_stream(container, path)
        return stream.codec_context.codec.canonical_name, stream.frames or None


def unreadable_bytes(path: str) -> str:
    """Why a file's bytes cannot be read; empty if they can.

    FFmpeg also reports damage as input/output errors; this tells a failing disk from it.
    """
    try:
        with Path(path).open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass
    except OSError as error:
        return cause_of(error)
    return ""


def _num_hidden(path: str, num_visible: int) -> int:
    """Packets of an mp4 that its edit list hides.

    FFmpeg flags those from the key frame before the edit on, and drops the earlier ones.
    """
    with open_container(path, {"ignore_editlist": "1"}) as container:
        stream = best_stream(container, path)
        return max(0, sum(1 for _ in data_packets(container, stream, [])) - num_visible)


def open_container(path: str, options: dict[str, str] | None = None) -> Any:
    try:
        return av.open(path, options=options or {})
    except DECODE_ERRORS as error:
        kind = TransientReadError if isinstance(error, TRANSIENT) else ReadError
        raise kind(f"{path}: {cause_of(error)}") from error


def cause_of(error: BaseException) -> str:
    """One line of an error, without number and path."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).strip().splitlines()[0]


def best_stream(container: Any, path: str) -> Any:
    """The container's best video stream, set to one thread: more conceal damage in another way."""
    stream = container.streams.best("video")
    if stream is None or stream.codec_context is None:
        raise ReadError(f"{path}: no video stream that can be decoded")
    stream.codec_context.thread_count = 1
    stream.codec_context.thread_type = "NONE"
    return stream


def data_packets(container: Any, stream: Any, faults: list[Exception]) -> Iterator[Any]:
    """The stream's packets that hold data; a demuxing error ends them and joins `faults`."""
    try:
        for packet in container.demux(stream):
            if packet.size:  # an empty packet would switch the decoder to draining
                yield packet
    except DECODE_ERRORS as error:
        faults.append(error)


def _decode(context: Any, packet: Any, faults: list[Exception]) -> list[Any]:
    """Frames that one packet (None: the end) yields; an undecodable packet joins `faults`."""
    try:
        return list(context.decode(packet))
    except DECODE_ERRORS as error:
        faults.append(error)
        return []


def read_sequentially(path: str, wanted: Sequence[int]) -> list[np.ndarray]:
    """Frames at `wanted` (ascending, distinct), decoding from frame 0 to the last of them.

    Returns fewer frames than wanted where the stream ends before.
    """
    found: list[np.ndarray] = []
    for position, frame in enumerate(_frames(path, [])):
        if position == wanted[len(found)]:
            found.append(frame())
            if len(found) == len(wanted):
                break
    return found


def all_frames(path: str) -> Iterator[np.ndarray]:
    """Every frame (H, W, 3) uint8 of a sequential decode, one after the other.

    Raises:
        ReadError: the file cannot be opened, or no frame decodes.
        TransientReadError: frames may be missing by a fault that need not be the file's.
    """
    faults: list[Exception] = []
    number = 0
    for frame in _frames(path, faults):
        yield frame()
        number += 1
    for fault in faults:
        if isinstance(fault, MemoryError):
            raise TransientReadError(f"{path}: {cause_of(fault)}")
    if any(isinstance(fault, TRANSIENT) for fault in faults) and (why := unreadable_bytes(path)):
        raise TransientReadError(f"{path}: {why}")
    if not number:
        cause = cause_of(faults[0]) if faults else "the stream is empty"
        raise ReadError(f"{path}: no frame decodes ({cause})")


def _frames(path: str, faults: list[Exception]) -> Iterator[Callable[[], np.ndarray]]:
    """Each frame in order, as a function that converts it: only those wanted need to be."""
    size: tuple[int, int] | None = None
    convert = VideoReformatter()
    position = 0

    def rgb(frame: Any, position: int, size: tuple[int, int]) -> np.ndarray:
        try:
            return upright_rgb(convert, frame, size)
        except DECODE_ERRORS as error:
            raise ReadError(f"{path}: frame {position}: {cause_of(error)}") from error

    with open_container(path) as container:
        stream = best_stream(container, path)
        for packet in itertools.chain(data_packets(container, stream, faults), [None]):
            for frame in _decode(stream.codec_context, packet, faults):
                size = size or (frame.width, frame.height)
                yield functools.partial(rgb, frame, position, size)
                position += 1


def upright_rgb(convert: VideoReformatter, frame: Any, size: tuple[int, int]) -> np.ndarray:
    """A decoded frame as (H, W, 3) uint8 with its rotation applied; a view of memory of its own.

    Args:
        size: width and height in pixels to scale it to, before the rotation.
    """
    # By default every converter starts threads of its own: slower, and unsafe to fork.
    array = convert.reformat(frame, *size, format="rgb24", threads=1).to_ndarray()
    return np.rot90(array, applied_turns(frame.rotation))


def applied_turns(rotation: int) -> int:
    """Quarter turns to the left that show a frame upright; 0 for a rotation that means nothing.

    >>> applied_turns(-90), applied_turns(180), applied_turns(-2147483648), applied_turns(45)
    (-1, 2, 0, 0)
    """
    return rotation // 90 if rotation % 90 == 0 and abs(rotation) < 360 else 0
