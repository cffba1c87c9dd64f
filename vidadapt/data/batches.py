"""The contract of the batches that a training loop takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch

from vidadapt.data.epochs import EpochBatches


class Batches(Protocol):
    """Batches of what is trained on: `TrainLoader` of videos, or `CachedBatches` of features."""

    @property
    def batch_sampler(self) -> EpochBatches:
        """Sampler that puts samples into batches; call its `set_epoch` before each pass."""

    def __len__(self) -> int:
        """Number of batches that this process has left in the epoch."""

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        """Yield batches {"label": int64 (B,) or bool (B, K), "index": int64 (B,), ...}.

        The rest is for `prepare`.

        A batch may be smaller than asked for, or None: what was skipped counts in no mean.
        """

    def prepare(self, batch: dict[str, Any], device: torch.device) -> Any:
        """Return what the model takes of a batch, on the device."""
