"""Decode only what the wanted frames need, with PyAV; bit-identical to a sequential decode.

Every packet gets its number as its timestamp, and the frame decoded from it carries that number:
this identifies each frame, whatever was skipped. `packets` finds from the packets in which
order they are shown. Skipped are

* groups of pictures without a wanted frame, where a key frame begins a closed group;
* packets after the last one that holds a wanted frame;
* pictures that no other refers to (most B-frames), unless they are wanted;
* conversion of frames that are decoded but not wanted;
* the frames that FFmpeg decodes when a file is opened, to learn what decoding shows anyway.

Each read checks that the frames are those of a sequential decode: every frame is compared with its
checksum from such a decode. `flaw` checks, once for each file, whether this reader is worth trying.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from av.video.reformatter import VideoReformatter

from vidadapt.video.checksums import frame_checksum
from vidadapt.video.facts import VideoFacts
from vidadapt.video.orientation import shown_size
from vidadapt.video.packets import (
    brings_parameters,
    holds_idr,
    order_by_pictures,
    order_by_stamps,
)
from vidadapt.video.sequential import (
    DECODE_ERRORS,
    ReadError,
    best_stream,
    cause_of,
    data_packets,
    open_container,
    upright_rgb,
)

# Codecs that say in each picture whether another may refer to it, so that a decoder can skip it:
# H.264's nal_ref_idc, MPEG-4 part 2's B-VOPs.
SKIPPED = {"h264", "mpeg4"}
CODECS = SKIPPED | {"vp9"}
# `avformat_find_stream_info` finds no decoder with these, and so decodes nothing: 0.2 ms a file
# instead of 1.3 (H.264 and VP9, 426x240). The decoder that reads the frames is PyAV's own.
UNPROBED = {"codec_whitelist": "none", "probesize": "32"}
MOST_TRIED = 64  # frames
LARGEST_GROUP = 32_000_000  # bytes of packets, which each loader process holds in memory


def read_sparsely(path: str, checks: np.ndarray, wanted: Sequence[int]) -> list[np.ndarray] | None:
    """Frames at `wanted` (ascending, distinct), (H, W, 3) uint8 of one size, each one checked.

    None: one is not decoded, or its checksum is not the one in `checks` (of all frames).
    """
    try:
        return _wanted_frames(path, checks, wanted)
    except (*DECODE_ERRORS, ReadError):
        return None


def flaw(facts: VideoFacts) -> str:
    """Reason why `read_sparsely` cannot read a file, or often reads it in vain; empty: it can.

    Found from the packets, and from one or two frames of the last group of pictures.
    """
    if facts.codec not in CODECS or facts.cause:
        return facts.cause or f"{facts.codec} is read sequentially"
    if facts.uneven:
        return facts.uneven
    try:
        with opened_groups(facts.path) as (context, groups):
            orders, renewed = {}, False
            for group in groups:
                orders[group.place] = group.order
                renewed = renewed or any(_renews(context, packet) for packet in group.packets)
    except (*DECODE_ERRORS, ReadError) as error:
        return cause_of(error)
    if renewed and len(orders) > 1:
        return "packets change the decoder's parameters"
    if [number for order in orders.values() for number in order] != list(facts.packets):
        return "frames are shown in another order than their packets tell"
    tried = _tried(max(orders), len(facts.packets))
    if read_sparsely(facts.path, facts.checks, tried) is None:
        return "frames differ where others are left out"
    return ""


def _renews(context: Any, packet: Any) -> bool:
    """Check if later groups of pictures may need this packet to be decoded."""
    if packet.has_sidedata("new_extradata"):
        return True
    is_h264 = context.codec.canonical_name == "h264"
    return is_h264 and brings_parameters(memoryview(packet), context.extradata)


class Group(NamedTuple):
    """Packets that are decoded and shown without any others.

    The timestamp of a packet is its number in the file; `order` holds these numbers in display
    order. The first frame shown has the index `place` in the video.
    """

    place: int
    packets: Sequence[Any]
    order: Sequence[int]


@contextmanager
def opened_groups(path: str) -> Iterator[tuple[Any, Iterator[Group]]]:
    """Open a file: the decoder of its best video stream, and the groups as they are read."""
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
    """Split packets before a picture that needs no earlier one and is shown after all of them."""
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
    """Yield index in the video and frame for all that is decoded for `wanted`, in any order."""
    chosen = set(wanted)
    with opened_groups(path) as (context, groups):
        for group in groups:
            places = {number: group.place + i for i, number in enumerate(group.order)}
            for frame in decoded_group(context, packets_for(group, chosen)):
                if frame.pts in places:
                    yield places[frame.pts], frame
            if group.place + len(places) > wanted[-1]:
                return


def packets_for(group: Group, chosen: Set[int]) -> list[tuple[Any, bool]]:
    """Packets of a group up to the last one that holds a chosen frame, and which hold one."""
    needed = {number for i, number in enumerate(group.order) if group.place + i in chosen}
    last = max(needed, default=-1)
    return [(packet, packet.pts in needed) for packet in group.packets if packet.pts <= last]


def decoded_group(context: Any, packets: Sequence[tuple[Any, bool]]) -> Iterator[Any]:
    """Yield the frames of what `packets_for` returned, without most that nothing needs."""
    if not packets:
        return
    if context.is_open:
        context.flush_buffers()
    skips = context.codec.canonical_name in SKIPPED
    for packet, is_wanted in packets:
        if skips:
            context.skip_frame = "DEFAULT" if is_wanted else "NONREF"
        yield from context.decode(packet)
    yield from context.decode(None)


def _wanted_frames(path: str, checks: np.ndarray, wanted: Sequence[int]) -> list[np.ndarray] | None:
    """See `read_sparsely`."""
    convert = VideoReformatter()
    chosen, found = set(wanted), {}
    for place, frame in _decoded(path, wanted):
        if place not in chosen or place in found:
            continue
        if frame_checksum(frame) != checks[place]:
            return None
        found[place] = upright_rgb(convert, frame, shown_size(frame))
    if len(found) < len(wanted) or len({rgb.shape for rgb in found.values()}) > 1:
        return None
    return [found[place] for place in wanted]


def _tried(start: int, num_frames: int) -> list[int]:
    """Indices of the one or two frames that `flaw` reads; the last group begins at `start`.

    >>> _tried(12, 40), _tried(0, 1), _tried(0, 1000)
    ([25, 39], [0], [32, 64])
    """
    end = min(num_frames - 1, start + MOST_TRIED)
    return sorted({(start + end) // 2, end})
