"""Reads that fail for a moment are tried again, with growing pauses, up to a limit."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

Result = TypeVar("Result")

PATIENCE = 10.0  # seconds
PAUSES = (0.005, 0.045, 0.15, 0.3, 0.5)  # shares of the patience
# A server that is restarted, a volume that moves, a disk that reads at the second try. That a file
# is not there, or may not be read, is none of these.
MOMENTARY = {
    *(errno.ESTALE, errno.EIO, errno.EAGAIN, errno.ETIMEDOUT, errno.EBUSY, errno.ENOTCONN),
    *(errno.ECONNRESET, errno.ECONNREFUSED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN),
    *(errno.EREMOTEIO, errno.ENOLINK, errno.ENOMEM, errno.EMFILE, errno.ENFILE),
}


def said(again: Sequence[str]) -> list[str]:
    """A warning about reads that were tried again; none where there were none.

    >>> said(["a.mp4: Stale file handle", "b.mp4: Input/output error"])
    ['2 reads were tried again and then served, the first after: a.mp4: Stale file handle']
    """
    if not again:
        return []
    return [f"{len(again)} reads were tried again and then served, the first after: {again[0]}"]


class Patience:
    """How long one process waits for reads that fail for a moment.

    A wait in vain halves the next one, and a read that needs none makes it whole again: a disk that
    is gone costs twice the patience in all, and not once for each file.

    Args:
        seconds: of one wait, its pauses together.

    Attributes:
        again: what each failed try of the latest call met, in order; empty: it came at once.
    """

    def __init__(self, seconds: float = PATIENCE) -> None:
        self.seconds = self._left = seconds
        self.again: list[str] = []

    def call(
        self, read: Callable[[], Result], failures: tuple[type[Exception], ...] = (OSError,)
    ) -> Result:
        """What `read` returns, called again where it raises one of `failures`.

        Args:
            failures: of system errors only those in `MOMENTARY` count.

        Raises:
            Exception: whatever the last try met.
        """
        self.again = []
        for share in (*PAUSES, None):
            try:
                found = read()
            except failures as error:
                if isinstance(error, OSError) and error.errno not in MOMENTARY:
                    raise
                if share is None:
                    self._left /= 2
                    raise
                self.again.append(str(error))
                time.sleep(share * self._left)
            else:
                if not self.again:
                    self._left = self.seconds
                return found
        raise AssertionError("unreachable")

    def first(self) -> str:
        """What the first try of the latest call met; empty: it was the only one."""
        return self.again[0] if self.again else ""
