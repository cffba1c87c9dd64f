"""Real files to batches: which frames arrive, and that nothing but the key decides what comes."""

import multiprocessing
from dataclasses import replace
from multiprocessing.context import ForkProcess

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from videos import grey_frames, indices_of, textured_frames, write_video

from vidadapt.config import DataConfig, EvalConfig
from vidadapt.data import DATASETS, eval_loader, load_list, resolve, train_loader
from vidadapt.data.clips import view_chunks
from vidadapt.data.sampling import SAMPLINGS, eval_indices
from vidadapt.data.transforms import cut_views
from vidadapt.lists import ListError, Sample, read_list, write_list
from vidadapt.video import ReadError, open_video

SAMPLES = [
    Sample("class a/#1_[x]_(y)_&_;_'best!'.mp4", 0),
    Sample("class a/name 12.mp4", 1),
    Sample("b, c.mp4", 2),
    Sample("short.mp4", 0),
    Sample("one.mp4", 1),
]
LENGTHS = [50, 41, 33, 10, 1]
RANDOM = {"flip": True, "rand_augment": True, "random_erasing": 0.5}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root whose frames tell their index, its list and its label names."""
    folder = tmp_path_factory.mktemp("grey")
    for sample, length in zip(SAMPLES, LENGTHS, strict=True):
        write_video(folder / sample.path, grey_frames(length))
    write_list(folder / "list.txt", SAMPLES)
    (folder / "names.txt").write_text("a\nb\nc\n")
    return folder


@pytest.fixture(scope="module")
def textured(tmp_path_factory):
    """The same with pictures, where crops and colours matter."""
    folder = tmp_path_factory.mktemp("textured")
    samples = [Sample(f"{i}.mp4", i % 3) for i in range(7)]
    for i, sample in enumerate(samples):
        write_video(folder / sample.path, textured_frames(20 + 5 * i, seed=i))
    write_list(folder / "list.txt", samples)
    (folder / "names.txt").write_text("a\nb\nc\n")
    return folder


def config(folder, **options):
    base = {
        "root": str(folder),
        "train_list": str(folder / "list.txt"),
        "label_names": str(folder / "names.txt"),
        "sampling": "adaptformer",
        "crop_size": 32,
        "num_workers": 0,
    }
    return DataConfig(**base | options)


def loaded(data, training=True):
    plan = resolve(data, EvalConfig())
    samples = read_list(data.train_list, data.root, plan.num_classes)
    return plan, load_list(data, plan, data.train_list, samples, training=training, progress=False)


def train_batches(data, *, epochs=(0,), seed=0, **split):
    plan, videos = loaded(data)
    loader = train_loader(data, plan, videos, seed=seed, **split)
    result = []
    for epoch in epochs:
        loader.batch_sampler.set_epoch(epoch)
        result += list(loader)
    return result


def test_training_clips_hold_the_frames_they_should(root):
    data = config(root)
    starts = set()
    for epoch in range(6):
        for batch in train_batches(data, epochs=[epoch], batch_size=5):
            assert batch["clip"].shape == (5, 3, 8, 32, 32) and batch["clip"].dtype == torch.uint8
            for clip, label, index in zip(
                *(batch[k] for k in ("clip", "label", "index")), strict=True
            ):
                n = LENGTHS[index]
                assert label == SAMPLES[index].label
                frames = indices_of(clip)
                last = (n - 1 - frames[0]) // 4 * 4 + frames[0]
                assert frames == [min(frames[0] + 4 * i, last) for i in range(8)]
                assert frames[0] <= max(n - 32, 0)
                starts.add((int(index), frames[0]))
    assert len([s for s in starts if s[0] == 0]) > 2


@pytest.mark.parametrize("sampling", sorted(SAMPLINGS))
def test_evaluation_views_hold_the_frames_they_should(root, sampling):
    data = config(root, sampling=sampling)
    plan, videos = loaded(data, training=False)
    for item in eval_loader(data, plan, videos):
        expected = eval_indices(plan.sampling, LENGTHS[item["index"]], plan.num_clips)
        views = all_views(item)
        assert views.shape[0] == plan.num_clips * plan.num_crops and item["error"] == ""
        for number, view in enumerate(views):
            assert indices_of(view) == expected[number // plan.num_crops].tolist()


def test_views_equal_those_decoded_one_by_one(textured):
    data = config(textured, num_frames=4, stride=2)
    plan, videos = loaded(data, training=False)
    for item in eval_loader(data, plan, videos):
        path = textured / videos.samples[item["index"]].path
        with open_video(path) as video:
            indices = eval_indices(plan.sampling, len(video), plan.num_clips)
        assert torch.equal(all_views(item), views_one_by_one(path, indices, 32, 3))
        assert item["view_of"].tolist() == list(range(12))


@pytest.mark.parametrize("width", [32, 44])
def test_views_that_coincide_are_there_once(tmp_path, width):
    """7 frames are shorter than a clip; 21 give clips that start at 0, 0, 1 and 2 (times 2)."""
    lengths = {"a.mp4": 7, "b.mp4": 21}
    for name, length in lengths.items():
        write_video(tmp_path / name, textured_frames(length, seed=1)[:, :32, :width])
    write_list(tmp_path / "list.txt", [Sample(name, 0) for name in lengths])
    (tmp_path / "names.txt").write_text("a\n")
    data = config(tmp_path, stride=2, num_frames=9, crop_size=32)
    plan, videos = loaded(data, training=False)
    num_crops = 1 if width == 32 else 3
    clips = {"a.mp4": [0, 0, 0, 0], "b.mp4": [0, 0, 1, 2]}
    for item, (name, length) in zip(eval_loader(data, plan, videos), lengths.items(), strict=True):
        whole = all_views(item)
        indices = eval_indices(plan.sampling, length, 4)
        assert torch.equal(whole, views_one_by_one(tmp_path / name, indices, 32, 3))
        crops = [0, 0, 0] if num_crops == 1 else [0, 1, 2]
        expected = [clip * num_crops + crop for clip in clips[name] for crop in crops]
        assert item["view_of"].tolist() == expected
        chunks = list(view_chunks(item, 2, torch.device("cpu")))
        assert {len(chunk) for chunk in chunks[:-1]} <= {2} and len(chunks[-1]) <= 2
        assert torch.equal(torch.cat(chunks)[item["view_of"]], whole)


def test_validation_takes_the_centre_view(textured):
    data = config(textured)
    plan, videos = loaded(data, training=False)
    for item in eval_loader(data, plan, videos, num_clips=1, num_crops=1):
        path = textured / videos.samples[item["index"]].path
        with open_video(path) as video:
            indices = eval_indices(plan.sampling, len(video), 1)
        assert torch.equal(all_views(item), views_one_by_one(path, indices, 32, 1))


def all_views(item):
    """(V, 3, T, S, S) uint8: every view, also those that are another one's equal."""
    return cut_views(item["frames"], item["clips"], item["corners"])[item["view_of"]]


