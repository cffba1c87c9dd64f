import numpy as np
import pytest
import torch
from PIL import Image

from vidadapt.data.mixing import mix_batch
from vidadapt.data.seeding import seeded
from vidadapt.data.transforms import (
    NORMALIZATIONS,
    TRAIN_CROPS,
    Augmentation,
    crop_corners,
    cut_views,
    erased,
    eval_frames,
    multi_scale_box,
    normalize,
    rand_augmented,
    train_clip,
)

PLAIN = Augmentation()


def photo(height=60, width=84, seed=0):
    """A smooth colour image (H, W, 3) uint8 without symmetries."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, size=(6, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def still(frames=5, **size):
    return np.repeat(photo(**size)[None], frames, axis=0)


@pytest.mark.parametrize("name", sorted(NORMALIZATIONS))
def test_normalize_is_the_formula_in_any_layout(name):
    frames = torch.arange(256, dtype=torch.uint8).repeat(2 * 4 * 3).view(2, 4, 16, 16, 3)
    clips = frames.permute(0, 4, 1, 2, 3)
    mean, std = NORMALIZATIONS[name]
    result = normalize(clips, name)
    assert result.dtype == torch.float32 and result.is_contiguous()
    for channel in range(3):
        expected = (clips[:, channel].double() / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(result[:, channel].double(), expected, atol=1e-6, rtol=0)
    assert torch.equal(normalize(clips.contiguous(), name), result)
    assert torch.equal(normalize(clips[0], name), result[0])


def reference_boxes(height, width, size):
    """All crops of TSN's multi-scale rule, by enumeration."""
    sides = []
    for scale in (1, 0.875, 0.75, 0.66):
        side = int(min(height, width) * scale)
        near = abs(side - size) < 3 and size <= min(height, width)
        sides.append(size if near else side)
    boxes = set()
    for i in range(4):
        for j in range(4):
            if abs(i - j) > 1:
                continue
            h, w = sides[i], sides[j]
            step_y, step_x = (height - h) // 4, (width - w) // 4
            corners = [(0, 0), (0, 4), (4, 0), (4, 4)]
            middles = [(2, 2), (2, 0), (2, 4), (4, 2), (0, 2)]
            quarters = [(1, 1), (1, 3), (3, 1), (3, 3)]
            for y, x in corners + middles + quarters:
                boxes.add((y * step_y, x * step_x, h, w))
    return boxes


@pytest.mark.parametrize(("height", "width"), [(240, 427), (128, 96), (226, 300), (223, 223)])
def test_multi_scale_box_draws_exactly_the_references_boxes(height, width):
    expected = reference_boxes(height, width, 224)
    with seeded(0):
        drawn = {multi_scale_box(height, width, 224) for _ in range(3000)}
    assert drawn == expected
    assert all(t >= 0 and le >= 0 and t + h <= height and le + w <= width for t, le, h, w in drawn)


@pytest.mark.parametrize("train_crop", TRAIN_CROPS)
@pytest.mark.parametrize(("height", "width"), [(60, 84), (84, 60), (9, 5), (1, 2)])
def test_training_clips_of_any_frame_size(train_crop, height, width):
    with seeded(0):
        clip = train_clip(still(4, height=height, width=width), 32, Augmentation(train_crop))
    assert clip.shape == (3, 4, 32, 32) and clip.dtype == torch.uint8
    assert clip.permute(1, 2, 3, 0).is_contiguous()  # one piece to copy into the batch


@pytest.mark.parametrize("train_crop", TRAIN_CROPS)
def test_one_decision_for_all_frames(train_crop):
    augmentation = Augmentation(train_crop, flip=True, rand_augment=True)
    results = []
    for seed in range(25):
        with seeded(seed):
            clip = train_clip(still(), 32, augmentation)
        assert (clip == clip[:, :1]).all()
        results.append(clip)
    assert len({clip.numpy().tobytes() for clip in results}) > 20


def test_time_and_channels_keep_their_order():
    frames = np.zeros((4, 40, 40, 3), dtype=np.uint8)
    frames += np.arange(4, dtype=np.uint8)[:, None, None, None] * 20
    frames += np.array([0, 5, 10], dtype=np.uint8)
    with seeded(0):
        clip = train_clip(frames, 16, PLAIN)
    [view] = cut_views(eval_frames(frames, 16), torch.arange(4)[None], torch.tensor([[0, 0]]))
    for t in range(4):
        for channel in range(3):
            assert (clip[channel, t] == 20 * t + 5 * channel).all()
            assert (view[channel, t] == 20 * t + 5 * channel).all()


