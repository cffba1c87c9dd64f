"""Read ahead from a store: what the next clips need is fetched while others are decoded."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from vidadapt.files import fetched
from vidadapt.video import film_of, packed_parts, tar_and_name

AT_ONCE = 16  # objects that one process reads
MOST = 256  # clips, or groups of them, whose bytes are kept for a process that takes others


class ReadAhead:
    """Clips, or groups of them, whose bytes are on their way, by key; one for each loader process.

    What cannot be fetched is not told here: it is read again when the clip is loaded, and that says
    why it fails.
    """

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None  # a process of its own makes them
        self._coming: dict[Hashable, Future[list[torch.Tensor] | None]] = {}

    def start(self, key: Hashable, file: str, indices: np.ndarray) -> None:
        """Fetch the bytes of a packed video's frames, or the whole object of another video."""
        self._threads = self._threads or ThreadPoolExecutor(AT_ONCE)
        self._coming[key] = self._threads.submit(_fetch, file, np.unique(indices).tolist())
        while len(self._coming) > MOST:
            self._coming.pop(next(iter(self._coming))).cancel()

    def take(self, key: Hashable) -> list[torch.Tensor] | None:
        """Wait for a clip's bytes, for `open_counted`; None: it has to be read."""
        coming = self._coming.pop(key, None)
        return None if coming is None or coming.exception() else coming.result()


def _fetch(file: str, wanted: Sequence[int]) -> list[torch.Tensor] | None:
    if tar_and_name(file) is not None:
        return packed_parts(file, wanted)
    fetched(film_of(file)).file.close()
    return None
