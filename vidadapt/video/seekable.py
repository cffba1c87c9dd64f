"""Find from packets where decoding can begin: pure logic."""

from __future__ import annotations

from collections.abc import Iterator

# (container, codec) in which seeking libraries are tried. In others their frames were off by 1 to 5
# after a seek; in VP8, where it is damaged.
SEEKABLE = {("mov", "h264"), ("matroska", "h264"), ("matroska", "vp9")}
NARROWEST = 80  # pixels; decord gives wrong shapes for some widths up to 72
IDR_SLICE = 5  # types of H.264's units
PARAMETER_SETS = {7, 8, 13, 15}


def stream_doubt(container: str, codec: str, size: tuple[int, int]) -> str:
    """Reason to try no seeking library, empty: none; with FFmpeg's names and `size` in pixels.

    >>> stream_doubt("mov", "h264", (320, 240)), stream_doubt("avi", "mpeg4", (320, 240))
    ('', 'mpeg4 in avi')
    """
    if (container, codec) not in SEEKABLE:
        return f"{codec} in {container}"
    return f"frames of {size[0]}x{size[1]}" if min(size) < NARROWEST else ""


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
