"""Untrusted zip archives in the form that `torch.save` writes."""

from __future__ import annotations

import zipfile
from pathlib import Path

from vidadapt.console import printable


class NotStored(ValueError):
    """An archive whose parts cannot be listed, or are compressed."""


def members_of(path: Path) -> list[zipfile.ZipInfo]:
    """List the members that an archive declares.

    Raises:
        NotStored: zipfile cannot read it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except Exception as error:  # a damaged archive makes zipfile fail in many ways
        cause = printable(str(error)) or type(error).__name__
        raise NotStored(f"{path} is truncated or corrupt; fetch it again ({cause})") from error


def require_stored(path: Path) -> None:
    """Refuse an archive with a compressed member; `torch.save` compresses none.

    Raises:
        NotStored: a member is compressed (named), or zipfile cannot read the archive.
    """
    for member in members_of(path):
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise NotStored(
                f"{path}: its part {printable(member.filename)} is compressed ({member.file_size:,}"
                f" bytes from {member.compress_size:,}), which torch.save never does, and is not "
                "unpacked; store the parts uncompressed"
            )
