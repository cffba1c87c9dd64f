"""Write files whole or not at all, and report a disk that refuses them."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
GO_ON = "free some space there, then give the same command again (a training: with --resume)"


class WriteError(OSError):
    """A disk refused what was to be written; the message names the file and what to do."""


def unwritten(path: Path, error: BaseException) -> WriteError:
    """The error for a file that a disk refused; `error` is what a library raised."""
    why = getattr(error, "strerror", None) or str(error)
    return WriteError(f"cannot write {path} ({why}); {GO_ON}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Wrap a block that writes to `path` and does nothing else that the system can refuse.

    Raises:
        WriteError: it was refused.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise unwritten(path, error) from error


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; at the end its file is flushed and replaces `path`.

    If the block fails, `path` is as it was, and nothing is left beside it.

    Raises:
        WriteError: the disk refused the file.
    """
    unique = f"{os.getpid()}.{secrets.token_hex(4)}"
    partial = path.with_name(f".{path.name}.{unique}.partial{path.suffix}")
    try:
        with writing(path):
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
