"""What the loader released with AdaptFormer, which is VideoMAE's, does to a video file.

Written anew from its behaviour, for benchmarks and as an independent reference of crops and pixels.
Sources: AdaptFormer's `datasets/kinetics.py` and `videomae_transforms.py`, and what they come from
in VideoMAE. What costs time there is kept as it is:

* training: decord opens the file and gives the frames; each becomes a PIL image, is cropped and
  resized by PIL, and all become one float tensor, which is divided and normalised on the CPU;
* test: each of the 4 clips x 3 crops is an item of its own, which opens the file, decodes every 4th
  frame of the whole video, resizes all of them with OpenCV, and then takes its clip and its crop.

Which frames a training clip has, and which box is cropped, is up to the caller here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from vidadapt.data import Sampling

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCALES = (1, 0.875, 0.75, 0.66)


def check_installed() -> None:
    """Raise ImportError where decord, with which the released loader reads, cannot be loaded."""
    try:
        import decord  # noqa: F401
    except (ImportError, OSError) as error:
        raise ImportError(
            f"the released loader reads with decord, which cannot be loaded ({error}); it has "
            "wheels for Linux on x86-64"
        ) from error


def open_file(path: str) -> Any:
    """decord's reader with one thread, as the released loader opens every file."""
    import decord  # not on every platform

    return decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)


def train_clip(
    path: str, indices: Sequence[int], box: tuple[int, int, int, int], crop_size: int
) -> torch.Tensor:
    """A training clip, (3, T, S, S) float32, normalised.

    Args:
        indices: T frames of the file, as decord counts them.
        box: top, left, height and width, one of `crop_boxes`.
    """
    frames = open_file(path).get_batch(list(indices)).asnumpy()
    images = [Image.fromarray(frame).convert("RGB") for frame in frames]
    top, left, height, width = box
    cut = [image.crop((left, top, left + width, top + height)) for image in images]
    resized = [image.resize((crop_size, crop_size), Image.Resampling.BILINEAR) for image in cut]
    stacked = np.concatenate([np.asarray(image) for image in resized], axis=2)
    clip = torch.from_numpy(stacked).permute(2, 0, 1).contiguous().float().div(255.0)
    for number, channel in enumerate(clip):
        channel.sub_(MEAN[number % 3]).div_(STD[number % 3])
    return clip.view(len(resized), 3, crop_size, crop_size).transpose(0, 1)


def crop_boxes(height: int, width: int, crop_size: int) -> list[tuple[int, int, int, int]]:
    """The 130 boxes (top, left, height, width) of which the multi-scale crop draws one.

    Ten pairs of sides, thirteen places each, all as likely. A box that is drawn more than once, as
    in a frame without slack, is there more than once.

    >>> boxes = crop_boxes(240, 320, 224)
    >>> len(boxes), boxes[0], boxes[-1]
    (130, (0, 0, 240, 240), (60, 120, 158, 158))
    """
    base = min(height, width)
    sides = [int(base * scale) for scale in SCALES]
    sides = [crop_size if abs(side - crop_size) < 3 else side for side in sides]
    boxes = []
    for i, h in enumerate(sides):
        for j, w in enumerate(sides):
            if abs(i - j) > 1:
                continue
            down, right = (height - h) // 4, (width - w) // 4
            corners = [(0, 0), (4, 0), (0, 4), (4, 4), (2, 2)]
            middles = [(0, 2), (4, 2), (2, 4), (2, 0)]
            quarters = [(1, 1), (3, 1), (1, 3), (3, 3)]
            boxes += [(y * down, x * right, h, w) for x, y in (*corners, *middles, *quarters)]
    return boxes


def view(path: str, clip: int, crop: int, sampling: Sampling, crop_size: int) -> torch.Tensor:
    """One item of the test, a view of a video: (3, T, S, S) float32, normalised."""
    return normalised(view_pixels(path, clip, crop, sampling, crop_size))


def view_pixels(path: str, clip: int, crop: int, sampling: Sampling, crop_size: int) -> np.ndarray:
    """The view before it is normalised, (T, S, S, 3) uint8.

    Args:
        sampling: at least 2 clips and 2 crops: the released loader divides by their number less 1.
    """
    reader = open_file(path)
    chosen = list(range(0, len(reader), sampling.stride))
    chosen += [chosen[-1]] * (sampling.num_frames - len(chosen))
    reader.seek(0)
    frames = reader.get_batch(chosen).asnumpy()
    height, width = frames.shape[1:3]
    if min(height, width) != crop_size:
        import cv2  # of the extra `bench`

        wide = width >= height
        size = (
            int(crop_size * width / height) if wide else crop_size,
            crop_size if wide else int(crop_size * height / width),
        )
        frames = np.stack([cv2.resize(f, size, interpolation=cv2.INTER_LINEAR) for f in frames])
    height, width = frames.shape[1:3]
    step = (max(height, width) - crop_size) / (sampling.num_crops - 1)
    start = int(clip * max((len(frames) - sampling.num_frames) / (sampling.num_clips - 1), 0))
    at = int(crop * step)
    frames = frames[start : start + sampling.num_frames]
    if height >= width:
        return frames[:, at : at + crop_size]
    return frames[:, :, at : at + crop_size]


def normalised(frames: np.ndarray) -> torch.Tensor:
    """(T, S, S, 3) uint8 -> (3, T, S, S) float32, by way of an array of float64 as there."""
    count, height, width, channels = frames.shape
    gathered = np.zeros((channels, count, height, width))
    for number, frame in enumerate(frames):
        gathered[:, number] = frame.transpose(2, 0, 1)
    clip = torch.from_numpy(gathered).float().div(255)
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (MEAN, STD))
    return clip.clone().sub_(mean).div_(std)
