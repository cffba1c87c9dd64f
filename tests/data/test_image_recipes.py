"""The image recipes of papers: the crops of torchvision and of MAE, exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from vidadapt.config import DataConfig, EvalConfig
from vidadapt.data import Augmentation, Framing, crop_corners, cut_views, eval_frames, resolve
from vidadapt.data.seeding import seeded
from vidadapt.data.transforms import mae_box, train_clip

SIZES = [(90, 120), (121, 80), (64, 64), (33, 77), (500, 31), (20, 24)]
MODES = ["bilinear", "bicubic"]
IMAGENET = Framing(resize=56, interpolation="bicubic")


def picture(height: int, width: int, count: int = 1) -> np.ndarray:
    noise = np.random.default_rng(height * width).integers(0, 255, (count, height, width, 3))
    return noise.astype(np.uint8)


def as_tensor(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def centre(frames: np.ndarray, side: int, framing: Framing) -> torch.Tensor:
    resized = eval_frames(frames, side, framing)
    corners = torch.tensor(crop_corners(*resized.shape[1:3], 1, framing))
    return cut_views(resized, torch.arange(len(frames))[None], corners)[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("resize", [48, 49, 56, 61])
@pytest.mark.parametrize("size", SIZES)
def test_evaluation_is_torchvision_s_resize_and_centre_crop(size, resize, mode):
    frames = picture(*size)
    known = v2.Compose([v2.Resize(resize, InterpolationMode(mode)), v2.CenterCrop(48)])
    found = centre(frames, 48, Framing(resize, mode))
    assert torch.equal(found.transpose(0, 1), known(as_tensor(frames)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_squash_is_torchvision_s_resize_to_a_square_in_training_too(size, mode):
    frames, framing = picture(*size), Framing(interpolation=mode, fit="squash")
    known = v2.Resize((48, 48), InterpolationMode(mode))(as_tensor(frames))
    assert torch.equal(centre(frames, 48, framing).transpose(0, 1), known)
    with seeded(0):
        trained = train_clip(frames, 48, Augmentation("none"), framing)
    assert torch.equal(trained.transpose(0, 1), known)


def test_without_a_crop_training_sees_the_centre_view_of_evaluation():
    frames = picture(90, 121, 3)
    for framing in (Framing(), IMAGENET):
        with seeded(0):
            trained = train_clip(frames, 48, Augmentation("none"), framing)
        assert torch.equal(trained, centre(frames, 48, framing))


@pytest.mark.parametrize("mode", MODES)
def test_the_random_crop_is_torchvision_s_with_its_interpolation(mode):
    frames = picture(90, 121)
    known = v2.RandomResizedCrop(48, interpolation=InterpolationMode(mode), antialias=True)
    for seed in range(5):
        with seeded(seed):
            expected = known(as_tensor(frames))
        with seeded(seed):
            found = train_clip(frames, 48, Augmentation("random_resized"), Framing(None, mode))
        assert torch.equal(found.transpose(0, 1), expected)


def box_of_mae(height: int, width: int) -> tuple[int, int, int, int]:
    """`RandomResizedCrop.get_params` of facebookresearch/mae, util/crop.py, for its defaults."""
    target_area = height * width * torch.empty(1).uniform_(0.08, 1.0).item()
    log_ratio = torch.log(torch.tensor((3.0 / 4.0, 4.0 / 3.0)))
    aspect_ratio = torch.exp(torch.empty(1).uniform_(log_ratio[0], log_ratio[1])).item()
    w = min(round(math.sqrt(target_area * aspect_ratio)), width)
    h = min(round(math.sqrt(target_area / aspect_ratio)), height)
    i = torch.randint(0, height - h + 1, size=(1,)).item()
    j = torch.randint(0, width - w + 1, size=(1,)).item()
    return i, j, h, w


@pytest.mark.parametrize("size", SIZES)
def test_mae_s_crop_has_its_boxes_and_torchvision_s_pixels(size):
    frames = picture(*size)
    for seed in range(20):
        with seeded(seed):
            expected = box_of_mae(*size)
        with seeded(seed):
            assert mae_box(*size) == expected
        with seeded(seed):
            found = train_clip(frames, 48, Augmentation("random_resized_mae"), IMAGENET)
        bicubic = InterpolationMode.BICUBIC
        known = v2.functional.resized_crop(as_tensor(frames), *expected, [48, 48], bicubic)
        assert torch.equal(found.transpose(0, 1), known)


def test_several_crops_lie_in_the_resized_frame_s_middle_band():
    frames = picture(90, 240)
    whole = v2.Resize(56, InterpolationMode.BICUBIC)(as_tensor(frames))
    resized = eval_frames(frames, 48, IMAGENET)
    corners = torch.tensor(crop_corners(*resized.shape[1:3], 3, IMAGENET))
    views = cut_views(resized, torch.zeros(1, 1, dtype=torch.long), corners)
    lefts = [0, (whole.shape[-1] - 48) // 2, whole.shape[-1] - 48]
    for view, left in zip(views, lefts, strict=True):
        assert torch.equal(view[:, 0], whole[0, :, 4:52, left : left + 48])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": 200}, r"data\.resize .*data\.crop_size 224"),
        ({"resize": 256, "fit": "squash"}, r"data\.resize .*data\.fit squash"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        resolve(DataConfig(dataset="cifar100", **options), EvalConfig())


def test_the_image_preset_takes_one_frame_and_one_view():
    plan = resolve(DataConfig(dataset="cifar100", resize=256), EvalConfig())
    assert (plan.sampling.num_frames, plan.num_clips, plan.num_crops) == (1, 1, 1)
    assert plan.num_classes == 100 and plan.framing == Framing(resize=256)
