"""Decoding only what the wanted frames need, with PyAV; bit-identical to a sequential decode.

Every packet is given its number as its timestamp, which the frame that is decoded from it carries:
so it is known which frame comes out, whatever was left out. Which packet is shown at a place is
told by the packets (`display_order`). Left out are

* groups of pictures without a wanted frame, where a key frame begins a closed group;
* what follows the last packet that holds a wanted frame;
* pictures that nothing refers to (most B-frames), unless they are wanted;
* conversion of what is decoded but not wanted;
* the frames that FFmpeg decodes when a file is opened, to learn what decoding tells anyway.

That all this yields the frames of a sequential decode is seen at each read: every frame is compared
with the checksum that such a decode has left. `flaw` tells, once for each file, whether it pays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from av.video.reformatter import VideoReformatter

from vidadapt.video.checksums import frame_checksum
from vidadapt.video.display_order import order_by_pictures, order_by_stamps
from vidadapt.video.orientation import shown_size
from vidadapt.video.seekable import brings_parameters, holds_idr
from vidadapt.video.sequential import (
    DECODE_ERRORS,
    ReadError,
    best_stream,
    cause_of,
    data_packets,
    open_container,
    upright_rgb,
)
from vidadapt.video.survey import Survey

# Standards that say in each picture whether another may refer to it, so that a decoder can leave
# it out: H.264's nal_ref_idc, MPEG-4 part 2's B-VOPs.
SKIPPED = {"h264", "mpeg4"}
CODECS = SKIPPED | {"vp9"}
# No decoder is found for `avformat_find_stream_info`, which therefore decodes nothing: 0.2 ms a
# file instead of 1.3 (H.264 and VP9, 426x240). The decoder that reads the frames is PyAV's own.
UNPROBED = {"codec_whitelist": "none", "probesize": "32"}
MOST_TRIED = 64  # frames
LARGEST_GROUP = 32_000_000  # bytes of packets, which each loader process holds in memory


def read_sparsely(path: str, checks: np.ndarray, wanted: Sequence[int]) -> np.ndarray | None:
    """Frames at `wanted` (ascending, distinct) as (T, H, W, 3) uint8, each found to be right.

    None: one does not come out, or its checksum is not that in `checks`, of each frame's.
    """
    try:
        return _wanted_frames(path, checks, wanted)
    except (*DECODE_ERRORS, ReadError):
        return None


def flaw(path: str, facts: Survey) -> str:
    """Why `read_sparsely` cannot read a file, or would often read it in vain; empty: it can.

    By what the packets tell, and a few frames of the last group of pictures.
    """
    if facts.codec not in CODECS or facts.cause:
        return facts.cause or f"{facts.codec} is read sequentially"
    if facts.uneven:
        return facts.uneven
    assert facts.checks is not None and facts.packets is not None
    try:
        with _opened(path) as (context, groups):
            orders, renewed = {}, False
            for group in groups:
                orders[group.place] = group.order
                renewed = renewed or any(_renews(context, packet) for packet in group.packets)
    except (*DECODE_ERRORS, ReadError) as error:
        return cause_of(error)
    if renewed and len(orders) > 1:
        return "packets change the decoder's parameters"
    if [number for order in orders.values() for number in order] != facts.packets.tolist():
        return "frames are shown in another order than their packets tell"
    tried = _tried(max(orders), len(facts.packets))
    if read_sparsely(path, facts.checks, tried) is None:
        return "frames differ where others are left out"
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


def _wanted_frames(path: str, checks: np.ndarray, wanted: Sequence[int]) -> np.ndarray | None:
    """See `read_sparsely`."""
    convert = VideoReformatter()
    rows = {place: row for row, place in enumerate(wanted)}
    frames: np.ndarray | None = None
    for place, frame in _decoded(path, wanted):
        if place not in rows:
            continue
        if frame_checksum(frame) != checks[place]:
            return None
        rgb = upright_rgb(convert, frame, shown_size(frame))
        if frames is None:
            frames = np.empty((len(wanted), *rgb.shape), np.uint8)
        if rgb.shape != frames.shape[1:]:
            return None
        frames[rows.pop(place)] = rgb
    return None if rows else frames


def _tried(start: int, num_frames: int) -> list[int]:
    """Frames that `flaw` has decoded: two of the group that begins at `start`, the last.

    >>> _tried(12, 40), _tried(0, 1), _tried(0, 1000)
    ([25, 39], [0], [32, 64])
    """
    end = min(num_frames - 1, start + MOST_TRIED)
    return sorted({(start + end) // 2, end})
