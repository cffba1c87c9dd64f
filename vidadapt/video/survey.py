"""Facts from a full decode of a file: how many frames it has, and which readers may be tried."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter

from vidadapt.video.bounds import count_problem
from vidadapt.video.checksums import frame_checksum
from vidadapt.video.orientation import shown_size
from vidadapt.video.seekable import stream_doubt
from vidadapt.video.sequential import (
    DECODE_ERRORS,
    TRANSIENT,
    ReadError,
    TransientReadError,
    best_stream,
    cause_of,
    data_packets,
    decode,
    open_container,
    unreadable_bytes,
    upright_rgb,
)


@dataclass(frozen=True)
class Look:
    """How a video looks, from its stream and its decoded frames.

    Attributes:
        container: FFmpeg's first name of it, e.g. `mov` (mp4, too), `matroska` (webm, too).
        pixel_format: of the first frame, by FFmpeg's name, e.g. `yuv420p`.
        width, height: of the first frame in pixels, as shown: after it is turned.
        rotation: of the first frame's display matrix in degrees, as in the file; it does not show
            that a picture is mirrored. Frames are shown as `orientation` reads the matrix.
        frame_rate: mean frames a second, from the stream's header, or else from the timestamps.
        duration: seconds from the first to the last frame's timestamp, plus one frame; if frames
            lack timestamps, their number divided by the header's rate. None, like the rate, if
            there are neither.
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
    """Facts found by walking through the packets of a file.

    Attributes:
        codec: codec of the best video stream, e.g. `h264`.
        header_frames: number of frames that the header promises; None if it gives none. After
            a decode, less those that an edit list hides.
        num_frames: number of frames that decode; None if nothing was decoded.
        doubt: why no seeking library (`seekers`) is tried on this file; empty: one may be tried.
        cause: the first error that was met; empty: none.
        transient: the first error that need not be the file's fault; empty: none.
        look: what the frames look like; None if none was decoded.
        uneven: how the frames differ, so that each is best decoded after all earlier ones; empty:
            they do not.
        checks: (num_frames,) uint64, `frame_checksum` of each frame; for a file that a seeking
            library reads, `array_checksum` of each as it is shown.
        packets: (num_frames,) int64, the number of the packet that each was decoded from; -1 if it
            is not known.
        keys: int64, indices of the frames at which a group of pictures begins.
    """

    codec: str
    header_frames: int | None
    num_frames: int | None
    doubt: str
    cause: str
    transient: str = ""
    look: Look | None = None
    uneven: str = ""
    checks: np.ndarray | None = field(default=None, compare=False)
    packets: np.ndarray | None = field(default=None, compare=False)
    keys: np.ndarray | None = field(default=None, compare=False)


