"""Limits for untrusted files: where list entries may lead, how large videos may be."""

from __future__ import annotations

import functools
import os
import unicodedata
from pathlib import Path

from vidadapt.files import is_url

MAX_PIXELS = 1 << 26  # of a frame: 8192 x 8192, twice 8K
MAX_FRAMES = 1 << 21  # of a video: 19 hours at 30 frames a second
ALLOW_OUTSIDE = (
    "set data.allow_outside_root true (vidadapt prepare and check_videos: --allow_outside_root) if "
    "the list is to be trusted"
)


def leads_outside(path: str, root: str | Path) -> bool:
    """Check if a list entry names, or could name, a file that is not below the root.

    An absolute path must be below the root, as written or with the root's links resolved; so must a
    URL below a root that is one, as written. `..` leads out at any place, since the part before it
    may be a link. Links themselves are followed: the owner of the folder makes them, not the list,
    and large data sets are assembled from them.

    >>> leads_outside("a/b.mp4", "/data"), leads_outside("/data/a.mp4", "/data")
    (False, False)
    >>> leads_outside("../b.mp4", "/data"), leads_outside("a/../b.mp4", "/data")
    (True, True)
    >>> leads_outside("/etc/passwd", "/data"), leads_outside("/database/a.mp4", "/data")
    (True, True)
    >>> leads_outside("s3://b/a.mp4", "/data"), leads_outside("s3://b/set/a.mp4", "s3://b/set")
    (True, False)
    """
    if ".." in path and ".." in Path(path).parts:
        return True
    return (path.startswith("/") or is_url(path)) and from_root(path, root) == path


def from_root(path: str, root: str | Path) -> str:
    """Path relative to the root, of a file below it; any other path as it is.

    Below a folder lies what is below it as written or with its links resolved; below a URL, what
    begins with it.

    >>> from_root("/data/a//b.mp4", "/data"), from_root("/data", "/data")
    ('a/b.mp4', '.')
    >>> from_root("a.mp4", "/data"), from_root("/database/a.mp4", "/data")
    ('a.mp4', '/database/a.mp4')
    >>> from_root("s3://b/set/a.mp4", "s3://b/set/")
    'a.mp4'
    """
    if is_url(path):
        return path.removeprefix(f"{str(root).rstrip('/')}/")
    if not path.startswith("/") or is_url(str(root)):
        return path
    plain = os.path.normpath(path)
    for known in _roots(str(root), os.getcwd()):  # noqa: PTH109  # a Path costs 5 us a line
        if f"{plain}/".startswith(known):
            return plain[len(known) :] or "."
    return path


@functools.lru_cache(maxsize=8)  # a list may hold a million lines
def _roots(root: str, below: str) -> tuple[str, str]:
    """The root as written and with its links resolved, both absolute, with a slash at their end."""
    whole = Path(below, root)
    written, resolved = os.path.abspath(whole), str(whole.resolve())  # noqa: PTH100
    return os.path.join(written, ""), os.path.join(resolved, "")  # noqa: PTH118


def control_character(text: str) -> str:
    """The first control character (except tab) or line separator, escaped; empty: there is none.

    >>> control_character("a\\tb"), control_character("a\\x1b[31mb"), control_character("a\\u2028b")
    ('', "'\\\\x1b'", "'\\\\u2028'")
    """
    kinds = ("Cc", "Zl", "Zp")
    return next((repr(c) for c in text if unicodedata.category(c) in kinds and c != "\t"), "")


def size_problem(width: int, height: int) -> str:
    """Reason to refuse frames of this size; empty: there is none.

    >>> size_problem(7680, 4320), size_problem(65535, 65535)
    ('', 'frames of 65535 x 65535 pixels are above the limit of 67,108,864 pixels')
    """
    if width * height <= MAX_PIXELS:
        return ""
    return f"frames of {width} x {height} pixels are above the limit of {MAX_PIXELS:,} pixels"


def count_problem(num_frames: int) -> str:
    """Reason to refuse a video of so many frames; empty: there is none.

    >>> count_problem(1000), count_problem(10**9)
    ('', '1,000,000,000 frames are above the limit of 2,097,152')
    """
    if num_frames <= MAX_FRAMES:
        return ""
    return f"{num_frames:,} frames are above the limit of {MAX_FRAMES:,}"
