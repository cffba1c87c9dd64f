"""Read from a file's own bytes what FFmpeg does not say: an image, no video, or one cut short."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

STARTS = {
    b"\x00\x05\x16\x07": "this is what macOS keeps beside a video (AppleDouble), no video",
    b"version https://git-lfs": "this names the video, which `git lfs pull` fetches",
    b"bplist": "this only names the video, which is in the cloud: fetch it first",
    b"PK\x03\x04": "this is a zip archive: unpack it",
    b"%PDF": "this is a PDF document, no video",
    b"<": "this is a page or text, no video",
}
IMAGES = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    **{b"II*\0": "tiff", b"MM\0*": "tiff", b"II+\0": "tiff", b"MM\0+": "tiff"},
}
BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # sizes of the second header of a BMP
HEIF = {b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif"}  # brands of ISO media files
SEGMENT = b"\x18\x53\x80\x67"  # the element that holds all of a Matroska file, by its id
MOST_BOXES = 1000  # files in fragments have thousands, and an index before them


def image_kind(head: bytes) -> str:
    """Tell by a file's first 64 bytes or more if it is an image: `jpeg`, `png`, `webp`, `tiff` or
    `bmp`; empty: it is none of these.

    Raises:
        ValueError: a picture of a kind that is not read. FFmpeg may show a part of it.

    >>> image_kind(b"RIFF....WEBPVP8 "), image_kind(b"RIFF....AVI LIST")
    ('webp', '')
    """
    if head[4:8] == b"ftyp" and head[8:12] in HEIF:
        raise ValueError("a HEIF or AVIF picture, which is not read: save it as JPEG or PNG")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in BMP_HEADERS:
        return "bmp"
    return next((kind for start, kind in IMAGES.items() if head.startswith(start)), "")


def what_it_is(path: str) -> str:
    """Say why a file cannot be opened as a video; empty: its first bytes do not tell.

    Only a part of each file is read, and nothing that it says is trusted.
    """
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(4096)
            if not size:
                return "the file is empty (0 bytes)"
            if not any(head):
                return "it begins with zeros, as files do that were not copied in full"
            for start, meaning in STARTS.items():
                if head.startswith(start):
                    return meaning
            if head[4:8] != b"ftyp":
                return ""
            return _without_index(file, size)
    except OSError:
        return ""


def missing_end(path: str) -> tuple[int, int] | None:
    """Bytes of a Matroska or WebM file that are here, and more that it would have if it were whole.

    None: it is whole, or does not say.
    """
    try:
        with Path(path).open("rb") as file:
            here, head = os.fstat(file.fileno()).st_size, file.read(4096)
    except OSError:
        return None
    at = head.find(SEGMENT)
    if not head.startswith(b"\x1a\x45\xdf\xa3") or at < 0 or at + 12 > len(head):
        return None
    first = at + len(SEGMENT)
    length = 9 - head[first].bit_length()  # of the number: its leading zeros, and one
    most = (1 << 7 * length) - 1
    value = int.from_bytes(head[first : first + length]) & most
    if length > 8 or value == most:  # a live recording says so that it does not know
        return None
    whole = first + length + value
    return (here, whole) if here < whole else None


def _without_index(file: BinaryIO, size: int) -> str:
    """Say that an mp4 or mov lacks its index or its end; empty: neither."""
    at = 0
    for _ in range(MOST_BOXES):
        if at >= size:
            return "its index (moov) is missing: it was not recorded or copied to the end"
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4])
        if length == 1:
            length = int.from_bytes(head[8:16])
        if length < 8 and length != 0:
            return ""
        if head[4:8] == b"moov":
            return "it ends within its index (moov)" if at + length > size else ""
        if length == 0 or at + length > size:  # 0: up to the end
            return (
                "its index (moov) is missing, which phones write last: it was not recorded, "
                "uploaded or copied to the end"
            )
        at += length
    return ""
