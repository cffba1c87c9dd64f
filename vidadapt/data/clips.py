"""The two datasets: random training clips, and all evaluation views of a video as one item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from vidadapt.data.epochs import Key
from vidadapt.data.frame_index import FrameCount
from vidadapt.data.lists import Sample
from vidadapt.data.readers import ReadError, TransientReadError, open_counted
from vidadapt.data.sampling import Sampling, eval_indices, train_indices
from vidadapt.data.seeding import seeded
from vidadapt.data.transforms import crop_corners, cut_views, eval_frames, train_clip
from vidadapt.files.retrying import PATIENCE, Patience


class TrainClips(Dataset[dict[str, Any]]):
    """One random clip per key (epoch, index, copy).

    An item depends on (seed, epoch, index, copy) and its file alone, never on the worker, the
    process or the batch that asks for it. An item is a dict:
        clip: (3, T, S, S) uint8, see `transforms.train_clip` for its memory.
        label: int.
        index: int, place in `samples`.
        again: what the first try to read it met, if it was tried again; else empty.

    `clips[key]` raises `ReadError`, naming the file, where a frame cannot be decoded.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        counts: Mapping[str, FrameCount],
        root: str | Path,
        sampling: Sampling,
        *,
        crop_size: int,
        train_crop: str,
        flip: bool,
        rand_augment: bool,
        random_erasing: float,
        seed: int,
        patience: float = PATIENCE,
    ) -> None:
        self.patience = Patience(patience)
        self.samples, self.counts, self.root = samples, counts, Path(root)
        self.sampling, self.seed = sampling, seed
        self.crop_size, self.train_crop, self.flip = crop_size, train_crop, flip
        self.rand_augment, self.random_erasing = rand_augment, random_erasing

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        epoch, index, copy = key
        sample = self.samples[index]
        count = self.counts[sample.path]
        with seeded(self.seed, epoch, index, copy) as rng:
            indices = train_indices(self.sampling, count.num_frames, rng)
            read = partial(_frames, self.root / sample.path, count, indices)
            frames = self.patience.call(read, (TransientReadError,))
            clip = train_clip(
                frames,
                crop_size=self.crop_size,
                train_crop=self.train_crop,
                flip=self.flip,
                rand_augment=self.rand_augment,
                random_erasing=self.random_erasing,
            )
        again = self.patience.first()
        return {"clip": clip, "label": sample.label, "index": index, "again": again}


def batch_of(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Items of `TrainClips` as one batch: clip (B, 3, T, S, S) uint8, label and index (B,) int64.

    The clips' memory stays channels-last, as it left the resize, so that each is copied once, in
    one piece; `transforms.normalize` puts the channels first, on the device.
    """
    batch: dict[str, Any] = default_collate(
        [{**item, "clip": item["clip"].permute(1, 2, 3, 0)} for item in items]
    )
    return {**batch, "clip": batch["clip"].permute(0, 4, 1, 2, 3)}


VIEWS = ("frames", "clips", "corners", "view_of")


class EvalViews(Dataset[dict[str, Any]]):
    """All views of one video per index: num_clips x num_crops, clip-major, decoded once.

    Short videos have clips that coincide, square ones crops that coincide: every distinct view is
    there once. Views are cut where they are needed, see `transforms.cut_views` and `view_chunks`.
    An item is a dict, whose first four are None where the video cannot be read:
        frames: (U, H, W, 3) uint8, the distinct frames, resized so that the short side is S.
        clips: (C', T) int64, places in `frames` of the distinct temporal clips.
        corners: (R', 2) int64, top and left of the distinct crops.
        view_of: (V,) int64, the distinct view (clip * R' + crop) that view v is, v being
            clip * num_crops + crop.
        label: int.
        index: int, place in `samples`.
        error: why the video cannot be read; empty where it can.
        again: what the first try to read it met, if it was tried again; else empty.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        counts: Mapping[str, FrameCount],
        root: str | Path,
        sampling: Sampling,
        *,
        num_clips: int,
        num_crops: int,
        crop_size: int,
        patience: float = PATIENCE,
    ) -> None:
        self.patience = Patience(patience)
        self.samples, self.counts, self.root = samples, counts, Path(root)
        self.sampling, self.crop_size = sampling, crop_size
        self.num_clips, self.num_crops = num_clips, num_crops

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        error = self.counts[sample.path].error
        if error:
            return self._item(index, dict.fromkeys(VIEWS), error)
        try:
            views = self._views(sample)
            return {**self._item(index, views, ""), "again": self.patience.first()}
        except ReadError as read_error:
            return self._item(index, dict.fromkeys(VIEWS), str(read_error))

    def unreadable(self, index: int, cause: str) -> dict[str, Any]:
        """The item of a video that cannot be read."""
        error = f"{self.root / self.samples[index].path}: {cause}"
        return self._item(index, dict.fromkeys(VIEWS), error)

    def _item(self, index: int, views: Mapping[str, Any], error: str) -> dict[str, Any]:
        about = {"label": self.samples[index].label, "index": index, "error": error, "again": ""}
        return {**views, **about}

    def _views(self, sample: Sample) -> dict[str, torch.Tensor]:
        count = self.counts[sample.path]
        indices = eval_indices(self.sampling, count.num_frames, self.num_clips)
        needed, places = np.unique(indices, return_inverse=True)
        read = partial(_frames, self.root / sample.path, count, needed)
        frames = eval_frames(self.patience.call(read, (TransientReadError,)), self.crop_size)
        height, width = frames.shape[1:3]
        clips, clip_of = _distinct(places.reshape(indices.shape))
        corners, crop_of = _distinct(np.array(crop_corners(height, width, self.num_crops)))
        view_of = (clip_of[:, None] * len(corners) + crop_of).ravel()
        found = {"clips": clips, "corners": corners, "view_of": view_of}
        return {"frames": frames} | {name: torch.from_numpy(v) for name, v in found.items()}


def view_chunks(
    item: Mapping[str, Any],
    views_per_chunk: int,
    device: torch.device,
    orders: torch.Tensor | None = None,
) -> Iterator[torch.Tensor]:
    """The distinct views of a readable item of `EvalViews`, in their order, cut on a device.

    Args:
        orders: (O, T) int64, on the CPU: places in a clip, of the frames that are shown in turn.
            All views come in the first order, then all in the second, and so on; no chunk holds
            views of two. Default: one order, the clips as they are.

    Yields:
        (at most views_per_chunk, 3, T, S, S) uint8 on the device, see `transforms.cut_views`.
        What they give in one order, taken at `view_of`, is that of all views.
    """
    clips = item["clips"][None] if orders is None else item["clips"][:, orders].transpose(0, 1)
    frames, clips = (part.to(device, non_blocking=True) for part in (item["frames"], clips))
    number = clips.shape[1] * len(item["corners"])
    for ordered in clips:
        for start in range(0, number, views_per_chunk):
            chosen = range(start, min(start + views_per_chunk, number))
            yield cut_views(frames, ordered, item["corners"], chosen)


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different rows of a table, in ascending order, and which of them each row is."""
    distinct, which = np.unique(rows, axis=0, return_inverse=True)
    return distinct, which.ravel()


def _frames(path: Path, count: FrameCount, indices: np.ndarray) -> np.ndarray:
    """Frames at `indices` as (len(indices), H, W, 3) uint8; the file is open only meanwhile.

    The reader is the one that the frame count was found with: it is known to be exact on this file.
    """
    with open_counted(path, count.reader, count.num_frames) as video:
        return video.frames(indices)
