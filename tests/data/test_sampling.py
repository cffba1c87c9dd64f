"""Against slow references written from the behaviour of AdaptFormer's and VideoMAE's loaders."""

from dataclasses import replace

import numpy as np
import pytest

from vidadapt.data.sampling import SAMPLINGS, Sampling, eval_indices, train_indices

LENGTHS = [*range(1, 140), 200, 299, 300, 301, 1000, 9999]
DENSE = ["adaptformer", "videomae_dense"]
UNIFORM = ["videomae_ssv2", "uniform8"]
SEGMENTS = SAMPLINGS["vjepa2_ssv2"]


def reference_dense_test(n, num_frames, stride, num_clips):
    kept = [i for i in range(n) if i % stride == 0]
    while len(kept) < num_frames:
        kept.append(kept[-1])
    step = max((len(kept) - num_frames) / (num_clips - 1), 0)
    return [kept[int(k * step) :][:num_frames] for k in range(num_clips)]


def reference_ssv2_test(n, num_frames):
    tick = n / num_frames
    half_way = [int(tick / 2 + tick * i) for i in range(num_frames)]
    at_start = [int(tick * i) for i in range(num_frames)]
    both = sorted(half_way + at_start)
    return [both[0::2], both[1::2]]


def reference_dense_train(n, num_frames, stride, start):
    indices = [start]
    while len(indices) < num_frames:
        following = indices[-1] + stride
        indices.append(following if following < n else indices[-1])
    return indices


