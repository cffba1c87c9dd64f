"""uint8 frames -> square uint8 clips, on torchvision v2; one decision for all frames of a clip.

Everything stays uint8 until the device, where `normalize` makes floats. Random choices come from
torch's global CPU generator, because torchvision v2 draws from it; the caller forks and seeds it.
All resizing is antialiased, in training and evaluation alike, and bilinear unless asked otherwise
(Pillow's behaviour, as in AdaptFormer's training crop). VideoMAE's training crop has no
antialiasing; for testing AdaptFormer and VideoMAE both resize with OpenCV, which has none.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from vidadapt.data.sampling import spread

NORMALIZATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": (
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
    ),
    "slowfast": ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
TRAIN_CROPS = ("multi_scale", "random_resized", "random_resized_mae", "none")
SCALES = (1.0, 0.875, 0.75, 0.66)
AREAS, RATIOS = (0.08, 1.0), (3 / 4, 4 / 3)  # of a random resized crop: shares, width / height
# Offsets of a multi-scale crop, in quarters of the slack (x, y).
OFFSETS = (
    *((x, y) for x in (0, 2, 4) for y in (0, 2, 4)),
    *((x, y) for x in (1, 3) for y in (1, 3)),
)


def normalize(clip: torch.Tensor, name: str) -> torch.Tensor:
    """uint8 clips (..., 3, T, H, W) on any device -> float32, (x / 255 - mean) / std per channel.

    One pass, as x * scale + offset: at most 1e-6 from the formula's exact value. The result is
    contiguous whatever the memory layout of the clips.

    `name` is a key of `NORMALIZATIONS`: `imagenet` is what VideoMAE and AdaptFormer train with,
    `half` what SigLIP, ViViT and many ImageNet-21k ViTs do, `clip` what OpenAI's CLIP and EVA do,
    `slowfast` what TimeSformer does, `unit` (from 0 to 1) what VideoPrism does.
    """
    scale, offset = _constants(name, clip.device)
    result = torch.empty(clip.shape, dtype=torch.float32, device=clip.device)
    return torch.addcmul(offset, clip, scale, out=result)


@functools.cache
def _constants(name: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and offset (3, 1, 1, 1) on a device; cached, since each copy there would block."""
    mean, std = (
        torch.tensor(v, dtype=torch.float64).view(3, 1, 1, 1) for v in NORMALIZATIONS[name]
    )
    scale, offset = 1 / (255 * std), -mean / std
    return scale.float().to(device), offset.float().to(device)


@dataclass(frozen=True)
class Augmentation:
    """Random changes of the frames of a training clip.

    Each field has the name of its key of `data`. A cache of features is bound to all of them, and
    vidadapt browse shows them, so a new one needs no line there.

    Attributes:
        train_crop: `multi_scale` (see `multi_scale_box`); `random_resized` (8-100 % of the area,
            aspect ratio 3/4-4/3; torchvision's) or `random_resized_mae` (see `mae_box`); or `none`,
            the centre view of evaluation.
        flip: mirror with probability 1/2.
        rand_augment: see `rand_augmented`.
        random_erasing: probability of erasing one box, see `erased`.
    """

    train_crop: str = "multi_scale"
    flip: bool = False
    rand_augment: bool = False
    random_erasing: float = 0.0


@dataclass(frozen=True)
class Framing:
    """How a frame of any shape becomes squares. Each field has the name of its key of `data`.

    Attributes:
        resize: short side at evaluation, from whose middle crops are cut; None: the crop's side.
        interpolation: of all resizing, in training, too: `bilinear` or `bicubic`.
        fit: at evaluation, `crop` (the short side is resized, and squares are cut out) or `squash`
            (the whole frame becomes one square, whatever its aspect ratio).
    """

    resize: int | None = None
    interpolation: str = "bilinear"
    fit: str = "crop"

    def settings(self) -> dict[str, Any]:
        """Fields that are not the defaults: a file without them is one of an earlier version."""
        return {k: v for k, v in vars(self).items() if v != getattr(Framing, k)}

    @classmethod
    def of(cls, settings: Any) -> Framing:
        """Take the fields out of an object's attributes or a mapping, where it has them."""
        known = settings if isinstance(settings, dict) else vars(settings)
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in known.items() if name in names})


PLAIN = Framing()


def train_clip(
    frames: Sequence[np.ndarray] | np.ndarray,
    crop_size: int,
    augmentation: Augmentation,
    framing: Framing = PLAIN,
) -> torch.Tensor:
    """Random crop, then flip, RandAugment and erasing if asked; one decision per clip for each.

    Args:
        frames: (T, H, W, 3) uint8 RGB; or T frames (H, W, 3), of which only the crop is copied.
        crop_size: S, side of the result in pixels.

    Returns:
        (3, T, S, S) uint8, a view of contiguous (T, S, S, 3) memory.
    """
    clip = _cropped(frames, crop_size, augmentation.train_crop, framing)
    if augmentation.flip and torch.rand(()) < 0.5:
        clip = F.horizontal_flip(clip)
    if augmentation.rand_augment:
        clip = rand_augmented(clip)
    erasing = augmentation.random_erasing
    if erasing > 0 and torch.rand(()) < erasing:
        clip = erased(clip)
    return clip.permute(0, 2, 3, 1).contiguous().permute(3, 0, 1, 2)


