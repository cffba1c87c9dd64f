"""Start a command on all processes, and end it with the right message and exit status."""

from vidadapt.launching.failures import (
    FAILURE,
    LISTED,
    kind_named,
    located,
    name_of_status,
    read_failure,
    record,
    recorded,
)
from vidadapt.launching.start import alone, joined, launch, restarted
from vidadapt.launching.stopping import StopRequest, stop_requests

__all__ = [
    "FAILURE",
    "LISTED",
    "StopRequest",
    "alone",
    "joined",
    "kind_named",
    "launch",
    "located",
    "name_of_status",
    "read_failure",
    "record",
    "recorded",
    "restarted",
    "stop_requests",
]
