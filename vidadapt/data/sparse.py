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

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from av.video.reformatter import VideoReformatter

from vidadapt.data.display_order import order_by_pictures, order_by_stamps
from vidadapt.data.seekable import brings_parameters, holds_idr
from vidadapt.data.sequential import (
    DECODE_ERRORS,
    ReadError,
    best_stream,
    cause_of,
    data_packets,
    open_container,
    read_sequentially,
    upright_rgb,
)
from vidadapt.data.survey import Survey, checksum

# Standards that say in each picture whether another may refer to it, so that a decoder can leave
# it out: H.264's nal_ref_idc, MPEG-4 part 2's B-VOPs.
SKIPPED = {"h264", "mpeg4"}
CODECS = SKIPPED | {"vp9"}
# No decoder is found for `avformat_find_stream_info`, which therefore decodes nothing: 0.2 ms a
# file instead of 1.3 (H.264 and VP9, 426x240). The decoder that reads the frames is PyAV's own.
UNPROBED = {"codec_whitelist": "none", "probesize": "32"}
LARGEST_GROUP = 32_000_000  # bytes of packets, which each loader process holds in memory


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

    Frames of some patterns are decoded, and each that comes out, wanted or not, is compared with
    the sequential decode. That takes about as long as another such decode; little where nothing is
    left out (VP9 in one group).

    Args:
        facts: of a survey with checksums of `CODECS`.
    """
    shown = facts.shown
    if facts.codec not in CODECS or facts.cause or not shown:
        return facts.cause or f"{facts.codec} is read sequentially"
    if any(frame.is_corrupt for frame in shown):
        return "corrupt frames"
    if len({frame.size for frame in shown}) > 1:
        return "frames change size or format"
    if len({frame.is_interlaced for frame in shown}) > 1:  # H.264: may depend on the frame before
        return "only some frames are interlaced"
    try:
        with _opened(path) as (context, groups):
            orders, renewed = {}, False
            for group in groups:
                orders[group.place] = group.order
                renewed = renewed or any(_renews(context, packet) for packet in group.packets)
        if renewed and len(orders) > 1:
            return "packets change the decoder's parameters"
        if [number for order in orders.values() for number in order] != [f.packet for f in shown]:
            return "frames are shown in another order than their packets tell"
        for wanted in _patterns(len(shown), list(orders), facts.codec):
            missing = set(wanted)
            for place, frame in _decoded(path, wanted):
                missing.discard(place)
                if checksum(frame) != shown[place].print:
                    return f"frame {place} differs where others are left out"
            if missing:
                return f"frame {min(missing)} is lost where others are left out"
    except (*DECODE_ERRORS, ReadError) as error:
        return cause_of(error)
    return ""


def _renews(context: Any, packet: Any) -> bool:
    """Whether the decoding of later groups of pictures needs something of this packet."""
    if packet.has_sidedata("new_extradata"):
        return True
    is_h264 = context.codec.canonical_name == "h264"
    return is_h264 and brings_parameters(memoryview(packet), context.extradata)


class Group(NamedTuple):
    """Packets that are decoded and shown without any others.

    A packet has its number in the file as its timestamp; `order` holds these numbers as the frames
    are shown, of which the first has the index `place` in the video.
    """

    place: int
    packets: Sequence[Any]
    order: Sequence[int]


@contextmanager
def _opened(path: str) -> Iterator[tuple[Any, Iterator[Group]]]:
    """The decoder of the best video stream, and its groups as they are read from the file."""
    with open_container(path, UNPROBED) as container:
        stream = best_stream(container, path)
        context = stream.codec_context
        yield context, _groups(path, context, data_packets(container, stream, []))


def _groups(path: str, context: Any, packets: Iterable[Any]) -> Iterator[Group]:
    codec = context.codec.canonical_name
    place = number = 0
    for part in _parts(packets, codec, context.extradata):
        by_pictures = codec == "mpeg4"  # in AVI it has no timestamps
        order = (
            order_by_pictures(map(bytes, part))
            if by_pictures
            else order_by_stamps([packet.pts for packet in part])
        )
        if order is None:
            raise ReadError(f"{path}: packets do not tell in which order they are shown")
        for i, packet in enumerate(part):
            packet.pts = number + i
        yield Group(place, part, [number + i for i in order])
        place, number = place + len(order), number + len(part)


def _parts(packets: Iterable[Any], codec: str, extradata: bytes | None) -> Iterator[list[Any]]:
    """Packets, cut where a picture that needs none before it follows all that are shown before."""
    part: list[Any] = []
    size = 0
    for packet in packets:
        enters = packet.is_keyframe and codec != "mpeg4" and packet.pts is not None
        if codec == "h264":
            enters = enters and holds_idr(memoryview(packet), extradata)
        if part and enters and all(e.pts is not None and e.pts < packet.pts for e in part):
            yield part
            part, size = [], 0
        part.append(packet)
        size += packet.size
        if size > LARGEST_GROUP:
            raise ReadError(f"a group of pictures of more than {LARGEST_GROUP / 1e6:g} MB")
    if part:
        yield part


def _decoded(path: str, wanted: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """Index in the video and frame of all that is decoded for those at `wanted`, in any order."""
    with _opened(path) as (context, groups):
        skips = context.codec.canonical_name in SKIPPED
        chosen = set(wanted)
        for group in groups:
            places = {number: group.place + i for i, number in enumerate(group.order)}
            needed = {number for number, place in places.items() if place in chosen}
            if needed and context.is_open:
                context.flush_buffers()
            last = max(needed, default=-1)
            fed = [packet for packet in group.packets if packet.pts <= last]
            for packet in [*fed, None] if needed else []:
                if skips and packet is not None:
                    context.skip_frame = "DEFAULT" if packet.pts in needed else "NONREF"
                for frame in context.decode(packet):
                    if frame.pts in places:
                        yield places[frame.pts], frame
            if group.place + len(places) > wanted[-1]:
                return


def _wanted_frames(path: str, wanted: Sequence[int]) -> np.ndarray | None:
    """Frames at `wanted`; None where not all come out."""
    convert = VideoReformatter()
    rows = {place: row for row, place in enumerate(wanted)}
    frames: np.ndarray | None = None
    for place, frame in _decoded(path, wanted):
        if place not in rows or frame.is_corrupt:
            continue
        rgb = upright_rgb(convert, frame, (frame.width, frame.height))
        if frames is None:
            frames = np.empty((len(wanted), *rgb.shape), np.uint8)
        if rgb.shape != frames.shape[1:]:
            return None
        frames[rows.pop(place)] = rgb
    return None if rows else frames


def _patterns(num_frames: int, starts: Sequence[int], codec: str) -> list[list[int]]:
    """What `flaw` has decoded: pairs of frames, between which several follow that are left out.

    With several groups, which begin at `starts`, the last frame alone, too. Where no picture is
    left out, but for one frame those of the groups after the first only: that one is decoded as a
    whole in any case.

    >>> _patterns(17, [0], "h264")
    [[0, 3, 12, 15, 16]]
    >>> _patterns(9, [0], "vp9"), _patterns(9, [0, 4], "vp9")
    ([[0]], [[0, 4, 7, 8], [8]])
    """
    last = num_frames - 1
    if codec in SKIPPED:
        pairs = sorted({last, *(place for place in range(0, num_frames, 3) if place // 6 % 2 == 0)})
    else:
        pairs = [0] if len(starts) == 1 else sorted({0, *range(starts[1], last, 3), last})
    return [pairs] if len(starts) == 1 else [pairs, [last]]
