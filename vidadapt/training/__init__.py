"""Train: set up, fit, log, profile."""

from vidadapt.training.grid import check_grid, read_grid, train_grid
from vidadapt.training.log import SUMMARY, say_start, summarise
from vidadapt.training.loop import fit
from vidadapt.training.memory import peak_memory, process_memory, reset_peak
from vidadapt.training.optim import build_optimizer, parameter_groups, set_lr
from vidadapt.training.profiling import profiled
from vidadapt.training.run import train
from vidadapt.training.setup import Setup, batches_of, load_lists, read_command, set_up
from vidadapt.training.trackers import TRACKERS, Opened, Tracker
from vidadapt.training.validation import validation_of

__all__ = [
    "SUMMARY",
    "TRACKERS",
    "Opened",
    "Setup",
    "Tracker",
    "batches_of",
    "build_optimizer",
    "check_grid",
    "fit",
    "load_lists",
    "parameter_groups",
    "peak_memory",
    "process_memory",
    "profiled",
    "read_command",
    "read_grid",
    "reset_peak",
    "say_start",
    "set_lr",
    "set_up",
    "summarise",
    "train",
    "train_grid",
    "validation_of",
]
