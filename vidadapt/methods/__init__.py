"""Methods that adapt a frozen backbone, one file each."""

from vidadapt.methods.inject import (
    MERGES,
    METHODS,
    UNMERGEABLE,
    apply,
    count_parameters,
    default_options,
    load_trainable_state,
    merge,
    train_mode,
    trainable_state,
)
from vidadapt.methods.recompute import Recompute, recompute_blocks

__all__ = [
    "MERGES",
    "METHODS",
    "UNMERGEABLE",
    "Recompute",
    "apply",
    "count_parameters",
    "default_options",
    "load_trainable_state",
    "merge",
    "recompute_blocks",
    "train_mode",
    "trainable_state",
]
