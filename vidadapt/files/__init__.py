"""Files: checksums, locks, writing them whole, reads tried again, objects of stores, archives."""

from vidadapt.files.archives import NotStored, members_of, require_stored
from vidadapt.files.checksum import checksum
from vidadapt.files.locks import LOCK, Held, Lock, held, held_folder, refuse_held
from vidadapt.files.retrying import PATIENCE, Patience, warn_of_retries
from vidadapt.files.store_cache import Copy, fetched, place_of, store_cache
from vidadapt.files.stores import (
    State,
    absolute,
    is_url,
    joined,
    known_state,
    read_ranges,
    refuse_credentials,
    state_of,
    states_of,
    without_credentials,
)
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
    "Copy",
    "Held",
    "Lock",
    "NotStored",
    "Patience",
    "State",
    "WriteError",
    "absolute",
    "append_lines",
    "as_json",
    "checksum",
    "fetched",
    "held",
    "held_folder",
    "is_url",
    "joined",
    "known_state",
    "members_of",
    "place_of",
    "read_ranges",
    "refuse_credentials",
    "refuse_held",
    "replaced",
    "require_stored",
    "state_of",
    "states_of",
    "store_cache",
    "unwritten",
    "warn_of_retries",
    "without_credentials",
    "write_json",
    "write_text",
    "writing",
]
