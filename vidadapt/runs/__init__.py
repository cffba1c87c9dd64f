"""A run's folder: its files, checkpoints and adapters."""

from vidadapt.files import append_lines, as_json, write_json, write_text
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

__all__ = [
    "ENVIRONMENT",
    "FAILURE",
    "PROFILE",
    "RunError",
    "append_lines",
    "as_json",
    "check_free",
    "check_writable",
    "create",
    "drop_lines_from",
    "environment",
    "write_json",
    "write_text",
]
