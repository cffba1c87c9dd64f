"""A run's folder: its files, checkpoints and adapters."""

from vidadapt.runs.adapter_json import describe_adapter
from vidadapt.runs.adapters import SavedAdapter, load_adapted_model, load_adapter
from vidadapt.runs.assemble import adapted_model, plain_backbone
from vidadapt.runs.checkpoints import CheckpointWriter
from vidadapt.runs.differences import (
    NOT_OF_THE_BACKBONE,
    all_settings,
    backbone_differences,
    refuse_backbone,
    refuse_differences,
)
from vidadapt.runs.folder import (
    ENVIRONMENT,
    FAILURE,
    GRID,
    PROFILE,
    RunError,
    check_free,
    check_writable,
    create,
    drop_lines_from,
    environment,
)
from vidadapt.runs.from_hub import fetched
from vidadapt.runs.mirror import copy_results, mirrored
from vidadapt.runs.published import class_names, head_of_file, is_published, to_train_on
from vidadapt.runs.resume import (
    check_resumable,
    check_startable,
    kept_settings,
    previous_run,
    shared_among,
    start_folder,
)
from vidadapt.runs.start import start_from_adapter

__all__ = [
    "ENVIRONMENT",
    "FAILURE",
    "GRID",
    "NOT_OF_THE_BACKBONE",
    "PROFILE",
    "CheckpointWriter",
    "RunError",
    "SavedAdapter",
    "adapted_model",
    "all_settings",
    "backbone_differences",
    "check_free",
    "check_resumable",
    "check_startable",
    "check_writable",
    "class_names",
    "copy_results",
    "create",
    "describe_adapter",
    "drop_lines_from",
    "environment",
    "fetched",
    "head_of_file",
    "is_published",
    "kept_settings",
    "load_adapted_model",
    "load_adapter",
    "mirrored",
    "plain_backbone",
    "previous_run",
    "refuse_backbone",
    "refuse_differences",
    "shared_among",
    "start_folder",
    "start_from_adapter",
    "to_train_on",
]
