"""Files that are replaced after they were counted: noticed in training and evaluation."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import TinySet
from videos import grey_frames, indices_of, write_video

from vidadapt import data
from vidadapt.data.changes import CHANGED, ChangedVideo, Changes, read_changes
from vidadapt.data.clips import read_frames
from vidadapt.lists import Sample, Videos, counted_videos

NAME = "a b #1.mp4"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    write_video(tmp_path / NAME, grey_frames(20, 96, 96), key_every=5)
    return tmp_path / NAME


def counted(video: Path) -> Videos:
    listed = video.parent / "list.txt"
    return counted_videos(listed, video.parent, [Sample(NAME, 0)], progress=False)


def of_frames(video: Path, count: int, first: int = 0) -> None:
    write_video(video, grey_frames(count + first, 96, 96)[first:], key_every=5)


@pytest.mark.parametrize(("count", "first"), [(30, 5), (12, 0), (20, 3), (5, 0)])
def test_another_video_of_any_length_is_noticed(video: Path, count: int, first: int) -> None:
    found = counted(video)
    of_frames(video, count, first)
    with pytest.raises(ChangedVideo, match=r"a b #1\.mp4"):
        read_frames(found.file(0), found.facts(0), np.array([0, 7, 19]))
    assert counted(video).facts(0).num_frames == count, "the next start counts it anew"


def test_the_same_content_with_another_time_is_used_and_told(video: Path) -> None:
    found = counted(video)
    wanted, told = read_frames(found.file(0), found.facts(0), np.array([3, 11]))
    assert told == ""
    shutil.copy(video, video.with_name("copy.mp4"))
    video.with_name("copy.mp4").replace(video)
    os.utime(video, ns=(1, 1))
    frames, told = read_frames(found.file(0), found.facts(0), np.array([3, 11]))
    assert np.array_equal(frames, wanted) and str(video) in told


def test_frames_that_differ_in_a_file_of_equal_size_and_time_are_told(video: Path) -> None:
    other = video.with_name("other.mp4")
    write_video(other, grey_frames(23, 96, 96)[3:], key_every=5)
    longest = max(video.stat().st_size, other.stat().st_size)
    for file in (video, other):
        file.write_bytes(file.read_bytes().ljust(longest, b"\0"))
    found, before = counted(video), video.stat()
    other.replace(video)
    os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns))
    frames, told = read_frames(found.file(0), found.facts(0), np.arange(20))
    assert indices_of(np.stack(frames).transpose(3, 0, 1, 2)) == list(range(3, 23))
    assert str(video) in told


def test_a_change_is_listed_once_or_ends_the_run(tmp_path: Path, capsys) -> None:
    path = tmp_path / "run" / CHANGED
    for _ in range(2):  # a run, and one that goes on with it
        changes = Changes(path, "warn")
        for _ in range(3):
            changes.note("a.mp4", "/data/a.mp4: another")
        changes.note("b.mp4", "/data/b.mp4: another")
    assert read_changes(path) == {"a.mp4": "/data/a.mp4: another", "b.mp4": "/data/b.mp4: another"}
    assert len(path.read_text().splitlines()) == 2
    with path.open("a") as file:
        file.write('{"path": "c.m')  # half a line
    assert len(read_changes(path)) == 2
    with pytest.raises(ChangedVideo, match=r"/data/a\.mp4.*data\.changed"):
        Changes(path, "error").note("a.mp4", "/data/a.mp4: another")
    Changes(None, "warn").note("a.mp4", "/data/a.mp4: another")
    assert "/data/a.mp4" in capsys.readouterr().err


@pytest.fixture
def root(tiny_set: TinySet, tmp_path: Path) -> Path:
    """A copy of the tiny set, whose videos are to be replaced."""
    shutil.copytree(tiny_set.root, tmp_path / "videos")
    return tmp_path / "videos"


def options_of(tiny_set: TinySet, root: Path, **changes: object) -> list[str]:
    lists = {f"data__{name}_list": root / f"{name}.txt" for name in ("train", "dev", "test")}
    return tiny_set.options(**lists, data__root=root, train__epochs=1, **changes)


def replace_after_counting(monkeypatch: pytest.MonkeyPatch, video: Path, frames: int) -> None:
    """Put another video in the place of one as soon as the files of a list are looked up."""
    honest = data.load_list

    def load_list(*arguments: object, **options: object) -> object:
        found = honest(*arguments, **options)  # type: ignore[arg-type]
        write_video(video, grey_frames(frames, 96, 96))
        return found

    for module in (data, data.splits):
        monkeypatch.setattr(module, "load_list", load_list)


@pytest.mark.parametrize("frames", [50, 3])
def test_training_and_evaluation_notice_a_replaced_video(
    tiny_set: TinySet,
    root: Path,
    tmp_path: Path,
    run_tool,
    monkeypatch: pytest.MonkeyPatch,
    frames: int,
) -> None:
    run, trained, tested = tmp_path / "run", "train 3 [x]#.mp4", "test 2 [x]#.mp4"
    options = options_of(tiny_set, root, data__max_skipped=2)
    with monkeypatch.context() as patch:
        replace_after_counting(patch, root / trained, frames)
        run_tool("train", *options, "--run_dir", run)
    [skipped] = (json.loads(line) for line in (run / "skipped.jsonl").read_text().splitlines())
    assert skipped["path"] == trained
    [changed] = json.loads((run / "summary.json").read_text())["changed"]
    assert str(root / trained) in changed
    with monkeypatch.context() as patch:
        replace_after_counting(patch, root / tested, frames)
        run_tool("evaluate", "--run_dir", run, "--out", tmp_path / "eval")
    found = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert [entry["path"] for entry in found["unreadable"]] == [tested]
    assert any(str(root / tested) in line for line in found["warnings"])


def test_a_change_is_an_error_where_that_is_asked_for(
    tiny_set: TinySet, root: Path, tmp_path: Path, run_tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = options_of(tiny_set, root, data__max_skipped=2, data__changed="error")
    run = tmp_path / "run"
    run_tool("train", *options, "--run_dir", run)
    with monkeypatch.context() as patch:
        replace_after_counting(patch, root / "train 3 [x]#.mp4", 50)
        with pytest.raises(ChangedVideo, match=r"train 3 \[x\]#\.mp4.*data\.changed") as error:
            run_tool("train", *options, "--run_dir", tmp_path / "other")
    assert "\n" not in str(error.value)
    replace_after_counting(monkeypatch, root / "test 2 [x]#.mp4", 50)
    with pytest.raises(ChangedVideo, match=r"test 2 \[x\]#\.mp4.*data\.changed"):
        run_tool("evaluate", "--run_dir", run, "--out", tmp_path / "eval")
