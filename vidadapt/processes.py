"""Processes that end with the one that started them, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import threading


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
