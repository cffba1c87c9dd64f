"""Train: set up, fit, log, profile."""

from vidadapt.training.log import SUMMARY, say_start, summarise
from vidadapt.training.loop import fit
from vidadapt.training.profiling import profiled
from vidadapt.training.setup import (
    Setup,
    batches_of,
    load_lists,
    read_command,
    require_weights,
    set_up,
)
from vidadapt.training.validation import validation_of

__all__ = [
    "SUMMARY",
    "Setup",
    "batches_of",
    "fit",
    "load_lists",
    "profiled",
    "read_command",
    "require_weights",
    "say_start",
    "set_up",
    "summarise",
    "validation_of",
]
