"""Files: checksums, locks, writing them whole, reads tried again, and untrusted archives."""

from vidadapt.files.archives import NotStored, members_of, require_stored
from vidadapt.files.checksum import checksum
from vidadapt.files.locks import LOCK, Held, Lock, held, held_folder, refuse_held
from vidadapt.files.retrying import PATIENCE, Patience, warn_of_retries
from vidadapt.files.writing import (
    GO_ON,
    NO_ROOM,
    WriteError,
    append_lines,
    as_json,
    replaced,
    unwritten,
    write_json,
    write_text,
    writing,
)

__all__ = [
    "GO_ON",
    "LOCK",
    "NO_ROOM",
    "PATIENCE",
    "Held",
    "Lock",
    "NotStored",
    "Patience",
    "WriteError",
    "append_lines",
    "as_json",
    "checksum",
    "held",
    "held_folder",
    "members_of",
    "refuse_held",
    "replaced",
    "require_stored",
    "unwritten",
    "warn_of_retries",
    "write_json",
    "write_text",
    "writing",
]
