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

__all__ = [
    "MERGES",
    "METHODS",
    "UNMERGEABLE",
    "apply",
    "count_parameters",
    "default_options",
    "load_trainable_state",
    "merge",
    "train_mode",
    "trainable_state",
]
