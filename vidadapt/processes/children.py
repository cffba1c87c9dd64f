"""Processes of ours: what they need to start, and that they end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import threading

MOST_OF_A_SOCKET = 107  # bytes of its path, on Linux
SOCKET = "/pymp-12345678/listener-12345678"  # how `multiprocessing` names one, below the folder


class LostProcess(RuntimeError):
    """Another process is gone, or does not answer; the message says which, where that is known."""


def check_temporary_folder() -> None:
    """Processes from a fork server meet at sockets in the folder for temporary files.

    Raises:
        OSError: its path is too long for them.
    """
    folder, most = tempfile.gettempdir(), MOST_OF_A_SOCKET - len(SOCKET)
    if len(os.fsencode(folder)) > most:
        raise OSError(
            f"TMPDIR: {folder} is too long for the sockets of the processes that read videos; set "
            f"it to a folder of {most} bytes at most, e.g. TMPDIR=/tmp"
        )


def end_with_parent() -> None:
    """For the start of a process of `multiprocessing`: when its parent is gone, so is it.

    Without it, what waits for the next work of a killed parent waits for ever: the queue has no
    other end to be closed, and PyTorch's loader workers, which look whether the process above them
    has changed, see the fork server there, which they themselves keep alive.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