def reference_segments_test(n, segments=2, frames=16, stride=4):
    """V-JEPA 2's, clip by clip; its starts drawn in training are 0 in its test."""
    length, part = frames * stride, n // segments
    clips = []
    for number in range(segments):
        if part > length:
            window = np.linspace(0, length, num=frames)
            window = np.clip(window, 0, length - 1).astype(np.int64) + number * part
        else:
            last = min(length, n) - 1
            window = np.linspace(0, last, num=last // stride)
            window = np.concatenate([window, np.ones(frames - last // stride) * last])
            window = np.clip(window, 0, max(last - 1, 0)).astype(np.int64)
            step = (n - length) // (segments - 1) if n > length else 0
            window = window + number * step
        clips += window.tolist()
    return clips


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("num_clips", [2, 3, 4, 5, 10])
def test_dense_test_clips_are_the_references(name, num_clips):
    sampling = SAMPLINGS[name]
    for n in LENGTHS:
        expected = reference_dense_test(n, sampling.num_frames, sampling.stride, num_clips)
        assert eval_indices(sampling, n, num_clips).tolist() == expected, n


def test_dense_example():
    starts = eval_indices(SAMPLINGS["adaptformer"], 45, 4)[:, 0] // 4
    assert starts.tolist() == [0, 1, 2, 4]  # of 12 sub-sampled frames


@pytest.mark.parametrize("name", UNIFORM)
def test_two_uniform_clips_are_the_references(name):
    for n in LENGTHS:
        expected = reference_ssv2_test(n, SAMPLINGS[name].num_frames)
        assert eval_indices(SAMPLINGS[name], n, 2).tolist() == expected, n


def test_uniform_examples():
    first, second = eval_indices(SAMPLINGS["videomae_ssv2"], 24, 2).tolist()
    assert first == [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22]
    assert second == [0, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18, 20, 21, 23]
    for n in (1, 2, 4, 8, 16):
        first, second = eval_indices(SAMPLINGS["videomae_ssv2"], n, 2).tolist()
        assert first == second


def test_segments_are_the_references():
    for n in LENGTHS:
        assert eval_indices(SEGMENTS, n, 1)[0].tolist() == reference_segments_test(n), n
    three = Sampling("segments", num_frames=12, stride=2, num_clips=1, num_crops=1, segments=3)
    for n in LENGTHS:
        expected = reference_segments_test(n, 3, 4, 2)
        assert eval_indices(three, n, 1)[0].tolist() == expected, n


def test_segments_of_training_begin_anywhere_in_their_part():
    rng = np.random.default_rng(0)
    drawn = [train_indices(SEGMENTS, 136, rng).reshape(2, 16) for _ in range(300)]
    starts = np.stack([clip[:, 0] for clip in drawn])
    assert np.unique(starts[:, 0]).tolist() == [0, 1, 2, 3]  # 68 frames a part, windows of 64
    assert np.unique(starts[:, 1]).tolist() == [68, 69, 70, 71]
    assert len({tuple(row) for row in starts.tolist()}) == 16  # each draws for itself
    test = eval_indices(SEGMENTS, 136, 1)[0].reshape(2, 16)
    for clip in drawn:
        assert ((clip - clip[:, :1]) == (test - test[:, :1])).all()
    short = train_indices(SEGMENTS, 100, rng).tolist()
    assert short == eval_indices(SEGMENTS, 100, 1)[0].tolist()


def test_segments_are_read_as_one_clip():
    with pytest.raises(ValueError, match="num_clips"):
        eval_indices(SEGMENTS, 100, 2)
    with pytest.raises(ValueError, match="num_clips"):  # also before any video is read
        replace(SEGMENTS, num_clips=2)
    with pytest.raises(ValueError, match="multiple of 2"):
        replace(SEGMENTS, num_frames=15)


def test_presets_take_the_references_numbers_of_views():
    views = {name: (s.num_frames, s.num_clips, s.num_crops) for name, s in SAMPLINGS.items()}
    assert views["adaptformer"] == (8, 4, 3)
    assert views["videomae_dense"] == (16, 5, 3)
    assert views["videomae_ssv2"] == (16, 2, 3)


@pytest.mark.parametrize("name", [*DENSE, *UNIFORM])
@pytest.mark.parametrize("num_clips", [1, 2, 3, 7, 10])
def test_any_number_of_clips_on_any_length(name, num_clips):
    sampling = SAMPLINGS[name]
    for n in LENGTHS:
        indices = eval_indices(sampling, n, num_clips)
        assert indices.shape == (num_clips, sampling.num_frames) and indices.dtype == np.int64
        assert indices.min() >= 0 and indices.max() < n
        assert (np.diff(indices, axis=1) >= 0).all() and (np.diff(indices, axis=0) >= 0).all()


def test_uniform_clips_interleave_over_the_whole_video():
    sampling = SAMPLINGS["uniform8"]
    for num_clips in (2, 3, 5):
        together = np.sort(eval_indices(sampling, 8 * num_clips, num_clips).ravel())
        assert together.tolist() == list(range(8 * num_clips))


def test_one_clip_is_the_centre():
    for n in (33, 64, 65, 300):
        grid = range(0, n, 4)
        clip = eval_indices(SAMPLINGS["adaptformer"], n, 1)[0].tolist()
        before, after = grid.index(clip[0]), len(grid) - 1 - grid.index(clip[-1])
        assert after - before in (0, 1)
    for n in (1, 5, 8, 24, 100):
        clip = eval_indices(SAMPLINGS["uniform8"], n, 1)[0]
        assert (clip + clip[::-1] - (n - 1) <= 1).all() and (clip + clip[::-1] >= n - 2).all()


@pytest.mark.parametrize("name", DENSE)
def test_dense_training_clips(name):
    sampling = SAMPLINGS[name]
    span = sampling.num_frames * sampling.stride
    rng = np.random.default_rng(0)
    for n in [*range(1, span + 12), 200]:
        starts = set()
        for _ in range(200):
            clip = train_indices(sampling, n, rng).tolist()
            starts.add(clip[0])
            reference = reference_dense_train(n, sampling.num_frames, sampling.stride, clip[0])
            assert clip == reference and clip[-1] < n
        if n < span + 12:
            assert starts == set(range(max(n - span, 0) + 1)), n


def test_dense_training_example():
    clip = train_indices(SAMPLINGS["adaptformer"], 20, np.random.default_rng(1))
    assert clip.tolist() == [0, 4, 8, 12, 16, 16, 16, 16] and clip.dtype == np.int64


@pytest.mark.parametrize("name", DENSE)
def test_short_videos_give_the_same_clip_in_training_and_evaluation(name):
    sampling = SAMPLINGS[name]
    for n in range(1, (sampling.num_frames - 1) * sampling.stride + 2):
        clip = train_indices(sampling, n, np.random.default_rng(2)).tolist()
        assert eval_indices(sampling, n, 3).tolist() == [clip] * 3


@pytest.mark.parametrize("num_frames", [1, 5, 8, 16])
def test_uniform_training_draws_one_frame_of_each_segment(num_frames):
    sampling = Sampling("uniform", num_frames, 1, 2, 3)
    rng = np.random.default_rng(3)
    for n in [1, 2, 3, 5, 7, 8, 9, 16, 17, 31, 100]:
        drawn = np.stack([train_indices(sampling, n, rng) for _ in range(600)])
        for i in range(num_frames):
            touched = [
                f for f in range(n) if f + 1 > i * n / num_frames and f < (i + 1) * n / num_frames
            ]
            assert set(drawn[:, i]) <= set(touched)
            assert len(touched) > 12 or set(drawn[:, i]) == set(touched)


@pytest.mark.parametrize("n", [3, 10, 21])
def test_uniform_training_favours_no_frame(n):
    rng, draws = np.random.default_rng(4), 4000
    drawn = np.concatenate([train_indices(SAMPLINGS["uniform8"], n, rng) for _ in range(draws)])
    share = np.bincount(drawn, minlength=n) / drawn.size * n
    assert np.abs(share - 1).max() < 0.05  # 5 standard deviations at n = 21


def test_training_clips_depend_on_the_generator_alone():
    for sampling in SAMPLINGS.values():
        one = train_indices(sampling, 200, np.random.default_rng(5))
        again = train_indices(sampling, 200, np.random.default_rng(5))
        other = [train_indices(sampling, 200, np.random.default_rng(s)).tolist() for s in range(9)]
        assert one.tolist() == again.tolist() and len({tuple(o) for o in other}) > 1


def test_impossible_samplings_are_errors():
    rng = np.random.default_rng(0)
    for sampling in SAMPLINGS.values():
        with pytest.raises(ValueError, match="0 frames has no clip"):
            train_indices(sampling, 0, rng)
        with pytest.raises(ValueError, match="0 frames has no clip"):
            eval_indices(sampling, 0, 1)
        with pytest.raises(ValueError, match="num_clips must be at least 1"):
            eval_indices(sampling, 10, 0)
        with pytest.raises(ValueError, match="num_frames must be at least 1"):
            replace(sampling, num_frames=0)
    with pytest.raises(ValueError, match="no meaning in uniform sampling"):
        replace(SAMPLINGS["uniform8"], stride=4)
