"""A run's folder: its files, checkpoints and adapters."""

from vidadapt.files import append_lines, as_json, write_json, write_text
from vidadapt.runs.assemble import adapted_model
from vidadapt.runs.checkpoints import CheckpointWriter
from vidadapt.runs.descriptions import describe
from vidadapt.runs.folder import (
    ENVIRONMENT,
    FAILURE,
    PROFILE,
    RunError,
    check_free,
    check_writable,
    create,
    drop_lines_from,
    environment,
)
from vidadapt.runs.resume import (
    check_resumable,
    check_startable,
    kept_settings,
    previous_run,
    shared_among,
    start_folder,
)

__all__ = [
    "ENVIRONMENT",
    "FAILURE",
    "PROFILE",
    "CheckpointWriter",
    "RunError",
    "adapted_model",
    "append_lines",
    "as_json",
    "check_free",
    "check_resumable",
    "check_startable",
    "check_writable",
    "create",
    "describe",
    "drop_lines_from",
    "environment",
    "kept_settings",
    "previous_run",
    "shared_among",
    "start_folder",
    "write_json",
    "write_text",
]
