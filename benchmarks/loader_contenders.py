"""Ways to make a training clip of a video file: what was released, and loops that people write.

Each is a data set with vidadapt's keys (epoch, index, copy). With the same sampling and key all of
them, and `TrainClips` with `SEED`, take the same frames and the same crop box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from torch.utils.data import Dataset

from benchmarks import released
from vidadapt.data import (
    Augmentation,
    SampleKey,
    Sampling,
    multi_scale_box,
    normalize,
    seeded,
    train_clip,
    train_indices,
)

SEED = 0


def decord_frames(path: str, indices: Sequence[int]) -> np.ndarray:
    """(T, H, W, 3) uint8. Seeks; which frames it returns depends on the file, see `readers`."""
    return released.open_file(path).get_batch(list(indices)).asnumpy()


def pyav_frames(path: str, indices: Sequence[int]) -> np.ndarray:
    """(T, H, W, 3) uint8; decodes from the first frame to the last that is needed."""
    kept = {}
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for number, frame in enumerate(container.decode(stream)):
            if number in indices:
                kept[number] = frame.to_ndarray(format="rgb24")
            if number == max(indices):
                break
    return np.stack([kept[index] for index in indices])


def torchcodec_frames(path: str, indices: Sequence[int]) -> np.ndarray:
    """(T, H, W, 3) uint8, by torchcodec's exact mode."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC")
    return decoder.get_frames_at(list(indices)).data.numpy()


PLAIN: dict[str, Callable[[str, Sequence[int]], np.ndarray]] = {
    "decord": decord_frames,
    "pyav": pyav_frames,
    "torchcodec": torchcodec_frames,
}


@dataclass(frozen=True)
class PlainClips(Dataset[dict[str, Any]]):
    """A plain loop of a library, then vidadapt's crop: item `clip` (3, T, S, S) uint8.

    Attributes:
        reader: key of `PLAIN`.
        paths: the files.
        lengths: their numbers of frames.
    """

    reader: str
    paths: Sequence[str]
    lengths: Sequence[int]
    sampling: Sampling
    crop_size: int

    def __getitem__(self, key: SampleKey) -> dict[str, Any]:
        index = key[1]
        with seeded(SEED, *key) as rng:
            indices = train_indices(self.sampling, self.lengths[index], rng)
            clip = train_clip(
                PLAIN[self.reader](self.paths[index], indices.tolist()),
                crop_size=self.crop_size,
                augmentation=Augmentation(),
            )
        return {"clip": clip}


@dataclass(frozen=True)
class ReleasedClips(Dataset[dict[str, Any]]):
    """The released loader: item `clip` (3, T, S, S) float32, normalised.

    Attributes:
        size: height and width of all videos.
        paths, lengths: see `PlainClips`.
    """

    size: tuple[int, int]
    paths: Sequence[str]
    lengths: Sequence[int]
    sampling: Sampling
    crop_size: int

    def __getitem__(self, key: SampleKey) -> dict[str, Any]:
        index = key[1]
        path = self.paths[index]
        with seeded(SEED, *key) as rng:
            indices = train_indices(self.sampling, self.lengths[index], rng)
            box = multi_scale_box(*self.size, self.crop_size)
        return {"clip": released.train_clip(path, indices.tolist(), box, self.crop_size)}


@dataclass(frozen=True)
class Floats(Dataset[dict[str, Any]]):
    """Clips of another data set, made float32 and normalised on the CPU."""

    clips: Dataset[dict[str, Any]]

    def __getitem__(self, key: SampleKey) -> dict[str, Any]:
        return {"clip": normalize(self.clips[key]["clip"], "imagenet")}
