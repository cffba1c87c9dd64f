"""Videos and packed frames in stores: the frames of local files, by few requests, damage told."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from object_store import forget
from test_packed import by_pillow, jpegs, write_tar
from videos import textured_frames, write_video

from benchmarks.store_server import Store
from vidadapt.data import Augmentation, EpochBatches, TrainClips, TrainLoader
from vidadapt.data.changes import ChangedVideo
from vidadapt.data.clips import read_frames
from vidadapt.data.sampling import SAMPLINGS
from vidadapt.lists import (
    CountJob,
    ListError,
    Sample,
    Samples,
    Videos,
    count_file,
    counted_videos,
    read_list,
    write_list,
)
from vidadapt.video import ReadError, TransientReadError, make_packed_index, open_video, times_at

pytestmark = [
    pytest.mark.filterwarnings("ignore:The image decoding"),  # of torchvision 0.29
    pytest.mark.usefixtures("own_cache"),
]


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """Three clips, one of them no video, and a tar of two packed ones."""
    for number in range(2):
        file = tmp_path / "bucket" / "in" / f"clip {number} [x]#.mp4"
        write_video(file, textured_frames(20 + number, number), key_every=5)
    (tmp_path / "bucket" / "in" / "none.mp4").write_bytes(b"<html>no video")
    members = [
        (f"{name}/{number:04d}.jpg", data)
        for name, seed in (("a.mp4", 1), ("b.mp4", 2))
        for number, data in enumerate(jpegs(12, seed))
    ]
    write_tar(tmp_path / "bucket" / "00000.tar", members)
    return tmp_path / "bucket"


PATHS = ["in/clip 0 [x]#.mp4", "in/none.mp4", "in/clip 1 [x]#.mp4", "00000.tar/b.mp4"]


def counted(root: str | Path, folder: Path, paths: list[str] = PATHS) -> Videos:
    samples = Samples.of([Sample(path, 0) for path in paths])
    folder.mkdir(exist_ok=True)
    return counted_videos(folder / "list.txt", root, samples, progress=False, num_workers=1)


@pytest.mark.parametrize("scheme", ["file", "s3"])
def test_the_same_facts_and_frames_as_of_local_files(
    bucket: Path, tmp_path: Path, scheme: str, request: pytest.FixtureRequest
) -> None:
    root = f"file://{bucket}"
    if scheme == "s3":
        request.getfixturevalue("store")
        root = "s3://bucket"
    local, stored = counted(bucket, tmp_path / "local"), counted(root, tmp_path / "stored")
    for place, path in enumerate(PATHS):
        ours, theirs = stored.facts(place), local.facts(place)
        assert ours.size == theirs.size and stored.file(place) == f"{root}/{path}"
        assert np.array_equal(ours.checks, theirs.checks)
        cause = theirs.error.replace(str(bucket), root)
        none = np.empty(0, np.uint64)
        same = replace(theirs, mtime_ns=ours.mtime_ns, error=cause, checks=none)
        assert replace(ours, checks=none) == same
        if not ours.error:
            wanted = np.array([3, 0, 11])
            frames, told = read_frames(stored.file(place), ours, wanted)
            assert told == ""
            assert np.array_equal(frames, read_frames(local.file(place), theirs, wanted)[0])
    assert counted(root, tmp_path / "stored").decoded == 0


def test_segments_of_a_stored_film_are_those_of_the_local_file(
    bucket: Path, tmp_path: Path, store: Store
) -> None:
    paths = ["in/clip 1 [x]#.mp4#frames=5,9", "in/clip 1 [x]#.mp4#t=0.5", "in/none.mp4#t=1"]
    root = "s3://bucket"
    local, stored = (counted(r, tmp_path / r[:2], paths) for r in (str(bucket), root))
    assert stored.column("num_frames").tolist() == [4, 9, 0]
    assert stored.facts(2).error.startswith("s3://bucket/in/none.mp4#t=1: ")
    for place in range(2):
        frames, told = read_frames(stored.file(place), stored.facts(place), np.array([3, 0]))
        known = local.file(place), local.facts(place)
        assert not told and np.array_equal(frames, read_frames(*known, np.array([3, 0]))[0])


@pytest.mark.usefixtures("store")
def test_times_of_frames_are_those_of_the_local_file(bucket: Path, tmp_path: Path) -> None:
    times = []
    for name, root in (("local", str(bucket)), ("stored", "s3://bucket")):
        videos = counted(root, tmp_path / name)
        files = [videos.file(place) for place in (0, 2, 3)]
        facts = [videos.facts(place) for place in (0, 2, 3)]
        times.append([times_at(*pair, [0, 3, 11]) for pair in zip(files, facts, strict=True)])
    assert times[0] == times[1]
    assert None not in times[0][:2] and times[0][2] is None


def test_a_clip_of_packed_frames_is_one_request_for_its_bytes(bucket: Path, store: Store) -> None:
    make_packed_index(bucket / "00000.tar", bucket / "00000.tar.index")
    wanted = [2, 5, 11]
    with open_video("s3://bucket/00000.tar/a.mp4") as video:
        before = len(store.asked)
        frames = video.frames(wanted)
    [(path, ranged)] = store.gets()[-1:]
    assert len(store.asked) == before + 1 and path == "/bucket/00000.tar"
    first, last = map(int, ranged.removeprefix("bytes=").split("-"))
    assert last - first < (bucket / "00000.tar").stat().st_size / 2
    assert np.array_equal(frames, [by_pillow(data) for data in np.array(jpegs(12, 1))[wanted]])


def batches_of(root: str | Path, folder: Path, workers: int, copies: int) -> list[dict]:
    paths = [f"00000.tar/{name}.mp4" for name in "abcdefgh"]
    clips = TrainClips(
        counted(root, folder, paths),
        replace(SAMPLINGS["uniform8"], num_frames=4),
        crop_size=32,
        augmentation=Augmentation(),
        seed=3,
        patience=0.1,
    )
    batches = EpochBatches(len(clips), 3, batch_size=4, repeats=copies)
    loader = TrainLoader(
        clips, batches, normalization="imagenet", clip_timeout=60, num_workers=workers
    )
    try:
        return [batch for _ in range(2) for batch in loader]
    finally:
        loader.close()


@pytest.mark.parametrize(("trouble", "copies"), [("", 1), ("failing at first", 2)])
def test_batches_that_are_read_ahead_are_those_of_local_files(
    tmp_path: Path, store: Store, trouble: str, copies: int
) -> None:
    members = [
        (f"{name}.mp4/{number:04d}.jpg", data)
        for seed, name in enumerate("abcdefgh")
        for number, data in enumerate(jpegs(8, seed))
    ]
    write_tar(tmp_path / "bucket" / "00000.tar", members)
    wanted = batches_of(tmp_path / "bucket", tmp_path / "local", 0, copies)
    counted("s3://bucket", tmp_path / "stored", [f"00000.tar/{name}.mp4" for name in "abcdefgh"])
    store.wait, store.most = 0.05, 0
    store.fail = 3 if trouble else 0
    found = batches_of("s3://bucket", tmp_path / "stored", 1, copies)
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.equal(ours["clip"], theirs["clip"])
        assert torch.equal(ours["index"], theirs["index"])
    assert store.most > (2 if copies == 1 else 1), "one process asked for several clips at once"
    assert all(ranged for path, ranged in store.gets()[-16:] if path.endswith(".tar"))


def test_a_tar_without_an_index_is_fetched_once(
    bucket: Path, store: Store, own_cache: Path
) -> None:
    for _ in range(2):
        with open_video("s3://bucket/00000.tar/a.mp4") as video:
            assert len(video) == 12
        forget()
    whole = [ranged for path, ranged in store.gets() if path.endswith(".tar")]
    assert len(whole) == 1
    assert not (bucket / "00000.tar.index").exists(), "nothing is written to a store"


def test_damage_on_the_way_is_told(bucket: Path, store: Store) -> None:
    make_packed_index(bucket / "00000.tar", bucket / "00000.tar.index")
    with open_video("s3://bucket/00000.tar/a.mp4") as video:
        store.damage = True
        with pytest.raises(ReadError, match=r"s3://bucket/00000\.tar/a\.mp4: frame 7"):
            video.frames([7])


@pytest.mark.parametrize("path", ["in/clip 0 [x]#.mp4", "00000.tar/a.mp4"])
def test_a_changed_object_is_noticed(bucket: Path, tmp_path: Path, path: str) -> None:
    found = counted(f"file://{bucket}", tmp_path / "lists", [path])
    write_video(bucket / "in" / "clip 0 [x]#.mp4", textured_frames(20, 7), key_every=5)
    members = [(f"a.mp4/{number:04d}.jpg", data) for number, data in enumerate(jpegs(12, 5))]
    write_tar(bucket / "00000.tar", members)
    forget()
    with pytest.raises(ChangedVideo, match="file://"):
        read_frames(found.file(0), found.facts(0), np.array([1, 7]))
    again = counted(f"file://{bucket}", tmp_path / "lists", [path])
    frames, told = read_frames(again.file(0), again.facts(0), np.array([1, 7]))
    assert told == "" and len(frames) == 2


def test_an_object_written_anew_with_the_same_content_is_used_and_told(
    bucket: Path, tmp_path: Path
) -> None:
    found = counted(f"file://{bucket}", tmp_path / "lists", PATHS[:1])
    wanted, _ = read_frames(found.file(0), found.facts(0), np.array([1, 7]))
    shutil.copy(bucket / PATHS[0], bucket / "copy")
    (bucket / "copy").replace(bucket / PATHS[0])
    forget()
    frames, told = read_frames(found.file(0), found.facts(0), np.array([1, 7]))
    assert "file://" in told and np.array_equal(frames, wanted)


def test_missing_and_forbidden_objects_are_no_fault_that_holds(
    bucket: Path, tmp_path: Path, store: Store
) -> None:
    found = counted("s3://bucket", tmp_path / "lists", ["in/gone.mp4", PATHS[0]])
    assert "s3://bucket/in/gone.mp4" in found.facts(0).error and not found.facts(0).holds
    assert found.facts(1).num_frames == 20
    store.refuse = True
    forget()
    with pytest.raises(TransientReadError, match="s3://bucket/in"):
        open_video(f"s3://bucket/{PATHS[2]}")
    job = CountJob(f"s3://bucket/{PATHS[2]}", PATHS[2], "auto", 1, 1)
    assert not count_file(job).holds


def test_lists_may_name_objects_below_a_root_that_is_a_url(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("a.mp4 0\ns3://bucket/set/b.mp4 1\n")
    assert len(read_list(listed, "s3://bucket/set", 2)) == 2
    for root in ("s3://bucket/other", "s3://bucket/se", str(tmp_path)):
        with pytest.raises(ListError, match="leads out of the root"):
            read_list(listed, root, 2)
        assert len(read_list(listed, root, 2, allow_outside_root=True)) == 2
    for path in ("/etc/passwd", "../a.mp4", "s3://bucket/set/../a.mp4"):
        listed.write_text(f"{path} 0\n")
        with pytest.raises(ListError, match="leads out of the root"):
            read_list(listed, "s3://bucket/set", 2)


def test_a_list_with_credentials_is_refused_and_they_are_not_shown(tmp_path: Path) -> None:
    for path in ("https://me:pass1234@host/a.mp4", "https://host/a.mp4?sig=pass1234"):
        write_list(tmp_path / "list.txt", [Sample(path, 0)])
        for trusted in (True, False):
            with pytest.raises(ListError) as told:
                read_list(tmp_path / "list.txt", "https://host", 2, trusted)
            assert "pass1234" not in str(told.value)
