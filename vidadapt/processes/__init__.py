"""Child processes: work that may crash or hang in them, how they start and end."""

from vidadapt.processes.children import LostProcess, check_temporary_folder, end_with_parent
from vidadapt.processes.isolated import run_isolated
from vidadapt.processes.pool import Done, Lost, Pool
from vidadapt.processes.worker import Work, start_from_server, start_server

__all__ = [
    "Done",
    "Lost",
    "LostProcess",
    "Pool",
    "Work",
    "check_temporary_folder",
    "end_with_parent",
    "run_isolated",
    "start_from_server",
    "start_server",
]
