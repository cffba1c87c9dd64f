"""Start a command on all processes, and end it with the right message and exit status."""

from vidadapt.launching.failures import located, recorded
from vidadapt.launching.start import alone, launch, restarted
from vidadapt.launching.stopping import StopRequest, stop_requests

__all__ = [
    "StopRequest",
    "alone",
    "launch",
    "located",
    "recorded",
    "restarted",
    "stop_requests",
]
