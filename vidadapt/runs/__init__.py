"""A run's folder: its files, checkpoints and adapters."""

from vidadapt.runs.folder import (
    ENVIRONMENT,
    FAILURE,
    PROFILE,
    RunError,
    append_lines,
    as_json,
    check_free,
    check_writable,
    create,
    drop_lines_from,
    environment,
    write_json,
    write_text,
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