def _cropped(
    frames: Sequence[np.ndarray] | np.ndarray, crop_size: int, crop: str, framing: Framing
) -> torch.Tensor:
    """The crop of a training clip, (T, 3, S, S) uint8."""
    how: dict[str, Any] = {"interpolation": _mode(framing), "antialias": True}
    if crop == "none":
        whole = eval_frames(np.asarray(frames), crop_size, framing)
        height, width = whole.shape[1:3]
        [(top, left)] = crop_corners(height, width, 1, framing)
        square = whole[:, top : top + crop_size, left : left + crop_size]
        return square.permute(0, 3, 1, 2)
    height, width = frames[0].shape[:2]
    if crop == "random_resized":
        shape = torch.empty((height, width), device="meta")
        drawn = v2.RandomResizedCrop(crop_size, AREAS, RATIOS, **how).make_params([shape])
        box = drawn["top"], drawn["left"], drawn["height"], drawn["width"]
    elif crop == "multi_scale":
        box = multi_scale_box(height, width, crop_size)
    elif crop == "random_resized_mae":
        box = mae_box(height, width)
    else:
        raise ValueError(f"unknown train_crop {crop!r}; known: {', '.join(TRAIN_CROPS)}")
    top, left, height, width = box
    part = _channels_first(
        np.stack([frame[top : top + height, left : left + width] for frame in frames])
    )
    if len(part) == 1:  # of a part of one frame torch makes channels-first memory, and slowly
        part = part.contiguous(memory_format=torch.channels_last)
    return F.resize(part, [crop_size, crop_size], **how)


def _mode(framing: Framing) -> v2.InterpolationMode:
    return v2.InterpolationMode(framing.interpolation)