def views_one_by_one(path, indices, size, num_crops):
    """(V, 3, T, S, S) uint8: every frame decoded in turn, resized alone and sliced, per view."""
    with open_video(path, "pyav") as video:
        frames = [video.frames([i])[0] for i in range(len(video))]
    small = []
    for frame in frames:
        height, width = frame.shape[:2]
        shape = (size * height // min(height, width), size * width // min(height, width))
        picture = torch.from_numpy(np.array(frame)).permute(2, 0, 1).contiguous()
        small.append(v2.functional.resize(picture, list(shape), antialias=True))
    slack_y, slack_x = small[0].shape[1] - size, small[0].shape[2] - size
    views = []
    for clip in indices:
        for k in range(num_crops):
            share = 0.5 if num_crops == 1 else k / (num_crops - 1)
            top, left = int(share * slack_y), int(share * slack_x)
            cut = [small[i][:, top : top + size, left : left + size] for i in clip]
            views.append(torch.stack(cut, dim=1))
    return torch.stack(views)


def same(first, second):
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, b[key]), key
            else:
                assert value == b[key], key


@pytest.mark.parametrize("options", [{}, RANDOM])
def test_a_batch_is_its_items_stacked(textured, options):
    data = config(textured, **options)
    plan, videos = loaded(data)
    loader = train_loader(data, plan, videos, seed=0, batch_size=4)
    [keys] = list(loader.batch_sampler)
    items = [loader.dataset[key] for key in keys]
    [batch] = list(loader)
    assert torch.equal(batch["clip"], torch.stack([item["clip"] for item in items]))
    assert batch["label"].tolist() == [item["label"] for item in items]
    assert batch["index"].tolist() == [item["index"] for item in items]


@pytest.mark.parametrize("train_crop", ["multi_scale", "random_resized"])
def test_training_is_the_same_with_0_and_2_workers(textured, train_crop):
    data = config(textured, train_crop=train_crop, repeated_augmentation=2, **RANDOM)
    torch.manual_seed(1)
    alone = train_batches(data, epochs=[0, 1, 5], batch_size=3)
    torch.manual_seed(2)
    np.random.seed(3)  # noqa: NPY002 # the legacy global state must not matter
    same(alone, train_batches(replace(data, num_workers=2), epochs=[0, 1, 5], batch_size=3))


