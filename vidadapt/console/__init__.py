"""Messages to people: printable names, near names, differences, progress."""

from vidadapt.console.naming import (
    class_name,
    did_you_mean,
    differing,
    printable,
    printable_lines,
    require_known,
)
from vidadapt.console.progress import duration, track

__all__ = [
    "class_name",
    "did_you_mean",
    "differing",
    "duration",
    "printable",
    "printable_lines",
    "require_known",
    "track",
]
