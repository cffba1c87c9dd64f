"""The two datasets: random training clips, and all evaluation views of a video as one item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from vidadapt.data.epochs import Key
from vidadapt.data.frame_index import FrameCount
from vidadapt.data.lists import Sample
from vidadapt.data.readers import ReadError, open_counted
from vidadapt.data.sampling import Sampling, eval_indices, train_indices
from vidadapt.data.seeding import seeded
from vidadapt.data.transforms import eval_crops, train_clip


class TrainClips(Dataset[dict[str, Any]]):
    """One random clip per key (epoch, index, copy).

    An item depends on (seed, epoch, index, copy) and its file alone, never on the worker, the
    process or the batch that asks for it. An item is a dict:
        clip: (3, T, S, S) uint8.
        label: int.
        index: int, place in `samples`.

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
    ) -> None:
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
            frames = _frames(self.root / sample.path, count, indices)
            clip = train_clip(
                frames,
                crop_size=self.crop_size,
                train_crop=self.train_crop,
                flip=self.flip,
                rand_augment=self.rand_augment,
                random_erasing=self.random_erasing,
            )
        return {"clip": clip, "label": sample.label, "index": index}


class EvalViews(Dataset[dict[str, Any]]):
    """All views of one video per index: num_clips x num_crops, clip-major, decoded once.

    An item is a dict:
        views: (V, 3, T, S, S) uint8, view v = clip v // num_crops, crop v % num_crops; None where
            the video cannot be read.
        label: int.
        index: int, place in `samples`.
        clip_ids, crop_ids: (V,) int64.
        error: why the video cannot be read; empty where it can.
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
    ) -> None:
        self.samples, self.counts, self.root = samples, counts, Path(root)
        self.sampling, self.crop_size = sampling, crop_size
        self.num_clips, self.num_crops = num_clips, num_crops

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        views, error = None, self.counts[sample.path].error
        if not error:
            try:
                views = self._views(sample)
            except ReadError as read_error:
                error = str(read_error)
        return {
            "views": views,
            "label": sample.label,
            "index": index,
            "clip_ids": torch.arange(self.num_clips).repeat_interleave(self.num_crops),
            "crop_ids": torch.arange(self.num_crops).repeat(self.num_clips),
            "error": error,
        }

    def _views(self, sample: Sample) -> torch.Tensor:
        count = self.counts[sample.path]
        indices = eval_indices(self.sampling, count.num_frames, self.num_clips)
        needed, places = np.unique(indices, return_inverse=True)
        frames = _frames(self.root / sample.path, count, needed)
        crops = eval_crops(frames, crop_size=self.crop_size, num_crops=self.num_crops)
        # (crop, 3, U, S, S) -> (crop, 3, clip, T, S, S) -> (clip, crop, 3, T, S, S)
        clips = crops[:, :, torch.from_numpy(places.reshape(indices.shape))]
        return clips.permute(2, 0, 1, 3, 4, 5).flatten(0, 1).contiguous()


def _frames(path: Path, count: FrameCount, indices: np.ndarray) -> np.ndarray:
    """Frames at `indices` as (len(indices), H, W, 3) uint8; the file is open only meanwhile.

    The reader is the one that the frame count was found with: it is known to be exact on this file.
    """
    with open_counted(path, count.reader, count.num_frames) as video:
        return video.frames(indices)
