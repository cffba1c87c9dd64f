"""Batches of training clips and items of evaluation, loaded by processes that may hang or die.

Training leaves a clip that cannot be loaded out of its batch, up to a cap, see `skips`; evaluation
marks such a video as unreadable, and never leaves one out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from vidadapt.data.changes import ChangedVideo, Changes
from vidadapt.data.clips import VIEWS, EvalViews, TrainClips
from vidadapt.data.epochs import EpochBatches, SampleKey
from vidadapt.data.skips import SkipLog
from vidadapt.data.transforms import normalize
from vidadapt.files import is_url
from vidadapt.processes import Lost, Pool, Work
from vidadapt.video import ReadError

DIED = 2  # times that a clip kills its process until it is given up


@dataclass(frozen=True)
class Unread:
    """A clip that raised `ReadError`: its key, the message, the seconds that were spent, and
    whether its file has changed since it was counted."""

    key: SampleKey
    reason: str
    seconds: float
    changed: bool


class TrainLoader:
    """The micro-batches of this rank; its clips are loaded ahead, by processes that last.

        loader.batch_sampler.set_epoch(epoch)
        for batch in loader:
            ...

    A batch is a dict with `clip` (B, 3, T, S, S) uint8, `label` and `index` (B,) int64, places in
    `dataset.samples`, and `again`, see `TrainClips`. The clips' memory is channels-last, as after
    the resize; `transforms.normalize` puts the channels first, on the device. A pass begins where
    the sampler does, and decodes nothing before that.

    Without a log, a clip that cannot be loaded ends the pass, see `of`. With the log of a run it is
    skipped: there are as many batches as the sampler has, `len()`; one may be smaller, and None
    where no clip is left. `log.met` is how many clips this process has skipped in the epoch. A pass
    raises `skips.TooManySkipped` when these and `log.known()` are too many; with several processes
    pass `log.check` the sum of all their `met` and `log.known()`.

    Args:
        dataset: the clips.
        batch_sampler: which clips are in which batch.
        normalization: key of `transforms.NORMALIZATIONS`, for `prepare`.
        clip_timeout: seconds for one clip, of clips that share a decode for the first, which waits
            for it; None: no limit.
        num_workers: loader processes; 0: this one, where only `ReadError` is caught.
        pin_memory: whether tensors are copied to pinned memory, in a thread.

    Attributes:
        log: of the run; None: without.
        changes: of the run, for files that have changed since they were counted; with a log, a pass
            raises `ChangedVideo` where `data.changed` is `error`.
        again: first errors of the clips that a later try has loaded.
    """

    def __init__(
        self,
        dataset: TrainClips,
        batch_sampler: EpochBatches,
        *,
        normalization: str,
        clip_timeout: float | None,
        num_workers: int,
        pin_memory: bool = False,
    ) -> None:
        self.dataset, self.batch_sampler = dataset, batch_sampler
        self.pin_memory, self._normalization = pin_memory, normalization
        self.log: SkipLog | None = None
        self.changes = Changes(None, "warn")
        self.again: list[str] = []
        load, ahead = partial(_load_clip, dataset), _ahead_of(dataset)
        self._pool = Pool(
            Work(load, _joined_clips, one_thread, ahead, dataset.together),
            num_workers=num_workers,
            limit=clip_timeout,
            tries=DIED,
            unpack=partial(_pinned, _batch_of, ThreadPoolExecutor(1)) if pin_memory else _batch_of,
        )

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def prepare(self, batch: dict[str, Any], device: torch.device) -> torch.Tensor:
        """Return the uint8 `clip` (B, 3, T, S, S) as a model takes it: float32, on the device."""
        return normalize(batch["clip"].to(device, non_blocking=True), self._normalization)

    def __iter__(self) -> Iterator[Any]:
        tasks = list(self.batch_sampler)
        return self.of(tasks) if self.log is None else self._logged(tasks, self.log)

    def of(self, batches: Sequence[Sequence[SampleKey]]) -> Iterator[dict[str, Any]]:
        """Yield the batches of these keys; each has `changed`, too, see `TrainClips`.

        Raises:
            ReadError: a clip that cannot be loaded; names its file.
        """
        for found in self._pool.results(batches, in_order=True):
            if isinstance(found, Lost):
                raise ReadError(
                    f"{self.dataset.samples[found.item[1]].path}: {found.reason}; leave it out "
                    "(data.quarantine), or raise data.clip_timeout"
                )
            batch = _ready(found.result)
            for clip in batch.pop("unread"):
                raise (ChangedVideo if clip.changed else ReadError)(clip.reason)
            yield batch

    def _logged(
        self, tasks: list[list[SampleKey]], log: SkipLog
    ) -> Iterator[dict[str, Any] | None]:
        """Yield the batches without the clips that cannot be loaded, which the log lists."""
        log.begin(self.batch_sampler.epoch)
        for found in self._pool.results(tasks, barred=log.barred, in_order=True):
            if isinstance(found, Lost):
                log.skip(found.item, found.reason, found.seconds, quarantined=True)
                continue
            for key in filter(log.barred, tasks[found.place]):
                log.skip_barred(key)
            batch = _ready(found.result) if found.items else {"unread": []}
            for clip in batch.pop("unread"):
                if clip.changed:
                    self.changes.note(log.samples[clip.key[1]].path, clip.reason)
                log.skip(clip.key, clip.reason, clip.seconds, quarantined=False)
            if not batch:
                yield None
                continue
            self.again += filter(None, batch["again"])
            for index, why in zip(batch["index"].tolist(), batch.pop("changed"), strict=True):
                if why:
                    self.changes.note(log.samples[index].path, why)
            yield batch

    def close(self) -> None:
        """End the loader processes."""
        self._pool.close()


class EvalLoader:
    """The items of some videos of `EvalViews`, in order; every pass yields all of them.

    A video that hangs or kills its process counts as unreadable, as if it had raised `ReadError`:
    `error` says why. In later passes it is not tried again.

    Args:
        dataset: the videos.
        indices: the videos to yield.
        clip_timeout: seconds for one clip; a video has this time for each of its clips. None: no
            limit.
        num_workers, pin_memory: see `TrainLoader`.
        changes: for files that have changed since they were counted; a pass raises `ChangedVideo`
            where `data.changed` is `error`.

    Attributes:
        again: first errors of the videos that a later try has loaded.
    """

    def __init__(
        self,
        dataset: EvalViews,
        indices: Sequence[int],
        *,
        clip_timeout: float | None,
        num_workers: int,
        pin_memory: bool,
        changes: Changes,
    ) -> None:
        self.dataset, self.indices, self.changes = dataset, indices, changes
        self.again: list[str] = []
        self._causes: dict[int, str] = {}
        self._pool = Pool(
            Work(dataset.__getitem__, join_views, one_thread, _ahead_of(dataset)),
            num_workers=num_workers,
            limit=None if clip_timeout is None else clip_timeout * dataset.num_clips,
            tries=DIED,
            unpack=partial(_pinned, views_of, ThreadPoolExecutor(1)) if pin_memory else views_of,
        )

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.of(self.indices)

    def of(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Yield the items of other videos."""
        tasks = [[index] for index in indices]
        for found in self._pool.results(tasks, barred=self._causes.__contains__, in_order=True):
            if isinstance(found, Lost):
                self._causes[found.item] = found.reason
                continue
            index = indices[found.place]
            item = _ready(found.result) if found.items else None
            item = item or self.dataset.unreadable(index, self._causes[index])
            self.again += filter(None, [item["again"]])
            if item["changed"]:
                self.changes.note(self.dataset.samples[index].path, item["changed"])
            yield item

    def close(self) -> None:
        """End the loader processes."""
        self._pool.close()


