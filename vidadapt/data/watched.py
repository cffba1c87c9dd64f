"""Training batches and evaluation items whose decoding is watched, see `watchdog`.

Training leaves a clip out of its batch that cannot be had, within a cap, see `skips`; evaluation
marks such a video as unreadable, and never leaves one out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, cast

from torch.utils.data import DataLoader

from vidadapt.data.changes import Changes
from vidadapt.data.clips import EvalViews
from vidadapt.data.epochs import EpochBatches
from vidadapt.data.skips import SkipLog
from vidadapt.data.watchdog import Watched


class WatchedClips:
    """The batches of a training loader without the clips that cannot be had.

        with WatchedClips(loader, clip_timeout=300, log=SkipLog(...)) as batches:
            batches.batch_sampler.set_epoch(epoch)
            for batch in batches:
                ...

    A batch is what the loader's `collate_fn` makes of the clips that are there, in their order,
    less `changed`, see `TrainClips`; a batch of which nothing is left is None. There are as many as
    the sampler has, `len()`. A pass begins where the sampler does, and decodes nothing that came
    before.

    `log.met` is how many clips this process has skipped in the epoch. A pass raises
    `skips.TooManySkipped` when these alone are too many; with several processes sum them up, add
    `log.known()`, and give that to `log.check`.

    `again` has what was met by each read of a clip that was tried again, and then served.

    Args:
        loader: of `data.train_loader`; its data set, sampler and options are used, not itself.
            With 0 workers clips are made in this process, where only `ReadError` is met.
        clip_timeout: seconds for one clip; None: any time.
        log: of the run; it must allow one clip or more for a `ReadError` not to end the pass.
        changes: of the run, for files that are no longer those that were counted. A pass raises
            `ChangedVideo` where `data.changed` says so.
    """

    def __init__(
        self, loader: DataLoader[Any], *, clip_timeout: float | None, log: SkipLog, changes: Changes
    ) -> None:
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
    """The items of some videos of `EvalViews`, in order; every one comes, in every pass.

    A video that hangs or kills its worker is one that cannot be read, as if it had raised
    `ReadError`: `error` says why. In later passes it is not tried again. `again` has what was met
    by each read that was tried again, and then served.

    Args:
        views: the videos.
        indices: those of them that come.
        clip_timeout: seconds for one clip; a video has as many times that as it has clips. None:
            any time.
        num_workers: 0: items are made in this process, and none can be watched.
        pin_memory: see `DataLoader`.
        changes: for files that are no longer those that were counted; see `WatchedClips`.
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