def test_evaluation_is_the_same_with_0_and_2_workers(textured):
    data = config(textured)
    plan, videos = loaded(data, training=False)
    alone = list(eval_loader(data, plan, videos))
    same(alone, list(eval_loader(replace(data, num_workers=2), plan, videos)))


def test_workers_are_no_forks_of_a_process_with_threads(textured):
    """A fork taken while gloo's threads held a lock left a worker hanging at its first line."""
    data = config(textured, num_workers=1)
    plan, videos = loaded(data)
    for loader in (train_loader(data, plan, videos, seed=0, batch_size=2),
                   eval_loader(data, plan, videos)):  # fmt: skip
        next(iter(loader))
        workers = multiprocessing.active_children()
        assert workers and not any(isinstance(worker, ForkProcess) for worker in workers)


def test_loading_leaves_the_global_generators_alone(textured):
    data = config(textured, **RANDOM)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    train_batches(data, batch_size=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_items_do_not_depend_on_batches_processes_or_resuming(textured):
    data = config(textured, **RANDOM)

    def clips_by_key(batches):
        return {
            int(i): clip for b in batches for i, clip in zip(b["index"], b["clip"], strict=True)
        }

    whole = clips_by_key(train_batches(data, epochs=[3], batch_size=7))
    singles = clips_by_key(train_batches(data, epochs=[3], batch_size=1))
    halves = {}
    for rank in range(2):
        halves |= clips_by_key(
            train_batches(data, epochs=[3], batch_size=3, rank=rank, world_size=2)
        )
    assert len(whole) == len(singles) == 7 and len(halves) == 6
    assert all(torch.equal(clip, singles[i]) for i, clip in whole.items())
    assert all(torch.equal(clip, whole[i]) for i, clip in halves.items())


def test_epochs_seeds_and_copies_differ(textured):
    data = config(textured, repeated_augmentation=2)

    def clip_of(index, epoch, seed, copy):
        [batch] = train_batches(data, epochs=[epoch], seed=seed, batch_size=14)
        return batch["clip"][(batch["index"] == index).nonzero().ravel()[copy]]

    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    clips = [clip_of(6, *key) for key in keys]
    assert len({clip.numpy().tobytes() for clip in clips}) == len(keys)


@pytest.mark.parametrize("world_size", [1, 2, 3, 9])
def test_every_video_is_evaluated_once_over_all_processes(root, world_size):
    data = config(root)
    plan, videos = loaded(data, training=False)
    per_rank = [
        [item["index"] for item in eval_loader(data, plan, videos, rank=r, world_size=world_size)]
        for r in range(world_size)
    ]
    assert per_rank == [list(range(r, 5, world_size)) for r in range(world_size)]


@pytest.fixture
def broken(tmp_path):
    """Two good videos and one that is none."""
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, grey_frames(12))
    (tmp_path / "bad.mp4").write_bytes(b"this is no video" * 100)
    write_list(
        tmp_path / "list.txt", [Sample("a.mp4", 0), Sample("bad.mp4", 1), Sample("b.mp4", 2)]
    )
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    return tmp_path


def test_unreadable_training_videos(broken):
    with pytest.raises(ReadError, match=r"1 unreadable training video(?s:.*)bad\.mp4"):
        loaded(config(broken))
    data = config(broken, max_unreadable=1)
    _, videos = loaded(data)
    assert [s.path for s in videos.samples] == ["a.mp4", "b.mp4"]
    assert len(videos.left_out) == 1 and "bad.mp4" in videos.left_out[0]
    [batch] = train_batches(data, batch_size=2)
    assert sorted(batch["label"].tolist()) == [0, 2]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_unreadable_evaluation_videos_stay_and_say_why(broken, num_workers):
    data = config(broken, num_workers=num_workers)
    plan, videos = loaded(data, training=False)
    assert videos.left_out == () and "bad.mp4" in videos.warnings[0]
    good, bad, _ = list(eval_loader(data, plan, videos))
    assert good["error"] == "" and good["frames"] is not None
    assert bad["frames"] is None and bad["error"] and bad["label"] == 1


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_file_that_breaks_later_is_named(broken, num_workers):
    data = config(broken, max_unreadable=1, num_workers=num_workers)
    plan, videos = loaded(data)
    (broken / "a.mp4").write_bytes(b"gone")
    loader = train_loader(data, plan, videos, seed=0, batch_size=2)
    with pytest.raises(ReadError, match=r"a\.mp4"):
        list(loader)
    first = next(iter(eval_loader(data, plan, videos)))
    assert first["frames"] is None and "a.mp4" in first["error"]


