"""Files read one after the other as if they were one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO


class Joined(io.RawIOBase):
    """A readable stream over the bytes of several files; a context manager."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._waiting = list(paths)
        self._file: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read from the current file, and return how many bytes; 0 at the end of the last file."""
        while self._file is not None or self._waiting:
            if self._file is None:
                self._file = self._waiting.pop(0).open("rb")
            data = self._file.read(len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
            self._file.close()
            self._file = None
        return 0

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()
