"""Start a command on all processes, and end it with the right message and exit status."""

from vidadapt.launching.start import alone, launch, restarted

__all__ = [
    "alone",
    "launch",
    "restarted",
]
