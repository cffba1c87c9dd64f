"""Train and validate on features from a filled cache instead of clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from vidadapt.data import EpochBatches, SampleKey
from vidadapt.evaluation import Scores, collected
from vidadapt.features.plan import Cache
from vidadapt.features.store import MISSING, UNREADABLE, CacheError, Reader, Store, marks
from vidadapt.models import autocast


def _row_of(key: SampleKey, samples: int, draws: int, repeats: int) -> int:
    """Return the row of a training key (epoch, index, copy).

    >>> [_row_of((epoch, 4, 0), samples=10, draws=2, repeats=1) for epoch in range(3)]
    [4, 14, 4]
    >>> [_row_of(key, samples=10, draws=4, repeats=2) for key in [(0, 4, 0), (0, 4, 1), (1, 4, 0)]]
    [4, 14, 24]
    """
    epoch, index, copy = key
    return (epoch * repeats + copy) % draws * samples + index


class CachedBatches:
    """Batches of features instead of the training loader's clips, in the same order.

    A batch is a dict: `features`, a tuple of tensors (B, ...) in the stored types; `label` (B,)
    int64 or (B, K) bool, and `index` (B,) int64. A thread gathers the next one while one is used.

    Args:
        cached: filled.
        labels: of the training samples.
    """

    def __init__(self, cached: Cache, labels: np.ndarray) -> None:
        loader = cached.loaders["train"]
        self.cached, self.reader = cached, _whole(cached.stores["train"])
        self.batch_sampler = cast(EpochBatches, loader.batch_sampler)
        self.pin_memory = loader.pin_memory
        self.labels = torch.from_numpy(labels)
        self.labels = self.labels.long() if labels.ndim == 1 else self.labels

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        coming: Future[dict[str, Any]] | None = None
        # Pinned memory belongs to the device that is current in the thread.
        device = self.cached.world.device
        current = partial(torch.cuda.set_device, device) if self.pin_memory else None
        with ThreadPoolExecutor(1, initializer=current) as thread:
            for keys in self.batch_sampler:
                ready, coming = coming, thread.submit(self._batch, keys)
                if ready is not None:
                    yield ready.result()
            if coming is not None:
                yield coming.result()

    def _batch(self, keys: list[SampleKey]) -> dict[str, Any]:
        cfg = self.cached.cfg
        draws, repeats = cfg.cache.draws, cfg.data.repeated_augmentation
        rows = [_row_of(key, len(self.labels), draws, repeats) for key in keys]
        index = torch.tensor([index for _, index, _ in keys])
        return {
            "features": self.reader.rows(rows, pin_memory=self.pin_memory),
            "label": self.labels[index],
            "index": index,
        }

    def prepare(self, batch: dict[str, Any], device: torch.device) -> tuple[Tensor, ...]:
        """The features of a batch as the model takes them, see `halves.run_from_features`."""
        return self.reader.computed(batch["features"], device)


@torch.no_grad()
def score_features(
    cached: Cache,
    split: str,
    *,
    paths: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    num_classes: int,
) -> Scores:
    """Scores of one view of every video, see `views.score_views`, from its features.

    The batches are the same with any number of processes.
    """
    model, store, world = cached.parts.model, cached.stores[split], cached.world
    model.eval()
    reader, found = _whole(store), marks(store)
    mine: list[tuple[int, np.ndarray | None, str]] = []
    step = cached.cfg.eval.views_per_forward
    for first in range(world.rank * step, len(paths), world.size * step):
        rows = range(first, min(first + step, len(paths)))
        readable = [row for row in rows if found[row] != UNREADABLE]
        why = f"could not be read when {store.folder} was filled"
        mine += [(row, None, why) for row in rows if found[row] == UNREADABLE]
        if readable:
            features = reader.computed(reader.rows(readable), world.device)
            with autocast(world.device, cached.precision):
                logits = cached.parts.logits(features).float().cpu().numpy()
            mine += [(row, logits[i : i + 1], "") for i, row in enumerate(readable)]
    return collected(mine, paths, labels, num_classes, 1, 1, world)


def _whole(store: Store) -> Reader:
    if missing := int((marks(store) == MISSING).sum()):
        raise CacheError(
            f"{store.folder}: {missing} of {store.num_rows} clips are missing; is another run "
            "writing to it, or has a file been changed? Delete the folder and start again"
        )
    return Reader(store)
