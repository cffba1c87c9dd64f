"""Clips of one video in a batch share one decode: their bits, skips and notes are those alone."""

from __future__ import annotations

import itertools
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from videos import textured_frames, write_video

from vidadapt.config import DataConfig, EvalConfig
from vidadapt.data import TrainClips, TrainLoader, clips, load_list, resolve, together, train_loader
from vidadapt.data.changes import Changes
from vidadapt.data.epochs import SampleKey
from vidadapt.data.skips import SkipLog, read_skips
from vidadapt.lists import Sample, read_list, write_list
from vidadapt.video import ReadError, TransientReadError, VideoFacts

LENGTHS = (20, 33, 41, 9, 64)
SPLIT = {"batch_size", "world_size", "rank"}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of each reader (sparse, sequential), packed frames, and their list."""
    folder = tmp_path_factory.mktemp("together")
    names = [f"{i}{suffix}" for i in range(3) for suffix in (".mp4", ".avi", ".mkv")]
    for i, name in enumerate(names):
        frames = textured_frames(LENGTHS[i % len(LENGTHS)], seed=i)
        write_video(folder / name, frames, key_every=7)
    pack(folder / "00000.tar", 30)
    listed([*names, "00000.tar/v"], folder)
    return folder


@pytest.fixture
def copied(videos: Path, tmp_path: Path) -> Path:
    """The same in a folder whose files a test may change."""
    shutil.copytree(videos, tmp_path / "videos")
    return tmp_path / "videos"


def listed(names: list[str], folder: Path) -> None:
    write_list(folder / "list.txt", [Sample(name, i % 3) for i, name in enumerate(names)])
    (folder / "names.txt").write_text("a\nb\nc\n")


def pack(tar: Path, count: int) -> None:
    with tarfile.open(tar, "w") as file:
        for i, frame in enumerate(textured_frames(count, seed=9)):
            path = tar.with_name(f"{i:04d}.jpg")
            Image.fromarray(frame).save(path, quality=90)
            file.add(path, f"v/{i:04d}.jpg")
            path.unlink()


def opened(folder: Path, log: Path | None = None, **options: Any) -> TrainLoader:
    """A loader of the list; with a log, one that skips."""
    split = {"batch_size": 4, "seed": 5}
    split |= {name: options.pop(name) for name in SPLIT & options.keys()}
    base = {
        "root": str(folder),
        "train_list": str(folder / "list.txt"),
        "label_names": str(folder / "names.txt"),
        "sampling": "adaptformer",
        "stride": 2,
        "crop_size": 32,
        "num_workers": 0,
        "repeated_augmentation": 3,
        "rand_augment": True,
        "random_erasing": 0.5,
    }
    data = DataConfig(**base | options)
    plan = resolve(data, EvalConfig())
    samples = read_list(data.train_list, data.root, plan.num_classes)
    found = load_list(data, plan, data.train_list, samples, training=True, progress=False)
    loader = train_loader(data, plan, found, **split)
    if log is not None:
        loader.log, loader.changes = SkipLog(log, found.samples, 1000), Changes(None, "warn")
    return loader


def alone(loader: TrainLoader) -> TrainClips:
    """The same clips, none of which is read with another."""
    of = loader.dataset
    return TrainClips(
        of.samples,
        of.sampling,
        crop_size=of.crop_size,
        augmentation=of.augmentation,
        seed=of.seed,
        framing=of.framing,
        patience=of.patience.seconds,
    )


def assert_as_alone(loader: TrainLoader, epoch: int, consumed: int = 0) -> list[SampleKey]:
    """Check every clip of an epoch against the one that is loaded alone; return the keys."""
    loader.batch_sampler.set_epoch(epoch, consumed)
    single, seen = alone(loader), []
    with closing(loader):
        for keys, batch in zip(list(loader.batch_sampler), loader, strict=True):
            assert batch is not None
            for place, key in enumerate(keys):
                item = single[key]
                assert torch.equal(batch["clip"][place], item["clip"]), key
                assert torch.equal(batch["label"][place], torch.as_tensor(item["label"]))
                assert batch["index"][place] == item["index"] == key[1]
            seen += keys
    return seen


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Files that this process opens to read frames."""
    found: list[str] = []
    known = clips.open_counted

    def opened(file: str, *about: Any) -> Any:
        found.append(file)
        return known(file, *about)

    monkeypatch.setattr(clips, "open_counted", opened)
    return found


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("sampling", ["adaptformer", "uniform8", "vjepa2_ssv2"])
def test_clips_are_those_that_are_loaded_alone(
    videos: Path, num_workers: int, sampling: str
) -> None:
    options = {"stride": 2 if sampling == "adaptformer" else None}
    for reader in ("auto", "pyav"):
        loader = opened(
            videos, sampling=sampling, num_workers=num_workers, reader=reader, **options
        )
        keys = assert_as_alone(loader, epoch=1)
        assert len(keys) == 28 and len({key[1] for key in keys}) == 10


@pytest.mark.parametrize("consumed", [0, 1, 4, 8])
def test_copies_that_processes_or_a_resumed_run_have_apart(videos: Path, consumed: int) -> None:
    whole = opened(videos, batch_size=4)
    whole.batch_sampler.set_epoch(2, consumed)
    wanted = list(itertools.chain.from_iterable(whole.batch_sampler))
    halves = [opened(videos, batch_size=2, world_size=2, rank=rank) for rank in range(2)]
    found = [assert_as_alone(half, 2, consumed) for half in halves]
    assert sorted(itertools.chain.from_iterable(found)) == sorted(wanted)


