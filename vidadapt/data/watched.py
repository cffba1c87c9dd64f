"""Training batches and evaluation items whose decoding is watched, see `watchdog`.

Training leaves out of its batch a clip that cannot be loaded, up to a cap, see `skips`; evaluation
marks such a video as unreadable, and never leaves one out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, cast

import torch
from torch.utils.data import DataLoader

from vidadapt.data.changes import Changes
from vidadapt.data.clips import EvalViews
from vidadapt.data.epochs import EpochBatches
from vidadapt.data.skips import SkipLog
from vidadapt.data.transforms import normalize
from vidadapt.data.watchdog import Watched


class WatchedClips:
    """The batches of a training loader without the clips that cannot be loaded.

        with WatchedClips(loader, clip_timeout=300, log=SkipLog(...), ...) as batches:
            batches.batch_sampler.set_epoch(epoch)
            for batch in batches:
                ...

    A batch is what the loader's `collate_fn` makes of the clips that were loaded, in their order,
    without `changed`, see `TrainClips`; a batch without any clip is None. There are as many as the
    sampler has, `len()`. A pass begins where the sampler does, and decodes nothing before that.

    `log.met` is how many clips this process has skipped in the epoch. A pass raises
    `skips.TooManySkipped` when these and `log.known()` are too many; with several processes pass
    `log.check` the sum of all their `met` and `log.known()`.

    `again` lists the first error of each clip that was loaded by a later try.

    Args:
        loader: of `data.train_loader`; only its data set, sampler and options are used. With 0
            workers clips are made in this process, where only `ReadError` is caught.
        normalization: key of `transforms.NORMALIZATIONS`, for `prepare`.
        clip_timeout: seconds for one clip; None: no limit.
        log: of the run; unless it allows one clip or more, a `ReadError` ends the pass.
        changes: of the run, for files that have changed since they were counted. A pass raises
            `ChangedVideo` where `data.changed` is `error`.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        *,
        normalization: str,
        clip_timeout: float | None,
        log: SkipLog,
        changes: Changes,
    ) -> None:
        self._normalization = normalization
        self.changes = changes
        self.batch_sampler = cast(EpochBatches, loader.batch_sampler)
        self.dataset, self.log = loader.dataset, log
        self.again: list[str] = []
        self._watched = Watched(
            loader.dataset,
            loader.collate_fn,
            num_workers=loader.num_workers,
            pin_memory=loader.pin_memory,
            limit=clip_timeout,
            barred=log.barred,
            lost=log.lost,
        )

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def prepare(self, batch: dict[str, Any], device: torch.device) -> torch.Tensor:
        """Return the uint8 `clip` (B, 3, T, S, S) as a model takes it: float32, on the device."""
        return normalize(batch["clip"].to(device, non_blocking=True), self._normalization)

    def __iter__(self) -> Iterator[Any]:
        tasks = list(self.batch_sampler)
        self.log.begin(self.batch_sampler.epoch)
        for keys, (batch, unread) in zip(tasks, self._watched.results(tasks), strict=True):
            for key in filter(self.log.barred, keys):
                self.log.skip_barred(key)
            for clip in unread:
                if clip.changed:
                    self.changes.note(self.log.samples[clip.key[1]].path, clip.reason)
                self.log.unread(clip.key, clip.reason, clip.seconds)
            if batch is not None:
                self.again += filter(None, batch.get("again", ()))
                for index, why in zip(batch["index"].tolist(), batch.pop("changed"), strict=True):
                    if why:
                        self.changes.note(self.log.samples[index].path, why)
            yield batch

    def close(self) -> None:
        """End the loader's workers."""
        self._watched.close()

    def __enter__(self) -> WatchedClips:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class WatchedViews:
    """The items of some videos of `EvalViews`, in order; every pass yields all of them.

    A video that hangs or kills its worker counts as unreadable, as if it had raised `ReadError`:
    `error` says why. In later passes it is not tried again. `again` lists the first error of each
    video that was loaded by a later try.

    Args:
        views: the videos.
        indices: the videos to yield.
        clip_timeout: seconds for one clip; a video has this time for each of its clips. None: no
            limit.
        num_workers: 0: items are made in this process, and none can be watched.
        pin_memory: see `DataLoader`.
        changes: for files that have changed since they were counted; see `WatchedClips`.
    """

    def __init__(
        self,
        views: EvalViews,
        indices: Sequence[int],
        *,
        clip_timeout: float | None,
        num_workers: int,
        pin_memory: bool,
        changes: Changes,
    ) -> None:
        self.dataset, self.indices = views, indices
        self.again: list[str] = []
        self._options: dict[str, Any] = {
            "clip_timeout": clip_timeout,
            "num_workers": num_workers,
            "pin_memory": pin_memory,
            "changes": changes,
        }
        self.changes = changes
        self._causes: dict[int, str] = {}
        self._watched = Watched(
            views,
            _only,
            num_workers=num_workers,
            pin_memory=pin_memory,
            limit=None if clip_timeout is None else clip_timeout * views.num_clips,
            barred=self._causes.__contains__,
            lost=partial(_keep, self._causes),
        )

    def of(self, indices: Sequence[int]) -> WatchedViews:
        """Other items of the same data set, with workers of their own."""
        return WatchedViews(self.dataset, indices, **self._options)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        results = self._watched.results([[index] for index in self.indices])
        for index, (item, _) in zip(self.indices, results, strict=True):
            item = item or self.dataset.unreadable(index, self._causes[index])
            self.again += filter(None, [item.get("again")])
            if item["changed"]:
                self.changes.note(self.dataset.samples[index].path, item["changed"])
            yield item

    def close(self) -> None:
        """End the loader's workers."""
        self._watched.close()


def _only(items: Sequence[Any]) -> Any:
    [item] = items
    return item


def _keep(causes: dict[int, str], index: int, reason: str, seconds: float) -> None:
    causes[index] = reason