def test_truncated_videos_are_listed_or_refused(tmp_path):
    """A file cut in half whose header, written first, still promises all frames."""
    write_video(tmp_path / "whole.mp4", textured_frames(40, seed=0), header_first=True)
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(content[: len(content) * 3 // 4])
    write_list(tmp_path / "list.txt", [Sample("whole.mp4", 0), Sample("half.mp4", 1)])
    (tmp_path / "names.txt").write_text("a\nb\n")
    for training in (True, False):
        _, videos = loaded(config(tmp_path), training=training)
        [warning] = videos.warnings
        assert "half.mp4: the header promises 40 frames" in warning and len(videos.samples) == 2
        with pytest.raises(ReadError, match=r"1 truncated video(?s:.*)half\.mp4"):
            loaded(config(tmp_path, truncated="error"), training=training)
    data = config(tmp_path)
    assert [b["clip"].shape[0] for b in train_batches(data, batch_size=2)] == [2]


def test_all_videos_unreadable_is_an_error(broken):
    for name in ("a.mp4", "b.mp4"):
        (broken / name).write_bytes(b"")
    for training in (True, False):
        with pytest.raises(ReadError, match="no video can be read"):
            loaded(config(broken, max_unreadable=9), training=training)


def test_list_errors_reach_the_caller(broken):
    (broken / "list.txt").write_text("a.mp4 3\n")
    with pytest.raises(ListError, match=r"list\.txt:1: label 3 is outside 0\.\.2"):
        loaded(config(broken))


def test_presets():
    assert {name: d.num_classes for name, d in DATASETS.items()} == {
        "ssv2": 174,
        "hmdb51": 51,
        "ucf101": 101,
        "kinetics400": 400,
        "custom": None,
        "cifar100": 100,
        "svhn": 10,
        "food101": 101,
        "flowers102": 102,
        "vtab": None,
        "fgvc": None,
        "nuswide": 81,
        "custom_images": None,
    }
    for name, dataset in DATASETS.items():
        if dataset.num_classes is not None:
            plan = resolve(DataConfig(dataset=name), EvalConfig())
            assert plan.num_classes == dataset.num_classes
            frames = (1,) if dataset.sampling == "image" else (8, 16)
            assert plan.sampling.num_frames in frames
    ssv2 = resolve(DataConfig(dataset="ssv2"), EvalConfig())
    assert not ssv2.augmentation.flip and (ssv2.num_clips, ssv2.num_crops) == (4, 3)


def test_overrides(root):
    plan = resolve(config(root, num_frames=16, stride=2), EvalConfig(num_clips=7, num_crops=1))
    assert (plan.sampling.num_frames, plan.sampling.stride) == (16, 2)
    assert (plan.num_clips, plan.num_crops) == (7, 1)
    assert plan.num_classes == 3 and plan.label_names == ("a", "b", "c")
    assert resolve(config(root, flip=True), EvalConfig()).augmentation.flip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "hmdb"}, r"data.dataset: 'hmdb' is unknown; did you mean hmdb51"),
        ({"sampling": "adaptformr"}, r"data.sampling: .*did you mean adaptformer"),
        ({"normalization": "imagenets"}, r"did you mean imagenet"),
        ({"reader": "decrod"}, r"did you mean decord"),
        ({"train_crop": "multiscale"}, r"did you mean multi_scale"),
        ({"dataset": "ssv2", "label_names": None, "flip": True}, r"flip must not be true for ssv2"),
        ({"label_names": None}, r"'custom' needs data.label_names"),
        ({"dataset": "hmdb51"}, r"names 3 classes, but hmdb51 has 51"),
        ({"num_frames": 0}, r"num_frames must be at least 1"),
        ({"sampling": "uniform8", "stride": 4}, r"stride 4 has no meaning in uniform"),
        ({"crop_size": 0}, r"data.crop_size must be at least 1"),
        ({"num_workers": -1}, r"data.num_workers must be at least 0"),
        ({"repeated_augmentation": 0}, r"data.repeated_augmentation must be at least 1"),
        ({"random_erasing": 1.5}, r"data.random_erasing is a probability"),
    ],
)
def test_impossible_data_options(root, options, message):
    with pytest.raises(ValueError, match=message):
        resolve(config(root, **options), EvalConfig())


def test_an_empty_label_file_is_an_error(tmp_path):
    (tmp_path / "names.txt").write_text("\n")
    with pytest.raises(ListError, match="holds no label names"):
        resolve(DataConfig(label_names=str(tmp_path / "names.txt")), EvalConfig())


def test_too_few_samples_for_a_global_batch(root):
    plan, videos = loaded(config(root))
    with pytest.raises(ValueError, match="5 training samples x 1 copies are fewer"):
        train_loader(config(root), plan, videos, seed=0, batch_size=3, world_size=2)
