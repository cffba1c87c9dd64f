"""SHA-256 of a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vidadapt.files.retrying import Patience


def checksum(file: Path) -> str:
    """Return a file's SHA-256 in hexadecimal; a read that fails for a moment is tried again."""

    def read() -> str:
        with file.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()

    return Patience().call(read)