def survey(path: str) -> Survey:
    """Decode all packets of the best video stream.

    The video ends before the first frame that cannot be converted to RGB, which is its `cause`.

    Raises:
        ReadError: the file cannot be opened, or holds no video stream or too many frames.
        TransientReadError: its bytes cannot be read.
    """
    faults: list[Exception] = []
    num_hidden = 0
    stamps: list[int | None] = []  # of each packet
    checks, packets, keys = array("Q"), array("q"), array("q")
    flags: set[tuple[bool, bool]] = set()
    ways: set[tuple[Any, ...]] = set()  # size and format first: what decides a conversion
    look: Look | None = None
    convert, ended = VideoReformatter(), False
    with open_container(path) as container:
        stream = best_stream(container, path)
        context, header_frames = stream.codec_context, stream.frames or None
        codec, form = context.codec.canonical_name, container.format.name.split(",")[0]
        rate, tick = stream.average_rate, stream.time_base
        for packet in itertools.chain(data_packets(container, stream, faults), [None]):
            if packet is not None:
                stamps.append(packet.pts)
                packet.pts = len(stamps) - 1  # the frame decoded from it has it, too
                num_hidden += packet.is_discard
            if ended:
                continue  # the packets that are left are counted
            for frame in decode(context, packet, faults):
                upright = shown_size(frame)
                way = *upright, frame.format.name, frame.colorspace, frame.color_range
                if way not in ways:
                    size = (look.width, look.height) if look else upright
                    try:
                        upright_rgb(convert, frame, size)
                    except DECODE_ERRORS as error:
                        faults.append(_unshown(len(checks), frame, error))
                        ended = True
                        break
                    ways.add(way)
                look = look or _look(form, frame)
                flags.add((frame.is_corrupt, frame.interlaced_frame))
                if frame.key_frame:
                    keys.append(len(checks))
                packets.append(frame.pts if frame.pts in range(len(stamps)) else -1)
                checks.append(frame_checksum(frame))
            if problem := count_problem(max(len(checks), len(stamps))):
                raise ReadError(f"{path}: {problem}")
    cause = cause_of(faults[0]) if faults else ""
    transient = next((cause_of(fault) for fault in faults if isinstance(fault, TRANSIENT)), "")
    if transient and (why := unreadable_bytes(path)):
        raise TransientReadError(f"{path}: {why}")
    num_visible = len(stamps) - num_hidden
    if form == "mov" and header_frames and header_frames > num_visible:
        header_frames -= _num_hidden(path, num_visible)
    shown = [stamps[number] if number >= 0 else None for number in packets]
    return Survey(
        codec,
        header_frames,
        len(checks),
        cause or stream_doubt(form, codec, (look.width, look.height) if look else (0, 0)),
        cause,
        transient,
        _with_times(look, shown, rate, tick) if look else None,
        _unevenness({way[:3] for way in ways}, flags),
        *(np.array(found) for found in (checks, packets, keys)),
    )


def _unshown(position: int, frame: Any, error: Exception) -> Exception:
    """Make the fault of a frame that decodes and cannot be converted, e.g. one in YCgCo."""
    if isinstance(error, MemoryError):
        return error
    return ReadError(
        f"frame {position} cannot be converted to RGB: {cause_of(error)}; {frame.format.name}, "
        f"colour space {int(frame.colorspace)}"
    )


def _unevenness(kinds: set[tuple[int, int, str]], flags: set[tuple[bool, bool]]) -> str:
    """Return `Survey.uneven`; `flags` say of frames whether they are corrupt, and interlaced."""
    if any(is_corrupt for is_corrupt, _ in flags):
        return "corrupt frames"
    if len(kinds) > 1:
        return "frames change size or format"
    return "only some frames are interlaced" if len(flags) > 1 else ""


def _look(container: str, frame: Any) -> Look:
    """Make a `Look` from the first frame; the times are not known yet."""
    return Look(container, frame.format.name, *shown_size(frame), frame.rotation, None, None)


def _with_times(
    look: Look, shown: Sequence[int | None], rate: Fraction | None, tick: Fraction | None
) -> Look:
    """Add rate and duration to `look`, from the frames' timestamps in units of `tick` seconds."""
    stamps = [stamp for stamp in shown if stamp is not None]
    span = max(stamps) - min(stamps) if len(stamps) == len(shown) else 0
    duration = len(shown) / rate if rate else None
    if span and tick:
        duration = span * tick * Fraction(len(shown), len(shown) - 1)
        rate = rate or len(shown) / duration
    return replace(
        look,
        frame_rate=float(rate) if rate else None,
        duration=None if duration is None else float(duration),
    )


def counted(path: str) -> Survey:
    """Return `survey`, or raise ReadError if no frame decodes."""
    facts = survey(path)
    if not facts.num_frames:
        kind = TransientReadError if facts.transient else ReadError
        raise kind(f"{path}: no frame decodes ({facts.cause or 'the stream is empty'})")
    return facts


def header_facts(path: str) -> tuple[str, int | None]:
    """Codec of the best video stream, and the number of frames its header promises, or None."""
    with open_container(path) as container:
        stream = best_stream(container, path)
        return stream.codec_context.codec.canonical_name, stream.frames or None


def _num_hidden(path: str, num_visible: int) -> int:
    """Number of packets of an mp4 that its edit list hides.

    FFmpeg flags those from the key frame before the edit on, and drops the earlier ones.
    """
    with open_container(path, {"ignore_editlist": "1"}) as container:
        stream = best_stream(container, path)
        return max(0, sum(1 for _ in data_packets(container, stream, [])) - num_visible)