def test_multi_scale_clip_is_the_pillow_crop():
    frames = still(1, height=120, width=160)
    for seed in range(5):
        with seeded(seed):
            top, left, height, width = multi_scale_box(120, 160, 48)
        with seeded(seed):
            clip = train_clip(frames, 48, PLAIN)
        box = (left, top, left + width, top + height)
        expected = Image.fromarray(frames[0]).crop(box).resize((48, 48), Image.Resampling.BILINEAR)
        difference = clip[:, 0].permute(1, 2, 0).int() - torch.from_numpy(np.array(expected)).int()
        assert difference.abs().max() <= 1


def test_flip_mirrors_half_of_the_clips():
    frames = still(2, height=64, width=64)
    mirrored = 0
    for seed in range(60):
        with seeded(seed):
            clip = train_clip(frames, 32, PLAIN)
        with seeded(seed):
            flipped = train_clip(frames, 32, Augmentation(flip=True))
        assert torch.equal(flipped, clip) or torch.equal(flipped, clip.flip(-1))
        mirrored += not torch.equal(flipped, clip)
    assert 18 <= mirrored <= 42


def test_rand_augment_keeps_frames_aligned_in_motion():
    """Pixels of a still part change alike in all frames even when the frames differ elsewhere."""
    clip = torch.from_numpy(still(3, height=48, width=48)).permute(0, 3, 1, 2).contiguous()
    changed = 0
    for seed in range(30):
        with seeded(seed):
            together = rand_augmented(clip)
        with seeded(seed):
            alone = rand_augmented(clip[:1])
        assert torch.equal(together, alone.expand(3, -1, -1, -1))
        changed += not torch.equal(together, clip)
    assert changed >= 28


def test_random_erasing_shares_one_box():
    clip = torch.full((6, 3, 40, 40), 7, dtype=torch.uint8)
    areas = []
    for seed in range(40):
        with seeded(seed):
            hit = (erased(clip) != 7).any(1)  # (T, H, W)
        union = hit.any(0)
        rows, columns = union.any(1).nonzero().ravel(), union.any(0).nonzero().ravel()
        if not len(rows):
            continue
        box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
        assert (hit.sum((1, 2)) == hit[(slice(None), *box)].sum((1, 2))).all()
        # Noise leaves a pixel as it was once in a million: each frame's box is filled.
        assert (hit[(slice(None), *box)].float().mean((1, 2)) > 0.98).all()
        areas.append(union[box].numel() / 1600)
    assert len(areas) >= 38 and min(areas) > 0.01 and max(areas) < 0.36
    assert np.std(areas) > 0.05


def test_random_erasing_follows_its_probability():
    frames = still(2, height=40, width=40)
    hits = 0
    for seed in range(80):
        with seeded(seed):
            clip = train_clip(frames, 20, PLAIN)
        with seeded(seed):
            maybe = train_clip(frames, 20, Augmentation(random_erasing=0.25))
        hits += not torch.equal(clip, maybe)
    assert 8 <= hits <= 34


@pytest.mark.parametrize(("height", "width"), [(32, 57), (57, 32), (32, 32), (32, 33)])
@pytest.mark.parametrize("num_crops", [1, 2, 3, 5])
def test_crops_are_slices_along_the_long_side(height, width, num_crops):
    slack = max(height, width) - 32
    for k, corner in enumerate(crop_corners(height, width, num_crops)):
        # The references: int(k * slack / (num_crops - 1)); here the centre for a single crop.
        start = slack // 2 if num_crops == 1 else int(k * (slack / (num_crops - 1)))
        assert corner == ((0, start) if width > height else (start, 0))


