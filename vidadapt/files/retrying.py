"""Retry reads that fail for a moment, with growing pauses, up to a limit."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

Result = TypeVar("Result")

PATIENCE = 10.0  # seconds
PAUSES = (0.005, 0.045, 0.15, 0.3, 0.5)  # shares of the patience
# A server that is restarted, a volume that moves, a disk that reads at the second try. A missing
# file, or one that may not be read, is none of these.
MOMENTARY = {
    *(errno.ESTALE, errno.EIO, errno.EAGAIN, errno.ETIMEDOUT, errno.EBUSY, errno.ENOTCONN),
    *(errno.ECONNRESET, errno.ECONNREFUSED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN),
    *(errno.EREMOTEIO, errno.ENOLINK, errno.ENOMEM, errno.EMFILE, errno.ENFILE),
}


def warn_of_retries(again: Sequence[str]) -> list[str]:
    """Make a warning about reads that were tried again, in a list; empty if there were none.

    >>> warn_of_retries(["a.mp4: Stale file handle", "b.mp4: Input/output error"])
    ['2 reads were tried again and then served, the first after: a.mp4: Stale file handle']
    """
    if not again:
        return []
    return [f"{len(again)} reads were tried again and then served, the first after: {again[0]}"]


class Patience:
    """Time that one process waits for reads that fail for a moment.

    A wait in vain halves the next one, and a read that succeeds at once restores the full patience:
    a disk that is gone costs twice the patience in all, instead of once for each file.

    Args:
        seconds: length of one wait: its pauses together.

    Attributes:
        again: errors after which the latest call tried again, in order; empty: it did not.
    """

    def __init__(self, seconds: float = PATIENCE) -> None:
        self.seconds = self._left = seconds
        self.again: list[str] = []

    def call(
        self, read: Callable[[], Result], failures: tuple[type[Exception], ...] = (OSError,)
    ) -> Result:
        """Return the result of `read`; call it again if it raises one of `failures`.

        Args:
            failures: of system errors only those in `MOMENTARY` count.

        Raises:
            Exception: whatever the last try raised.
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
        """Return the error of the latest call's first try; empty: it was the only one."""
        return self.again[0] if self.again else ""
