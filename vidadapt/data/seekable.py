"""Whether a video can be entered at its key frames: pure arithmetic on what its packets tell."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate


def order_doubt(stamps: Sequence[int | None], keys: Sequence[int]) -> str:
    """Why counting frames from a key frame may not give their place in a sequential decode.

    It does where every group of pictures is closed: exactly the packets before a key frame are
    shown before it.

    Args:
        stamps: presentation time of each packet in decoding order; None where there is none.
        keys: ascending positions of the packets that are key frames.

    Returns:
        The reason, or an empty string where there is none.

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


def holds_idr(packet: bytes, extradata: bytes | None) -> bool:
    """Whether an H.264 packet holds a slice of an IDR picture, at which decoding can start afresh.

    Only for length-prefixed units (ISO/IEC 14496-15, as in mp4 and mkv); False for others. A key
    frame of an intra-refresh stream holds none.

    >>> avcc = bytes([1, 100, 0, 10, 0xFF])
    >>> holds_idr(bytes([0, 0, 0, 1, 0x06, 0, 0, 0, 2, 0x65, 0]), avcc)
    True
    >>> holds_idr(bytes([0, 0, 0, 2, 0x41, 0]), avcc)
    False
    """
    if not extradata or len(extradata) < 5 or extradata[0] != 1:
        return False
    prefix, at = (extradata[4] & 3) + 1, 0
    while at + prefix < len(packet):
        if packet[at + prefix] & 31 == 5:
            return True
        at += prefix + int.from_bytes(packet[at : at + prefix], "big")
    return False