def mae_box(height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of MAE's random resized crop.

    From facebookresearch/mae, util/crop.py. As torchvision's, but with one try: sides that are too
    long are shortened to the frame's, where torchvision tries nine times more and then takes the
    centre.
    """
    area = height * width * torch.empty(1).uniform_(*AREAS).item()
    low, high = torch.log(torch.tensor(RATIOS)).tolist()
    ratio = torch.exp(torch.empty(1).uniform_(low, high)).item()
    w = max(min(round(math.sqrt(area * ratio)), width), 1)
    h = max(min(round(math.sqrt(area / ratio)), height), 1)
    top = int(torch.randint(0, height - h + 1, (1,)))
    left = int(torch.randint(0, width - w + 1, (1,)))
    return top, left, h, w


def multi_scale_box(height: int, width: int, crop_size: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of TSN's multi-scale crop, as in AdaptFormer and VideoMAE.

    The sides are 1, .875, .75 or .66 of the short side, height and width at most one step apart in
    that list, uniform over the 10 pairs; a side within 2 px of `crop_size` becomes `crop_size` if
    that fits. The offset is one of 13: corners, edge middles, centre, inner quarters.
    """
    sides = [int(min(height, width) * scale) for scale in SCALES]
    sides = [
        crop_size if abs(side - crop_size) < 3 and crop_size <= min(height, width) else side
        for side in sides
    ]
    pairs = [(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]
    h, w = pairs[int(torch.randint(len(pairs), ()))]
    x, y = OFFSETS[int(torch.randint(len(OFFSETS), ()))]
    # A quarter of the slack is rounded down before it is multiplied, as in the reference.
    return (height - h) // 4 * y, (width - w) // 4 * x, max(h, 1), max(w, 1)


def rand_augmented(clip: torch.Tensor) -> torch.Tensor:
    """torchvision v2's RandAugment with 4 operations at magnitude 7 of 10; (T, 3, S, S) uint8.

    11 bins are the levels 0 to 10, so bin 7 is 7/10 of every range. All frames get the same
    operations with the same strengths and signs. Statistics of an operation (equalisation,
    automatic contrast) are each frame's own, as in VideoMAE.

    Differs from VideoMAE's `rand-m7-n4-mstd0.5-inc1` (timm): no noise on the magnitude (there a
    normal with std 0.5); each operation is always applied (there with probability 1/2), but one of
    the 14 is the identity; no inversion and no solarise-add; posterise keeps 5 bits (there 2);
    bilinear (there bicubic); and it runs on the crop rather than on the whole frame.
    """
    return v2.RandAugment(
        num_ops=4,
        magnitude=7,
        num_magnitude_bins=11,
        interpolation=v2.InterpolationMode.BILINEAR,
        fill=128,
    )(clip)


def erased(clip: torch.Tensor) -> torch.Tensor:
    """Fill one random box, the same in all frames, with noise; (T, 3, S, S) uint8.

    The box covers 2-33 % of the area with an aspect ratio of 0.3-3.3, drawn by v2.RandomErasing:
    nothing is erased if ten draws do not fit. The noise is new for every pixel and frame and, after
    ImageNet normalisation, standard normal, clipped to uint8's range.
    """
    box = v2.RandomErasing(scale=(0.02, 1 / 3), ratio=(0.3, 3.3)).make_params([clip])
    if box["v"] is None:
        return clip
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in NORMALIZATIONS["imagenet"])
    noise = torch.randn(len(clip), 3, box["h"], box["w"]) * std + mean
    return F.erase(
        clip, box["i"], box["j"], box["h"], box["w"], (noise * 255).round().clamp(0, 255).byte()
    )


def eval_frames(frames: np.ndarray, crop_size: int, framing: Framing = PLAIN) -> torch.Tensor:
    """Frames whose short side is S: resized, the long side in proportion, rounded down.

    With `framing.resize` R the short side becomes R and the long side follows, as with torchvision;
    of the short side the middle S are kept. `squash` makes (S, S) of any frame.

    Args:
        frames: (U, H, W, 3) uint8 RGB; U may be any number of frames.
        crop_size: S in pixels; not above R.

    Returns:
        (U, H', W', 3) uint8, contiguous.
    """
    clip = _channels_first(frames)
    height, width = clip.shape[-2:]
    short, side = min(height, width), framing.resize or crop_size
    size = [side * height // short, side * width // short]
    if framing.fit == "squash":
        size = [crop_size, crop_size]
    resized = F.resize(clip, size, interpolation=_mode(framing), antialias=True)
    cut = _middle(min(size) - crop_size)
    middle = slice(cut, cut + crop_size)
    rows, columns = (middle if length == min(size) else slice(None) for length in size)
    return resized[:, :, rows, columns].permute(0, 2, 3, 1).contiguous()


def _middle(slack: int) -> int:
    """Offset of the middle, as torchvision's CenterCrop rounds it: a half to the even number."""
    return round(slack / 2)


def crop_corners(
    height: int, width: int, num_crops: int, framing: Framing = PLAIN
) -> list[tuple[int, int]]:
    """Top and left of `num_crops` squares, as wide as the short side, spread along the long side.

    With 3 crops they are at 0, 1/2 and 1 of the slack (rounded down), as in AdaptFormer and
    VideoMAE: left, centre, right of a wide video, top, centre, bottom of a tall one. One crop is
    the centre; with `framing.resize` it is torchvision's CenterCrop, which may lie a pixel further.

    >>> crop_corners(224, 299, 3), crop_corners(240, 224, 1)
    ([(0, 0), (0, 37), (0, 75)], [(8, 0)])
    >>> crop_corners(224, 227, 1), crop_corners(224, 227, 1, Framing(resize=224))
    ([(0, 1)], [(0, 2)])
    """
    side = min(height, width)
    if framing.resize is not None and num_crops == 1:
        return [(_middle(height - side), _middle(width - side))]
    return [
        (spread(height - side, k, num_crops), spread(width - side, k, num_crops))
        for k in range(num_crops)
    ]


def cut_views(
    frames: torch.Tensor,
    clips: torch.Tensor,
    corners: torch.Tensor,
    chosen: Iterable[int] | None = None,
) -> torch.Tensor:
    """Views of one video from its resized frames: every crop of every clip, clip-major.

    Args:
        frames: (U, H, W, 3) uint8, on any device.
        clips: (C, T) int64, places in `frames`; fastest on the frames' device.
        corners: (R, 2) int64 on the CPU, top and left of squares of the frames' short side S.
        chosen: numbers of the views, clip * R + crop; default: all C * R.

    Returns:
        (V, 3, T, S, S) uint8 on the frames' device; V is C * R or the number chosen. Its memory is
        channels-last, as that of the frames: a crop is copied row by row.
    """
    side = min(frames.shape[1:3])
    places = clips.to(frames.device, non_blocking=True)
    squares = [frames[:, top : top + side, left : left + side] for top, left in corners.tolist()]
    numbers = range(len(clips) * len(squares)) if chosen is None else list(chosen)
    views = frames.new_empty(len(numbers), clips.shape[1], side, side, 3)
    for view, number in zip(views, numbers, strict=True):
        clip, crop = divmod(number, len(squares))
        torch.index_select(squares[crop], 0, places[clip], out=view)
    return views.permute(0, 4, 1, 2, 3)


def _channels_first(frames: np.ndarray) -> torch.Tensor:
    """(T, H, W, 3) -> (T, 3, H, W) view (channels-last memory, which uint8 resizing is fast on)."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
