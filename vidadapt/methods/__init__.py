"""Methods that adapt a frozen backbone, one file each."""

from vidadapt.methods.inject import METHODS, apply, count_parameters, default_options, train_mode
from vidadapt.methods.losa import SideNetwork, in_autocast_type
from vidadapt.methods.merging import MERGES, merge, why_unmergeable
from vidadapt.methods.placing import chosen_slots
from vidadapt.methods.recompute import Recompute, recompute_blocks
from vidadapt.methods.state import load_trainable_state, trainable_state
from vidadapt.methods.vpt import PromptedBlock

__all__ = [
    "MERGES",
    "METHODS",
    "PromptedBlock",
    "Recompute",
    "SideNetwork",
    "apply",
    "chosen_slots",
    "count_parameters",
    "default_options",
    "in_autocast_type",
    "load_trainable_state",
    "merge",
    "recompute_blocks",
    "train_mode",
    "trainable_state",
    "why_unmergeable",
]
