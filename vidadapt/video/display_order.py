"""Display order of packets: pure logic on their timestamps and picture types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

VOP_START = b"\x00\x00\x01\xb6"
LONGEST_EMPTY = 19  # bytes; FFmpeg's MAX_NVOP_SIZE: a packet of at most this size codes no picture
BIDIRECTIONAL = 2  # of VOP types 0 to 3: intra, predicted, bidirectional, sprite


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
