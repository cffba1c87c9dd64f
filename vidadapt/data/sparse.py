"""Decoding only what the wanted frames need, with PyAV; bit-identical to a sequential decode.

Every packet is given its number as its timestamp, which the frame that is decoded from it carries:
so it is known which frame comes out, whatever was left out. Which packet is shown at a place is
told by the packets (`display_order`). Left out are

* groups of pictures without a wanted frame, where a key frame begins a closed group;
* what follows the last packet that holds a wanted frame;
* pictures that nothing refers to (most B-frames), unless they are wanted;
* conversion of what is decoded but not wanted;
* the frames that FFmpeg decodes when a file is opened, to learn what decoding tells anyway.

`flaw` tells, once for each file, whether all this yields the frames of a sequential decode.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter

from vidadapt.data.display_order import order_by_pictures, order_by_stamps
from vidadapt.data.seekable import closing, holds_idr
from vidadapt.data.sequential import (
    DECODE_ERRORS,
    ReadError,
    Survey,
    best_stream,
    cause_of,
    checksum,
    data_packets,
    open_container,
    read_sequentially,
    upright_rgb,
)

# Standards that say in each picture whether another may refer to it, so that a decoder can leave
# it out: H.264's nal_ref_idc, MPEG-4 part 2's B-VOPs.
SKIPPED = {"h264", "mpeg4"}
CODECS = SKIPPED | {"vp9"}
# No decoder is found for `avformat_find_stream_info`, which therefore decodes nothing: 0.2 ms a
# file instead of 1.3 (H.264 and VP9, 426x240). The decoder that reads the frames is PyAV's own.
UNPROBED = {"codec_whitelist": "none", "probesize": "32"}


def read_sparsely(path: str, wanted: Sequence[int]) -> Sequence[np.ndarray] | np.ndarray:
    """Frames at `wanted` (ascending, distinct) of a file in which `flaw` finds none.

    (T, H, W, 3) uint8. A frame that does not come out is looked for in a sequential decode, which
    returns fewer frames than wanted where the stream ends before.
    """
    try:
        frames = _wanted_frames(path, wanted)
    except (*DECODE_ERRORS, ReadError):
        frames = None
    return read_sequentially(path, wanted) if frames is None else frames


def flaw(path: str, facts: Survey) -> str:
    """Why `read_sparsely` must not read a file; empty: it may.

    Frames of several patterns are decoded, and each that comes out, wanted or not, is compared with
    the sequential decode. Costs about as much as that decode, or little where nothing is left out
    (VP9 in one group).

    Args:
        facts: of a survey with checksums of `CODECS`.
    """
    if facts.codec not in CODECS or facts.cause or not facts.shown:
        return facts.cause or f"{facts.codec}: no such codec"
    if any(frame.is_corrupt for frame in facts.shown):
        return "corrupt frames"
    if len({frame.size for frame in facts.shown}) > 1:
        return "frames change size or format"
    shown = facts.shown
    try:
        with opened(path) as video:
            if list(video.order) != [frame.packet for frame in shown]:
                return "frames are shown in another order than their packets tell"
            patterns = _patterns(len(shown), video.entries, facts.codec)
        for wanted in patterns:
            missing = set(wanted)
            with opened(path) as video:
                for place, frame in decoded(video, wanted):
                    missing.discard(place)
                    if checksum(frame) != shown[place].print:
                        return f"frame {place} differs where others are left out"
            if missing:
                return f"frame {min(missing)} is lost where others are left out"
    except (*DECODE_ERRORS, ReadError) as error:
        return cause_of(error)
    return ""


@dataclass(frozen=True)
class Opened:
    """A file of which all packets have been read and none has been decoded.

    Attributes:
        context: the decoder.
        packets: in decoding order; each has its number as its timestamp.
        order: numbers of the packets in the order in which their frames are shown.
        entries: numbers of the packets at which decoding may begin; 0 is the first of them.
    """

    context: Any
    packets: Sequence[Any]
    order: Sequence[int]
    entries: Sequence[int]


@contextmanager
def opened(path: str) -> Iterator[Opened]:
    """The best video stream of a file of one of the `CODECS`.

    Raises:
        ReadError: the file cannot be opened, or its packets do not tell in which order they are
            shown; other errors of `DECODE_ERRORS`.
    """
    with open_container(path, UNPROBED) as container:
        stream = best_stream(container, path)
        context = stream.codec_context
        codec = context.codec.canonical_name
        faults: list[Exception] = []
        packets = list(data_packets(container, stream, faults))
        if faults:
            raise faults[0]
        stamps = [packet.pts for packet in packets]
        by_pictures = codec == "mpeg4"  # which has no timestamps in AVI
        order = order_by_pictures(map(bytes, packets)) if by_pictures else order_by_stamps(stamps)
        if codec not in CODECS or order is None:
            raise ReadError(f"{path}: its packets do not tell in which order they are shown")
        keys = [] if by_pictures else [i for i, packet in enumerate(packets) if packet.is_keyframe]
        if codec == "h264":
            keys = [i for i in keys if holds_idr(memoryview(packets[i]), context.extradata)]
        entries = closing(stamps, keys) if keys else []
        for number, packet in enumerate(packets):
            packet.pts = number
        yield Opened(context, packets, order, sorted({0, *entries}))


def decoded(video: Opened, wanted: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """Place and frame of all that is decoded for the frames at `wanted`, in any order."""
    context, packets = video.context, video.packets
    places = {number: place for place, number in enumerate(video.order)}
    needed = {video.order[place] for place in wanted}
    skips = context.codec.canonical_name in SKIPPED
    for begin, end in pairwise([*video.entries, len(packets)]):
        last = max((number for number in needed if begin <= number < end), default=None)
        if last is None:
            continue
        if context.is_open:
            context.flush_buffers()
        for packet in [*packets[begin : last + 1], None]:
            if skips and packet is not None:
                context.skip_frame = "DEFAULT" if packet.pts in needed else "NONREF"
            for frame in context.decode(packet):
                if frame.pts in places:
                    yield places[frame.pts], frame


def _wanted_frames(path: str, wanted: Sequence[int]) -> np.ndarray | None:
    """Frames at `wanted`; None where not all come out."""
    convert = VideoReformatter()
    rows = {place: row for row, place in enumerate(wanted)}
    frames: np.ndarray | None = None
    with opened(path) as video:
        if wanted[-1] >= len(video.order):
            return None
        for place, frame in decoded(video, wanted):
            if place not in rows or frame.is_corrupt:
                continue
            rgb = upright_rgb(convert, frame, (frame.width, frame.height))
            if frames is None:
                frames = np.empty((len(wanted), *rgb.shape), np.uint8)
            if rgb.shape != frames.shape[1:]:
                return None
            frames[rows.pop(place)] = rgb
    return None if rows else frames


def _patterns(num_frames: int, entries: Sequence[int], codec: str) -> list[list[int]]:
    """What `flaw` has decoded: pairs of frames, between which several follow that are left out.

    With several groups the last frame alone, too. Where no picture is left out, frames of the
    groups after the first only: that one is decoded as a whole in any case.

    >>> _patterns(17, [0], "h264")
    [[0, 3, 12, 15, 16]]
    >>> _patterns(9, [0], "vp9"), _patterns(9, [0, 4], "vp9")
    ([[0]], [[0, 4, 7, 8]])
    """
    last = num_frames - 1
    if codec in SKIPPED:
        pairs = sorted({last, *(place for place in range(0, num_frames, 3) if place // 6 % 2 == 0)})
        return [pairs] if len(entries) == 1 else [pairs, [last]]
    return [[0]] if len(entries) == 1 else [sorted({0, *range(entries[1], last, 3), last})]
