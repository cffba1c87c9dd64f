"""Write and remove objects of a store, and fetch them to a place of one's own.

An object appears whole, or not at all: so do S3 and Google Cloud Storage, and files are renamed.
Nothing here keeps two writers of one object apart, which stores do not do either.
"""

from __future__ import annotations

import errno
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from vidadapt.files.store_cache import PIECE
from vidadapt.files.stores import is_url, read_ranges, refuse_credentials, request, state_of
from vidadapt.files.writing import replaced

WRITABLE = ("s3", "gs", "file", "memory")


def check_writable_url(key: str, url: str) -> None:
    """Raise ValueError unless objects can be written below a URL, as far as its text tells.

    Args:
        key: option that gives it, for the message.
    """
    try:
        refuse_credentials(url)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    scheme, _, place = url.partition("://")
    if not is_url(url) or scheme not in WRITABLE or not place.strip("/"):
        shown = ", ".join(f"{name}://" for name in WRITABLE[:3])
        raise ValueError(f"{key}: {url}: expected the URL of a folder to write to ({shown})")


def upload(path: Path, url: str) -> None:
    """Write a file to an object, replacing it.

    Raises:
        OSError, ImportError, ValueError: see `stores.read_ranges`.
    """
    scheme, _, place = url.partition("://")
    if scheme == "file":
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        with replaced(Path(place)) as partial:
            shutil.copyfile(path, partial)
        return

    def put(fs: Any, target: str) -> None:
        fs.put_file(str(path), target)

    request(url, put)


def remove(url: str) -> None:
    """Remove an object; one that is not there is as well.

    Raises:
        OSError, ImportError, ValueError: see `stores.read_ranges`.
    """

    def delete(fs: Any, target: str) -> None:
        fs.rm_file(target)

    with suppress(FileNotFoundError):
        request(url, delete)


def download(url: str, path: Path) -> None:
    """Write an object to a file, which appears whole.

    Raises:
        OSError, ImportError, ValueError: see `stores.read_ranges`; or it changes meanwhile.
    """
    state = state_of(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as partial, partial.open("wb") as file:
        for start in range(0, state.size, PIECE):
            [data] = read_ranges(url, [(start, min(PIECE, state.size - start))])
            file.write(data)
        if state_of(url) != state:
            raise OSError(errno.EAGAIN, "the object was changed while it was read", url)