@pytest.mark.parametrize(("height", "width"), [(4, 7), (7, 4), (4, 4)])
@pytest.mark.parametrize("chosen", [None, [5], [4, 0, 2]])
def test_cut_views_are_slices_of_the_clips_frames(height, width, chosen):
    frames = torch.arange(5 * height * width * 3).view(5, height, width, 3).byte()
    clips, corners = torch.tensor([[0, 2, 4], [1, 1, 3]]), torch.tensor([[0, 0], [0, 0], [1, 2]])
    corners = corners.clamp(max=torch.tensor([height - 4, width - 4]))
    views = cut_views(frames, clips, corners, chosen)
    numbers = range(6) if chosen is None else chosen
    assert views.shape == (len(numbers), 3, 3, 4, 4) and views.dtype == torch.uint8
    for view, number in zip(views, numbers, strict=True):
        top, left = corners[number % 3].tolist()
        for t, place in enumerate(clips[number // 3].tolist()):
            for row in range(4):
                expected = frames[place, top + row, left : left + 4]
                assert torch.equal(view[:, t, row].T, expected)


@pytest.mark.parametrize(("height", "width"), [(120, 213), (213, 120), (20, 31)])
def test_eval_resize_is_pillows(height, width):
    frames = still(1, height=height, width=width)
    short = min(height, width)
    size = (int(48 * width / short), int(48 * height / short))
    expected = np.array(Image.fromarray(frames[0]).resize(size, Image.Resampling.BILINEAR))
    resized = eval_frames(frames, 48).numpy()
    assert resized.shape == (1, size[1], size[0], 3)
    assert np.abs(resized[0].astype(int) - expected).max() <= 1


def batch(size=6, frames=4, side=16):
    """Clips whose every value tells clip, frame, row and column; float64 for exact comparison."""
    values = torch.arange(size * 3 * frames * side * side, dtype=torch.float64)
    return values.view(size, 3, frames, side, side), torch.arange(size) % 5


def mixed(step, **options):
    clips, labels = batch()
    defaults = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0, "label_smoothing": 0.0, "seed": 3}
    return mix_batch(clips, labels, 5, step=step, **defaults | options)


def test_cutmix_pastes_one_box_into_all_frames():
    clips, labels = batch()
    boxes = set()
    for step in range(30):
        result, targets = mixed(step, cutmix_alpha=1.0)
        changed = result != clips
        box = changed.any(0).any(0).any(0)
        # Same box in every clip, channel and frame; a full rectangle; never all or part of time.
        assert (changed == box).all()
        rows, columns = box.any(1).nonzero().ravel(), box.any(0).nonzero().ravel()
        assert box.sum() == len(rows) * len(columns)
        kept = 1 - box.double().mean()
        for i in range(len(clips)):
            sources = [j for j in range(len(clips)) if (result[i] == clips[j])[..., box].all()]
            if not box.any():
                continue
            [partner] = sources
            assert partner != i
            expected = torch.zeros(5)
            expected[labels[i]] += kept
            expected[labels[partner]] += 1 - kept
            torch.testing.assert_close(targets[i], expected)
        boxes.add(box.numpy().tobytes())
    assert len(boxes) > 20


def test_mixup_blends_whole_clips_and_targets_alike():
    clips, labels = batch()
    one_hot = torch.eye(5, dtype=torch.float64)[labels]
    for step in range(10):
        result, targets = mixed(step, mixup_alpha=0.8)
        for i in range(len(clips)):
            # Clips differ by constants: the blend shows as one shift, the same in all pixels.
            shift = (result[i] - clips[i]).ravel()
            torch.testing.assert_close(shift, shift[:1].expand_as(shift), atol=1e-6, rtol=0)
            fits = []
            for j in range(len(clips)):
                if j == i:
                    continue
                share = shift[0] / (clips[j, 0, 0, 0, 0] - clips[i, 0, 0, 0, 0])
                target = one_hot[i] * (1 - share) + one_hot[j] * share
                fits.append(
                    0 <= share <= 1 and torch.allclose(target.float(), targets[i], atol=1e-5)
                )
            assert any(fits)


def test_mixing_depends_on_seed_and_step_alone():
    options = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "label_smoothing": 0.1}
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = mixed(4, **options)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(first, mixed(4, **options), strict=True))
    assert not torch.equal(first[0], mixed(5, **options)[0])
    assert not torch.equal(first[0], mixed(4, **options | {"seed": 8})[0])
    torch.testing.assert_close(first[1].sum(1), torch.ones(6))


def test_mixup_and_cutmix_take_turns():
    clips, _ = batch()
    cut = 0
    for step in range(60):
        result, _ = mixed(step, mixup_alpha=0.8, cutmix_alpha=1.0)
        cut += bool((result == clips).any())
    assert 18 <= cut <= 42


def test_no_mixing_gives_smoothed_targets():
    clips, labels = batch()
    result, targets = mixed(0, label_smoothing=0.1)
    assert torch.equal(result, clips)
    expected = torch.full((6, 5), 0.02)
    expected[torch.arange(6), labels] = 0.92
    torch.testing.assert_close(targets, expected)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("alphas", [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_batches_that_lost_clips_are_mixed_down_to_a_lone_one_which_is_not(count, alphas):
    clips, labels = batch(count)
    smoothed = torch.full((count, 5), 0.02)
    smoothed[torch.arange(count), labels] = 0.92
    changed = False
    for step in range(8):
        result, targets = mix_batch(
            clips,
            labels,
            5,
            mixup_alpha=alphas[0],
            cutmix_alpha=alphas[1],
            label_smoothing=0.1,
            seed=3,
            step=step,
        )
        assert result.shape == clips.shape and targets.shape == (count, 5)
        torch.testing.assert_close(targets.sum(1), torch.ones(count))
        changed |= not torch.equal(result, clips)
        if count == 1:
            torch.testing.assert_close(targets, smoothed)
    assert changed == (count > 1)