def test_videos_that_are_drawn_several_times(videos: Path) -> None:
    loader = opened(videos, class_sampling="balanced", repeated_augmentation=2, batch_size=10)
    assert_as_alone(loader, epoch=0)


def test_a_video_is_opened_once_for_all_its_copies_in_a_batch(
    videos: Path, opens: list[str]
) -> None:
    loader = opened(videos, batch_size=6)
    list(loader)
    assert Counter(opens).most_common(1)[0][1] == 1 and len(opens) == 10
    loader.batch_sampler.set_epoch(1)
    list(loader)
    assert len(opens) == 20


def test_copies_of_an_image(tmp_path: Path, opens: list[str]) -> None:
    for i, frame in enumerate(textured_frames(4, seed=1)):
        Image.fromarray(frame).save(tmp_path / f"{i}.jpg")
    listed([f"{i}.jpg" for i in range(4)], tmp_path)
    options = {"sampling": "image", "stride": None, "batch_size": 6}
    list(opened(tmp_path, **options))
    assert len(opens) == 4
    assert_as_alone(opened(tmp_path, **options), epoch=3)


def test_frames_that_are_too_large_together_are_read_apart(
    videos: Path, opens: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = opened(videos).dataset.samples.facts(0)
    clip = 8 * 3 * facts.width * facts.height
    monkeypatch.setattr(together, "MOST_BYTES", clip)
    sizes: list[int] = []
    known = together.SharedReads._keep

    def kept(self: Any, frames: Any, places: Any) -> None:
        sizes.append(sum(frame.nbytes for frame in frames))
        known(self, frames, places)

    monkeypatch.setattr(together.SharedReads, "_keep", kept)
    assert_as_alone(opened(videos, batch_size=6), epoch=0)
    assert 0 < max(sizes) <= clip


def test_groups_are_as_large_as_they_may_be() -> None:
    small = VideoFacts("a.mp4", width=1 << 10, height=1 << 10)  # 85 frames
    wanted = {(0, 0, copy): np.arange(40) + 20 * copy for copy in range(6)}
    groups = list(together.groups_within(wanted, small))
    assert [len(group) for group in groups] == [3, 3]
    assert {key: value for group in groups for key, value in group.items()} == wanted
    large = VideoFacts("a.mp4", width=1 << 14, height=1 << 14)
    assert [len(group) for group in together.groups_within(wanted, large)] == [1] * 6


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_damaged_frame_costs_the_copies_that_want_it_alone(
    copied: Path, tmp_path: Path, num_workers: int
) -> None:
    log = tmp_path / "skipped.jsonl"
    loader = opened(copied, log, num_workers=num_workers, batch_size=6)
    tar = copied / "00000.tar"
    place = tar.read_bytes().index(b"v/0011.jpg") + 512 + 400
    facts = tar.stat()
    with tar.open("r+b") as file:
        file.seek(place)
        file.write(b"damaged!")
    os.utime(tar, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    single, wanted, lost = alone(loader), [], []
    found = []
    with closing(loader):
        for epoch in range(4):
            loader.batch_sampler.set_epoch(epoch)
            for key in itertools.chain.from_iterable(loader.batch_sampler):
                try:
                    wanted.append(single[key]["clip"])
                except ReadError as error:
                    assert "00000.tar/v: frame 11" in str(error)
                    lost.append(key)
            found += [clip for batch in loader if batch for clip in batch["clip"]]
    assert 0 < len(lost) < 12
    assert [(s.epoch - 1, s.index, s.copy) for s in read_skips(log)] == lost
    assert len(found) == len(wanted) and all(map(torch.equal, found, wanted))


def test_a_file_that_was_written_anew_is_told_for_each_clip(copied: Path, tmp_path: Path) -> None:
    loader = opened(copied, batch_size=6)
    os.utime(copied / "1.mp4", ns=(1, 1))
    single, told = alone(loader), 0
    batches = list(loader.batch_sampler)
    for keys, batch in zip(batches, loader.of(batches), strict=True):
        assert batch["changed"] == [single[key]["changed"] for key in keys]
        told += sum(map(bool, batch["changed"]))
    assert told == 3


def test_a_read_that_served_at_the_second_try_is_told_once(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = opened(videos, batch_size=6, clip_timeout=1.0)
    known, failed = clips.open_counted, []

    def failing(file: str, *about: Any) -> Any:
        if not failed:
            failed.append(file)
            raise TransientReadError(f"{file}: Stale file handle")
        return known(file, *about)

    monkeypatch.setattr(clips, "open_counted", failing)
    again = [why for batch in loader for why in batch["again"] if why]
    assert again == [f"{failed[0]}: Stale file handle"]


def test_clips_may_be_asked_for_in_another_order_or_never(videos: Path) -> None:
    loader = opened(videos, batch_size=6)
    data, single = loader.dataset, alone(loader)
    keys = [(0, 4, copy) for copy in range(3)]
    data.together(keys)
    for key in (keys[0], (0, 5, 0), keys[2], keys[1], keys[0]):
        assert torch.equal(data[key]["clip"], single[key]["clip"])
    data.together(keys)
    assert torch.equal(data[keys[1]]["clip"], single[keys[1]]["clip"])
    data.together([])
    assert torch.equal(data[keys[2]]["clip"], single[keys[2]]["clip"])
