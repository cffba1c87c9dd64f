"""Read from packets, before they are decoded, where decoding can begin and their display order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

# (container, codec) in which seeking libraries are tried. In others their frames were off by 1 to 5
# after a seek; in VP8, where it is damaged.
SEEKABLE = {("mov", "h264"), ("matroska", "h264"), ("matroska", "vp9")}
NARROWEST = 80  # pixels; decord gives wrong shapes for some widths up to 72
IDR_SLICE = 5  # types of H.264's units
PARAMETER_SETS = {7, 8, 13, 15}
VOP_START = b"\x00\x00\x01\xb6"
LONGEST_EMPTY = 19  # bytes; FFmpeg's MAX_NVOP_SIZE: a packet of at most this size codes no picture
BIDIRECTIONAL = 2  # of VOP types 0 to 3: intra, predicted, bidirectional, sprite


def stream_doubt(container: str, codec: str, size: tuple[int, int]) -> str:
    """Reason to try no seeking library, empty: none; with FFmpeg's names and `size` in pixels.

    >>> stream_doubt("mov", "h264", (320, 240)), stream_doubt("avi", "mpeg4", (320, 240))
    ('', 'mpeg4 in avi')
    """
    if (container, codec) not in SEEKABLE:
        return f"{codec} in {container}"
    return f"frames of {size[0]}x{size[1]}" if min(size) < NARROWEST else ""


def holds_idr(packet: bytes | memoryview, extradata: bytes | None) -> bool:
    """Check for a slice of an IDR picture in an H.264 packet: decoding can start there afresh.

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
    """Check for a parameter set in an H.264 packet that the header does not hold.

    Later pictures may need it: they cannot be decoded if the packet is skipped. Only for the
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
    """Yield the units of an H.264 packet without their length prefixes; none if it has none."""
    if not extradata or len(extradata) < 5 or extradata[0] != 1:
        return
    prefix, at = (extradata[4] & 3) + 1, 0
    while at + prefix < len(packet):
        start = at + prefix
        at = start + int.from_bytes(packet[at:start], "big")
        if at > start:
            yield packet[start:at]


def order_by_stamps(stamps: Sequence[int | None]) -> list[int] | None:
    """Numbers of packets in display order; None if a stamp is missing or occurs twice.

    Args:
        stamps: presentation time of each packet in decoding order; None where there is none.

    >>> order_by_stamps([0, 3, 1, 2])
    [0, 2, 3, 1]
    >>> order_by_stamps([0, None, 1]), order_by_stamps([0, 1, 1])
    (None, None)
    """
    known = [stamp for stamp in stamps if stamp is not None]
    if len(set(known)) < len(stamps):
        return None
    return sorted(range(len(known)), key=known.__getitem__)


def vop_types(packet: bytes) -> list[int]:
    """Types of the pictures (VOPs) in an MPEG-4 part 2 packet: two bits of each (ISO 14496-2).

    >>> vop_types(bytes.fromhex("000001b61000 000001b68000")), vop_types(b"")
    ([0, 2], [])
    """
    types = []
    at = packet.find(VOP_START)
    while 0 <= at < len(packet) - len(VOP_START):
        types.append(packet[at + len(VOP_START)] >> 6)
        at = packet.find(VOP_START, at + len(VOP_START))
    return types


def order_by_pictures(packets: Iterable[bytes]) -> list[int]:
    """Numbers of MPEG-4 part 2 packets in display order, found without timestamps.

    A bidirectional picture is shown when it is decoded, any other when the next such other one is.
    If a packet holds two pictures ("packed B-frames" of DivX and Xvid), the second is decoded with
    the next packet, which is empty. Other empty packets show nothing.

    >>> i, p, b = (VOP_START + bytes([kind << 6]) + bytes(20) for kind in (0, 1, 2))
    >>> order_by_pictures([i, p, b, b, p])
    [0, 2, 3, 1, 4]
    >>> order_by_pictures([i, p + b, bytes(8), p, bytes(8)])
    [0, 2, 1, 3]
    """
    order = []
    waiting: list[int] = []  # at most one: decoded, but not yet shown
    carried: list[int] = []
    for number, packet in enumerate(packets):
        types = carried or (vop_types(packet) if len(packet) > LONGEST_EMPTY else [])
        carried = [] if carried else types[1:2]
        if types and types[0] != BIDIRECTIONAL:
            order += waiting
            waiting = [number]
        elif types:
            order.append(number)
    return order + waiting
