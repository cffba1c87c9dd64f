"""Write files whole or not at all, and report a disk that refuses them."""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
GO_ON = "free some space there, then give the same command again (a training run: with --resume)"


class WriteError(OSError):
    """A disk refused what was to be written; the message names the file and what to do."""


def unwritten(path: Path, error: BaseException) -> WriteError:
    """Make the error for a file that a disk refused; `error` is what a library raised."""
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


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, even if several processes write it at the same time.

    Raises:
        WriteError: the disk refused it.
    """
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8")


def as_json(value: Any, *, ensure_ascii: bool = True, indent: int | None = None) -> str:
    """Format a value as JSON, which has no infinity and no NaN: they become null.

    >>> as_json({"loss": 0.5, "norms": [1.0, float("inf")]})
    '{"loss": 0.5, "norms": [1.0, null]}'
    """
    return json.dumps(_finite(value), ensure_ascii=ensure_ascii, indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole, with indents and a final newline, see `as_json`.

    Bytes of a path that are no valid Unicode are escaped, and read back as they were.
    """
    text = as_json(value, ensure_ascii=False, indent=2) + "\n"
    write_text(path, text.encode(errors="backslashreplace").decode())


def append_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Append JSON lines, see `as_json`.

    Raises:
        WriteError: the disk refused them.
    """
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.writelines(as_json(line) + "\n" for line in lines)
