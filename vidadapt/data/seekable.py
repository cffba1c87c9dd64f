"""Whether a video can be entered at its key frames: pure logic on what its packets and frames tell.

Each `..._doubt` returns a reason why a seeking reader may not return the frames of a sequential
decode, or an empty string where it finds none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

# (container, codec) whose frames a seeking reader was seen to return exactly from any starting
# point, given no other doubt. VP8 is left out: damage in it goes unnoticed by the decoder.
SEEKABLE = {("mov", "h264"), ("matroska", "h264"), ("matroska", "vp9")}
EIGHT_BIT = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"}
NARROWEST = 80  # pixels; decord gives wrong shapes for some widths up to 72
PROGRESSIVE = (None, 0, 1)  # FFmpeg's `field_order`: not told, unknown, progressive
IDR_SLICE = 5  # types of H.264's units
PARAMETER_SETS = {7, 8, 13, 15}


class Shown(NamedTuple):
    """What a decoder tells of one frame that it puts out.

    `packet` is the number of the packet that it was decoded from, `print` a checksum of its pixels;
    0 where none was taken.
    """

    stamp: int | None
    size: tuple[int, int, str]  # width, height, pixel format
    is_key: bool
    is_corrupt: bool
    is_interlaced: bool
    packet: int | None
    print: int


def stream_doubt(
    container: str, codec: str, pix_fmt: str | None, size: tuple[int, int], field_order: int | None
) -> str:
    """Doubt from the header: `container` and `codec` by FFmpeg's names, `size` in pixels."""
    if (container, codec) not in SEEKABLE:
        return f"{codec} in {container}"
    if pix_fmt not in EIGHT_BIT:
        return f"pixel format {pix_fmt}"
    if min(size) < NARROWEST:
        return f"frames of {size[0]}x{size[1]}"
    return "" if field_order in PROGRESSIVE else "interlaced"


def output_doubt(shown: Sequence[Shown], num_packets: int, keys: Sequence[int]) -> str:
    """Doubt from a full decode of `num_packets` packets, of which those at `keys` are key frames.

    >>> size = (64, 64, "yuv420p")
    >>> a, b = (Shown(i, size, i == 0, False, False, i, 0) for i in (0, 1))
    >>> output_doubt([a, b], 2, [0])
    ''
    >>> output_doubt([a, b], 3, [0])
    '3 packets give 2 frames'
    """
    if len(shown) != num_packets:
        return f"{num_packets} packets give {len(shown)} frames"
    if any(frame.is_corrupt for frame in shown):
        return "corrupt frames"
    if any(frame.is_interlaced for frame in shown):
        return "interlaced"
    if len({frame.size for frame in shown}) > 1:
        return "frames change size or format"
    if not all(shown[key].is_key for key in keys):
        return "packets marked as key frames are none"
    stamps = [frame.stamp for frame in shown]
    if any(a is None or b is None or a >= b for a, b in pairwise(stamps)):
        return "frames come out in another order than their timestamps"
    return ""


def order_doubt(stamps: Sequence[int | None], keys: Sequence[int]) -> str:
    """Doubt from the packets' order: may counting from a key frame give wrong places?

    It may not where every group of pictures is closed: exactly the packets before a key frame are
    shown before it.

    Args:
        stamps: presentation time of each packet in decoding order; None where there is none.
        keys: ascending positions of the packets that are key frames.

    >>> order_doubt([0, 3, 1, 2, 4, 6, 5], [0, 4])
    ''
    >>> order_doubt([0, 3, 1, 2, 6, 4, 5], [0, 4])
    'open groups of pictures'
    >>> order_doubt([0, 2, 1, None], [0])
    'missing or repeated timestamps'
    """
    known = [stamp for stamp in stamps if stamp is not None]
    if not stamps or len(set(known)) < len(stamps):
        return "missing or repeated timestamps"
    if not keys or keys[0] != 0:
        return "the first packet is no key frame"
    latest = list(accumulate(known, max))  # up to and including a packet
    earliest = list(accumulate(reversed(known), min))[::-1]  # from a packet on
    if any(latest[key] > known[key] or earliest[key] < known[key] for key in keys):
        return "open groups of pictures"
    return ""


def holds_idr(packet: bytes | memoryview, extradata: bytes | None) -> bool:
    """Whether an H.264 packet holds a slice of an IDR picture, at which decoding can start afresh.

    Only for length-prefixed units (ISO/IEC 14496-15, as in mp4 and mkv); False for others. A key
    frame of an intra-refresh stream holds none.

    >>> avcc = bytes([1, 100, 0, 10, 0xFF])
    >>> holds_idr(bytes([0, 0, 0, 1, 0x06, 0, 0, 0, 2, 0x65, 0]), avcc)
    True
    >>> holds_idr(bytes([0, 0, 0, 2, 0x41, 0]), avcc)
    False
    """
    return any(unit[0] & 31 == IDR_SLICE for unit in _units(packet, extradata))


def brings_parameters(packet: bytes | memoryview, extradata: bytes | None) -> bool:
    """Whether an H.264 packet holds a parameter set that the header does not.

    Later pictures may need it: they cannot be decoded where the packet is left out. For the
    same packets as `holds_idr`.

    >>> avcc = bytes([1, 100, 0, 10, 0xFF, 0xE1, 0, 2, 0x67, 9])
    >>> brings_parameters(bytes([0, 0, 0, 2, 0x67, 9, 0, 0, 0, 2, 0x65, 0]), avcc)
    False
    >>> brings_parameters(bytes([0, 0, 0, 2, 0x67, 8, 0, 0, 0, 2, 0x65, 0]), avcc)
    True
    """
    return any(
        unit[0] & 31 in PARAMETER_SETS and bytes(unit) not in (extradata or b"")
        for unit in _units(packet, extradata)
    )


def _units(packet: bytes | memoryview, extradata: bytes | None) -> Iterator[bytes | memoryview]:
    """The units of an H.264 packet, each without its length before it; none where it has none."""
    if not extradata or len(extradata) < 5 or extradata[0] != 1:
        return
    prefix, at = (extradata[4] & 3) + 1, 0
    while at + prefix < len(packet):
        start = at + prefix
        at = start + int.from_bytes(packet[at:start], "big")
        if at > start:
            yield packet[start:at]
