"""Child processes: check what they need to start, and end them with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading

MOST_OF_A_SOCKET = 107  # bytes of its path, on Linux
SOCKET = "/pymp-12345678/listener-12345678"  # how `multiprocessing` names one, below the folder


class LostProcess(RuntimeError):
    """Another process is gone, or does not answer; the message says which, where that is known."""


def check_temporary_folder() -> None:
    """Check the folder for temporary files, where processes of a fork server meet at sockets.

    Raises:
        OSError: its path is too long for them.
    """
    folder, most = tempfile.gettempdir(), MOST_OF_A_SOCKET - len(SOCKET)
    if len(os.fsencode(folder)) > most:
        raise OSError(
            f"TMPDIR: {folder} is too long for the sockets of the processes that read videos; set "
            f"it to a folder of {most} bytes at most, e.g. TMPDIR=/tmp"
        )


def end_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """End this process of `multiprocessing` when its parent ends; call it at its start.

    Args:
        by: signal that it gets; SIGTERM lets a training run save itself.

    Without it, a process that waits for work from a killed parent waits for ever: its queue has no
    other end that closes, and PyTorch's loader workers, which check whether their parent process
    has changed, see the fork server there, which they themselves keep alive.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), by)

    threading.Thread(target=watch, daemon=True).start()