def one_thread() -> None:
    torch.set_num_threads(1)


def _ahead_of(dataset: TrainClips | EvalViews) -> Callable[[Iterable[Any]], None] | None:
    """What reads ahead; nothing where the videos are local files."""
    return dataset.ahead if is_url(dataset.samples.root) else None


def _load_clip(clips: TrainClips, key: SampleKey) -> dict[str, Any] | Unread:
    began = time.monotonic()
    try:
        return clips[key]
    except ReadError as error:
        changed = isinstance(error, ChangedVideo)
        return Unread(key, str(error), time.monotonic() - began, changed)


def _joined_clips(
    items: list[dict[str, Any] | Unread],
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """A batch whose clips are still apart: (T, S, S, 3) uint8 each, for `_batch_of`."""
    unread = [item for item in items if isinstance(item, Unread)]
    read = [item for item in items if not isinstance(item, Unread)]
    if not read:
        return {"unread": unread}, []
    about = {name: [item[name] for item in read] for name in read[0] if name != "clip"}
    clips = [np.ascontiguousarray(item["clip"].permute(1, 2, 3, 0).numpy()) for item in read]
    return {**about, "unread": unread, "clip": clips[0].shape}, clips


def _batch_of(joined: dict[str, Any], data: np.ndarray) -> dict[str, Any]:
    """The batch of `_joined_clips`, whose clips are end to end in `data`: they are not copied."""
    if "clip" not in joined:
        return joined
    clips = torch.from_numpy(data).view(-1, *joined["clip"]).permute(0, 4, 1, 2, 3)
    label = torch.from_numpy(np.stack(joined["label"]))
    label = label.long() if label.ndim == 1 else label
    return {**joined, "label": label, "index": torch.tensor(joined["index"]), "clip": clips}


def join_views(items: list[dict[str, Any]]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The item of one video whose frames are apart, and whose tensors are arrays."""
    [item] = items
    if item["frames"] is None:
        return item, []
    arrays = {name: item[name].numpy() for name in VIEWS}
    return {**item, **arrays, "frames": arrays["frames"].shape}, [arrays["frames"]]


def views_of(joined: dict[str, Any], data: np.ndarray) -> dict[str, Any]:
    """The item of `join_views`, whose frames are `data`: they are not copied."""
    if joined["frames"] is None:
        return joined
    tensors = {name: torch.from_numpy(joined[name]) for name in VIEWS[1:]}
    return {**joined, **tensors, "frames": torch.from_numpy(data).view(joined["frames"])}


def _pinned(
    build: Callable[[dict[str, Any], np.ndarray], dict[str, Any]],
    thread: ThreadPoolExecutor,
    joined: dict[str, Any],
    data: np.ndarray,
) -> Future[dict[str, Any]]:
    """Return what `build` makes, to come: a thread copies its tensors to pinned memory."""
    return thread.submit(_pin, build(joined, data), torch.cuda.current_device())


def _pin(values: dict[str, Any], device: int) -> dict[str, Any]:
    with torch.cuda.device(device):  # to which the memory belongs
        return {
            name: value.pin_memory() if isinstance(value, torch.Tensor) else value
            for name, value in values.items()
        }


def _ready(result: dict[str, Any] | Future[dict[str, Any]]) -> dict[str, Any]:
    return result.result() if isinstance(result, Future) else result
