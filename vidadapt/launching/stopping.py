"""Note signals that ask for an end, so that a step can be finished and a checkpoint written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from vidadapt.distributed import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@dataclass
class StopRequest:
    """A signal that asked for an end, if one did.

    Attributes:
        number: of the signal; None: none came.
        at_once: a signal raises `Stopped` where it arrives.
    """

    number: int | None = None
    at_once: bool = False

    @contextmanager
    def heeded_at_once(self) -> Iterator[None]:
        """Let a signal interrupt work that need not be finished.

        Raises:
            Stopped: a signal came before or comes within.
        """
        if self.number is not None:
            raise Stopped(self.number)
        self.at_once = True
        try:
            yield
        finally:
            self.at_once = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note SIGTERM and SIGUSR1 (a scheduler's warning), which then do not end the process."""
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        request.number = number
        if request.at_once:
            raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
