"""Names of video and image files in folders, lists and tables: endings, headers, spellings."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from vidadapt.files import is_url

# fmt: off
VIDEO_ENDINGS = frozenset((
    "264", "265", "3g2", "3gp", "asf", "avi", "divx", "dv", "f4v", "flv", "h264", "hevc", "ivf",
    "m1v", "m2p", "m2ts", "m2v", "m4v", "mjpeg", "mjpg", "mkv", "mov", "mp4", "mpe", "mpeg", "mpg",
    "mts", "mxf", "ogg", "oggtheora", "ogm", "ogv", "qt", "rm", "rmvb", "ts", "vob", "webm", "wmv",
    "y4m",
))
# fmt: on
IMAGE_ENDINGS = frozenset(("bmp", "jfif", "jpe", "jpeg", "jpg", "png", "tif", "tiff", "webp"))
# Names that tables give to their column of paths.
PATH_COLUMNS = (
    *("path", "video", "file", "filename", "file_name", "video_path", "file_path", "video_name"),
    *("name", "id", "video_id"),
)


def is_video(name: str) -> bool:
    """Check that a file name has a video ending.

    >>> is_video("a/b.MTS"), is_video("mts"), is_video("a.txt")
    (True, False, False)
    """
    return "." in name and name.rpartition(".")[2].lower() in VIDEO_ENDINGS


def is_image(name: str) -> bool:
    """Check that a file name has an ending of images.

    >>> is_image("a/b.JPG"), is_image("jpg"), is_image("a.mp4")
    (True, False, False)
    """
    return "." in name and name.rpartition(".")[2].lower() in IMAGE_ENDINGS


def without_ending(path: str) -> str:
    """A path without its video ending, if it has one.

    >>> without_ending("a/b.c.MP4"), without_ending("a/b.c"), without_ending("a.mp4/b")
    ('a/b.c', 'a/b.c', 'a.mp4/b')
    """
    return path.rpartition(".")[0] if is_video(path) else path


def composed(text: str) -> str:
    """The text with letters and their accents joined (NFC), for comparisons.

    Macs write file names with separate accents (NFD): they look the same, but the bytes differ.

    >>> composed("cafe" + chr(0x301)) == "caf" + chr(0xe9)
    True
    """
    return unicodedata.normalize("NFC", text)


def spelled(text: str) -> str:
    """The text in ASCII, so that different spellings look different.

    >>> spelled("cafe" + chr(0x301)), spelled("caf" + chr(0xe9))
    ('cafe\\\\u0301', 'caf\\\\xe9')
    """
    return text.encode("ascii", "backslashreplace").decode()


def other_spelling(root: str | Path, path: str) -> str:
    """The one existing path below a folder that differs from a missing one only in its Unicode
    spelling; empty: there is none, or there are several.

    Args:
        path: relative to `root`.
    """
    if path.isascii() or is_url(str(root)):
        return ""
    found = [""]
    for part in path.split("/"):
        entries = {below: _entries(Path(root) / below) for below in found}
        found = [
            os.path.join(below, entry)  # noqa: PTH118
            for below, inside in entries.items()
            for entry in inside
            if composed(entry) == composed(part)
        ]
    return found[0] if len(found) == 1 else ""


def spelling_hint(root: str | Path, path: str) -> str:
    """Text to add to the message on a missing file: which one may be meant, see `other_spelling`.

    It lists folders: do not call it for thousands of files.
    """
    other = other_spelling(root, path)
    if not other:
        return ""
    return (
        f"; {spelled(other)} is there, the list has {spelled(path)}: the same letters in another "
        "Unicode spelling; prepare the list anew, or rename the file"
    )


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []
