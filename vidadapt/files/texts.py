"""Small files of lists, given by their path or by their URL in a store."""

from __future__ import annotations

import io
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TextIO

from vidadapt.files.store_cache import fetched
from vidadapt.files.stores import is_url, refuse_credentials, state_of


def opened_text(path: str | Path) -> AbstractContextManager[TextIO]:
    """Open a UTF-8 text to read it; an object of a store is fetched, if it has changed again.

    Raises:
        OSError, ImportError, ValueError: see `stores.read_ranges`.
    """
    if not is_url(path):
        return Path(path).open(encoding="utf-8-sig")
    copy = fetched(str(path), state_of(str(path)))
    copy.file.seek(0)
    return io.TextIOWrapper(copy.file, encoding="utf-8-sig")


def read_text(path: str | Path) -> str:
    """Return what `opened_text` reads."""
    with opened_text(path) as file:
        return file.read()


def folder_of(path: str | Path) -> str:
    """Return the folder of a file, or the URL of an object's.

    >>> folder_of("s3://bucket/lists/train.txt"), folder_of("lists/train.txt")
    ('s3://bucket/lists', 'lists')
    """
    return str(path).rpartition("/")[0] if is_url(path) else str(Path(path).parent)


def inside(folder: str | Path, name: str) -> str:
    """Return the path or URL of a file in a folder.

    >>> inside("s3://bucket/lists/", "train.txt"), inside("./lists/", "train.txt")
    ('s3://bucket/lists/train.txt', 'lists/train.txt')
    """
    return f"{str(folder).rstrip('/')}/{name}" if is_url(folder) else str(Path(folder) / name)


def beside(path: str | Path, name: str) -> str:
    """Return the path or URL of another file in the same folder."""
    return inside(folder_of(path), name)


def is_there(path: str | Path) -> bool:
    """Return whether there is a file, or an object of a store.

    Raises:
        OSError, ImportError, ValueError: the store does not tell; see `stores.read_ranges`.
    """
    if not is_url(path):
        return Path(path).is_file()
    try:
        state_of(str(path))
    except (FileNotFoundError, IsADirectoryError):
        return False
    return True


def check_urls(paths: Iterable[str | None]) -> None:
    """Raise ValueError for the first URL that holds credentials, see `refuse_credentials`."""
    for path in paths:
        if path is not None and is_url(path):
            refuse_credentials(path)
