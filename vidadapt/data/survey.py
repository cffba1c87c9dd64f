"""What a full decode of a file tells: how many frames there are, and who may read them."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from vidadapt.data.bounds import count_problem
from vidadapt.data.seekable import (
    Shown,
    brings_parameters,
    holds_idr,
    order_doubt,
    output_doubt,
    stream_doubt,
)
from vidadapt.data.sequential import (
    TRANSIENT,
    ReadError,
    TransientReadError,
    applied_turns,
    best_stream,
    cause_of,
    data_packets,
    decode,
    open_container,
    unreadable_bytes,
)


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
                if codec == "h264" and not (doubt or odd):
                    brings = brings_parameters(memoryview(packet), context.extradata)
                    odd = "parameter sets that the header lacks" if brings else ""
                num_hidden += packet.is_discard
                if packet.is_discard or packet.is_corrupt:
                    odd = odd or "discarded or corrupt packets"
            for frame in decode(context, packet, faults):
                size = (frame.width, frame.height, frame.format.name)
                flags = (bool(frame.key_frame), frame.is_corrupt, frame.interlaced_frame)
                rotation = rotation if shown else frame.rotation
                number = frame.pts if frame.pts in range(len(stamps)) else None
                stamp = None if number is None else stamps[number]
                check = checksum(frame) if codec in prints else 0
                shown.append(Shown(stamp, size, *flags, number, check))
            if problem := count_problem(max(len(shown), len(stamps))):
                raise ReadError(f"{path}: {problem}")
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
    """CRC-32 of the pixels of a decoded frame with planes, and of how they become colours.

    FFmpeg converts the fields of an interlaced frame one by one.
    """
    value = zlib.crc32(
        f"{frame.format.name} {frame.width}x{frame.height} {frame.rotation} "
        f"{frame.colorspace} {frame.color_range} {frame.interlaced_frame}".encode()
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


def _num_hidden(path: str, num_visible: int) -> int:
    """Packets of an mp4 that its edit list hides.

    FFmpeg flags those from the key frame before the edit on, and drops the earlier ones.
    """
    with open_container(path, {"ignore_editlist": "1"}) as container:
        stream = best_stream(container, path)
        return max(0, sum(1 for _ in data_packets(container, stream, [])) - num_visible)
