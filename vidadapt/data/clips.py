"""The two datasets: random training clips, and all evaluation views of a video as one item."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from vidadapt.data.ahead import ReadAhead
from vidadapt.data.by_time import clip_frames, train_frames
from vidadapt.data.changes import ChangedVideo
from vidadapt.data.epochs import SampleKey
from vidadapt.data.plan import DataPlan
from vidadapt.data.sampling import Sampling
from vidadapt.data.seeding import seeded
from vidadapt.data.together import Found, Group, SharedReads, by_video, groups_within
from vidadapt.data.transforms import (
    PLAIN,
    Augmentation,
    Framing,
    crop_corners,
    cut_views,
    eval_frames,
    train_clip,
)
from vidadapt.files import PATIENCE, Patience
from vidadapt.lists import Videos, label_at
from vidadapt.video import (
    Frames,
    ReadError,
    TransientReadError,
    VideoFacts,
    joined_frames,
    open_counted,
    state_now,
)

RECOUNT = "The next start counts it anew"


class TrainClips(Dataset[dict[str, Any]]):
    """One random clip per key (epoch, index, copy).

    An item depends on (seed, epoch, index, copy) and its file alone, never on the worker, the
    process or the batch that asks for it. An item is a dict:
        clip: (3, T, S, S) uint8, see `transforms.train_clip` for its memory.
        label: int; of a multi-label list (K,) bool.
        index: int, place in `samples`.
        again: error of the first try to read it, if it was tried again; else empty.
        changed: why the file may not be the one that was counted, see `read_frames`; else empty.

    `clips[key]` raises `ReadError`, naming the file, where a frame cannot be decoded.
    """

    def __init__(
        self,
        samples: Videos,
        sampling: Sampling,
        *,
        crop_size: int,
        augmentation: Augmentation,
        seed: int,
        framing: Framing = PLAIN,
        patience: float = PATIENCE,
    ) -> None:
        self.patience = Patience(patience)
        self.samples, self.sampling, self.seed = samples, sampling, seed
        self.crop_size, self.augmentation, self.framing = crop_size, augmentation, framing
        self._ahead, self._shared = ReadAhead(), SharedReads()

    def __len__(self) -> int:
        return len(self.samples)

    def ahead(self, keys: Iterable[SampleKey]) -> None:
        """Begin to fetch what these clips need from a store."""
        for group in itertools.chain.from_iterable(map(self._groups, by_video(keys))):
            frames = np.concatenate(list(group.values()))
            self._ahead.start(tuple(group), self.samples.file(next(iter(group))[1]), frames)

    def together(self, keys: Iterable[SampleKey]) -> None:
        """Share decodes among these clips, which are loaded next, in this order.

        Neighbours of one video share one pass through its file, see `SharedReads`. A clip's bits
        are the same without it.
        """
        several = [copies for copies in by_video(keys) if len(copies) > 1]
        self._shared.expect(itertools.chain.from_iterable(map(self._groups, several)))

    def _groups(self, copies: Sequence[SampleKey]) -> Iterator[Group]:
        """Clips of one video that are read together, with the frames that they want."""
        facts, wanted = self.samples.facts(copies[0][1]), {}
        for key in copies:
            with seeded(self.seed, *key) as rng:
                wanted[key] = train_frames(self.sampling, facts, rng)
        return groups_within(wanted, facts)

    def __getitem__(self, key: SampleKey) -> dict[str, Any]:
        index = key[1]
        facts = self.samples.facts(index)
        with seeded(self.seed, *key) as rng:
            indices = train_frames(self.sampling, facts, rng)
            found = self._shared.read(key, indices, partial(self._read, index, facts))
            clip = train_clip(found.frames, self.crop_size, self.augmentation, self.framing)
        about = {"again": found.again, "changed": found.changed}
        return {"clip": clip, "label": self.samples.labels[index], "index": index, **about}

    def _read(
        self, index: int, facts: VideoFacts, keys: Iterable[SampleKey], indices: np.ndarray
    ) -> Found:
        take = partial(self._ahead.take, tuple(keys))
        read = partial(read_frames, self.samples.file(index), facts, indices, take)
        frames, changed = self.patience.call(read, (TransientReadError,))
        return Found(frames, changed, self.patience.first())


VIEWS = ("frames", "clips", "corners", "view_of")


class EvalViews(Dataset[dict[str, Any]]):
    """All views of one video per index: num_clips x num_crops, clip-major, decoded once.

    Short videos have clips that coincide, square ones crops that coincide: every distinct view is
    kept once. Views are cut where they are needed, see `transforms.cut_views` and `view_chunks`.
    An item is a dict, whose first four values are None where the video cannot be read:
        frames: (U, H, W, 3) uint8, the distinct frames, resized so that the short side is S.
        clips: (C', T) int64, places in `frames` of the distinct temporal clips.
        corners: (R', 2) int64, top and left of the distinct crops.
        view_of: (V,) int64, number clip * R' + crop of the distinct view for each view, which has
            the number clip * num_crops + crop.
        label: int; of a multi-label list a tuple of all.
        index: int, place in `samples`.
        error: why the video cannot be read; empty where it can.
        again: error of the first try to read it, if it was tried again; else empty.
        changed: why the file may not be the one that was counted, see `read_frames`; else empty.
    """

    def __init__(
        self,
        samples: Videos,
        sampling: Sampling,
        *,
        num_clips: int,
        num_crops: int,
        crop_size: int,
        framing: Framing = PLAIN,
        patience: float = PATIENCE,
    ) -> None:
        self.patience = Patience(patience)
        self.samples, self.sampling = samples, sampling
        self.crop_size, self.framing = crop_size, framing
        self.num_clips, self.num_crops = num_clips, num_crops
        self._ahead = ReadAhead()

    @classmethod
    def of(
        cls,
        samples: Videos,
        plan: DataPlan,
        *,
        num_clips: int | None = None,
        num_crops: int | None = None,
        patience: float = PATIENCE,
    ) -> EvalViews:
        """The views of a plan.

        Args:
            num_clips, num_crops: default: the plan's.
        """
        return cls(
            samples,
            plan.sampling,
            num_clips=plan.num_clips if num_clips is None else num_clips,
            num_crops=plan.num_crops if num_crops is None else num_crops,
            crop_size=plan.crop_size,
            framing=plan.framing,
            patience=patience,
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        facts = self.samples.facts(index)
        item = self._without_views(index, facts.error)
        if not facts.error:
            try:
                item |= self._views(index, facts)
            except ReadError as error:
                changed = str(error) if isinstance(error, ChangedVideo) else ""
                item |= {"error": str(error), "changed": changed}
        return item

    def unreadable(self, index: int, cause: str) -> dict[str, Any]:
        """The item of a video that cannot be read."""
        return self._without_views(index, f"{self.samples.file(index)}: {cause}")

    def _without_views(self, index: int, error: str) -> dict[str, Any]:
        label = label_at(self.samples.labels, index)
        about = {"label": label, "index": index, "error": error, "again": "", "changed": ""}
        return {**dict.fromkeys(VIEWS), **about}

    def ahead(self, indices: Iterable[int]) -> None:
        """Begin to fetch what the views of these videos need from a store."""
        for index in indices:
            facts = self.samples.facts(index)
            if not facts.error:
                frames = clip_frames(self.sampling, facts, self.num_clips)
                self._ahead.start(index, self.samples.file(index), frames)

    def _views(self, index: int, facts: VideoFacts) -> dict[str, Any]:
        indices = clip_frames(self.sampling, facts, self.num_clips)
        needed, places = np.unique(indices, return_inverse=True)
        take = partial(self._ahead.take, index)
        read = partial(read_frames, self.samples.file(index), facts, needed, take)
        found, changed = self.patience.call(read, (TransientReadError,))
        frames = eval_frames(joined_frames(found), self.crop_size, self.framing)
        height, width = frames.shape[1:3]
        clips, clip_of = _distinct(places.reshape(indices.shape))
        squares = crop_corners(height, width, self.num_crops, self.framing)
        corners, crop_of = _distinct(np.array(squares))
        return {
            "frames": frames,
            "clips": torch.from_numpy(clips),
            "corners": torch.from_numpy(corners),
            "view_of": torch.from_numpy((clip_of[:, None] * len(corners) + crop_of).ravel()),
            "again": self.patience.first(),
            "changed": changed,
        }


def view_chunks(
    item: Mapping[str, Any],
    views_per_chunk: int,
    device: torch.device,
    orders: torch.Tensor | None = None,
) -> Iterator[torch.Tensor]:
    """The distinct views of a readable item of `EvalViews`, in their order, cut on a device.

    Args:
        orders: (O, T) int64, on the CPU: places in a clip, in the order that its frames are shown.
            All views come in the first order, then all in the second, and so on; no chunk holds
            views of two orders. Default: one order, the clips as they are.

    Yields:
        (at most views_per_chunk, 3, T, S, S) uint8 on the device, see `transforms.cut_views`.
        Results for the views of one order, indexed by `view_of`, are those of all views.
    """
    clips = item["clips"][None] if orders is None else item["clips"][:, orders].transpose(0, 1)
    frames, clips = (part.to(device, non_blocking=True) for part in (item["frames"], clips))
    number = clips.shape[1] * len(item["corners"])
    for ordered in clips:
        for start in range(0, number, views_per_chunk):
            chosen = range(start, min(start + views_per_chunk, number))
            yield cut_views(frames, ordered, item["corners"], chosen)


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of a table, in ascending order, and which of them each row is."""
    distinct, which = np.unique(rows, axis=0, return_inverse=True)
    return distinct, which.ravel()


def read_frames(
    file: str,
    facts: VideoFacts,
    indices: np.ndarray,
    take: Callable[[], list[torch.Tensor] | None] = lambda: None,
) -> tuple[Frames, str]:
    """Read frames at `indices`, each (H, W, 3) uint8; the file is closed afterwards.

    Args:
        facts: of the file when it was counted. Their reader is known to be exact on this file.
        take: returns the bytes of a packed video's frames, once, where they were read ahead.

    Returns:
        The frames, and why the file may not be the one that was counted, naming it; empty: it is.
        Frames of a file with another size or modification time are returned if their checks are
        those of the file that was counted.

    Raises:
        ChangedVideo: the size or modification time has changed, and so have the frames.
        ReadError: see `Video.frames`.
    """
    other = _other_state(file, facts)
    try:
        with open_counted(file, facts, take()) as video:
            frames = video.each(indices)
            differs = video.changed
            # For a packed video these are the checks that its tar has now.
            now = video.facts.checks
            same = len(now) > 0 and np.array_equal(now, facts.checks)
    except TransientReadError:
        raise
    except ReadError as error:
        if other:
            raise ChangedVideo(f"{file}: {other}: {error}. {RECOUNT}") from error
        raise
    if not other:
        return frames, differs
    if differs or not same:
        raise ChangedVideo(f"{file}: {other}, and its frames are others. {RECOUNT}")
    return frames, f"{file}: {other}; the frames that were read are those counted"


def _other_state(file: str, facts: VideoFacts) -> str:
    """Say how a file's size or modification time differs from the counted file's."""
    if facts.size < 0:  # not known
        return ""
    try:
        now = state_now(file)
    except OSError:  # opening it gives a better error
        return ""
    if now == (facts.size, facts.mtime_ns):
        return ""
    sizes = f"{facts.size:,} bytes then, {now.size:,} now"
    if now.size == facts.size:
        sizes = f"of {facts.size:,} bytes, and written at another time"
    return f"changed since it was counted ({sizes})"
