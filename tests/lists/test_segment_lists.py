"""Lists of segments: a film is decoded once, bad lines are named, splits share no frame."""

from __future__ import annotations

from pathlib import Path

import pytest
from videos import grey_frames, write_video

from vidadapt import data
from vidadapt.apps.prepare.shards import sharded
from vidadapt.config import DataConfig, EvalConfig
from vidadapt.lists import (
    CountJob,
    ListError,
    Sample,
    Samples,
    Videos,
    count_file,
    counted_videos,
    index_path,
    read_index,
    read_list,
    shared_paths,
    write_list,
)
from vidadapt.video import VideoFacts

PARTS = ["a.mp4#t=0,0.5", "a.mp4#t=0.25,1", "a.mp4#frames=20", "b.mp4#t=,0.5", "b.mp4"]


@pytest.fixture
def films(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", grey_frames(40))
    return tmp_path


def count(films: Path, paths: list[str], name: str = "list.txt", **options: object) -> Videos:
    """Count as a run does; the decoded files are written, a line each, to `decoded`."""
    (films / "decoded").write_text("")
    samples = [Sample(path, 0) for path in paths]
    return counted_videos(films / name, films, samples, progress=False, count=telling, **options)


def telling(job: CountJob) -> VideoFacts:
    with (Path(job.file).parent / "decoded").open("a") as file:
        file.write(f"{job.path}\n")
    return count_file(job)


def decoded(films: Path) -> list[str]:
    return sorted((films / "decoded").read_text().split())


def test_a_film_is_decoded_once_for_all_its_segments(films: Path) -> None:
    videos = count(films, PARTS)
    assert decoded(films) == ["a.mp4", "b.mp4"]
    assert videos.column("num_frames").tolist() == [12, 18, 20, 12, 40]
    assert [videos.facts(place).first_frame for place in range(5)] == [0, 6, 20, 0, 0]
    assert videos.decoded == 5 and len(videos.loose) == 0
    again = count(films, PARTS)
    assert decoded(films) == [] and again.digest() == videos.digest()
    other = count(films, ["a.mp4#t=1,1.5", "b.mp4", *PARTS[:1]])  # known from the film's row
    assert decoded(films) == [] and other.column("num_frames").tolist() == [12, 40, 12]
    elsewhere = count(films, ["a.mp4#frames=1,3"], "o.txt", others=[index_path(films / "list.txt")])
    assert decoded(films) == [] and elsewhere.facts(0).first_frame == 1


def test_a_changed_film_is_counted_again_for_all_its_segments(films: Path) -> None:
    count(films, PARTS)
    write_video(films / "a.mp4", grey_frames(30))
    videos = count(films, PARTS)
    assert decoded(films) == ["a.mp4"]
    assert videos.column("num_frames").tolist() == [12, 18, 10, 12, 40]


def test_a_film_that_was_counted_before_segments_of_it_were_listed(films: Path) -> None:
    """Its row has no times: it is decoded once more, and rows of other films stay as they are."""
    count(films, ["a.mp4", "b.mp4"])
    before = read_index(index_path(films / "list.txt"))
    videos = count(films, ["a.mp4#t=0.5,1", "b.mp4"])
    assert decoded(films) == ["a.mp4"] and videos.facts(0).num_frames == 12
    after = read_index(index_path(films / "list.txt"))
    assert before is not None and after is not None
    [row] = after.find(["b.mp4"], "auto").tolist()
    [old] = before.find(["b.mp4"], "auto").tolist()
    assert after.text(row) == before.text(old)
    assert after.text(row).count(b"\0") == 9  # as versions without segments wrote and read it


def test_an_unreadable_film_is_the_error_of_each_segment(films: Path) -> None:
    (films / "bad.mp4").write_text("no video")
    paths = ["bad.mp4#t=1", "bad.mp4#t=,1", "gone.mp4#t=1,2", "a.mp4#t=1", "a.mp4#t=1s"]
    videos = count(films, paths)
    errors = [videos.facts(place).error for place in range(5)]
    assert errors[0].startswith(f"{films}/bad.mp4#t=1: ") and not errors[3]
    assert errors[1].startswith(f"{films}/bad.mp4#t=,1: ")
    assert errors[2] == f"{films}/gone.mp4#t=1,2: No such file or directory"
    assert "#t=START,END" in errors[4]
    assert decoded(films) == ["a.mp4", "bad.mp4"]


def test_a_file_with_the_name_of_a_segment_is_refused(films: Path) -> None:
    (films / "a.mp4").rename(films / "a.mp4#t=1,2")
    videos = count(films, ["a.mp4#t=1,2"])
    assert "rename the file" in videos.facts(0).error and decoded(films) == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a.mp4#t=1,1 0", "ends where it begins"),
        ("a.mp4#frames=9,3 0", "ends where it begins"),
        ("a.mp4#t=1,2", "expected 'path label'"),  # and not a.mp4#t=1 with the label 2
        ("../a.mp4#t=1,2 0", "leads out of the root"),
        ("b.mp4#t=0.250,1.0 0", "already on line 1"),
        ("./b.mp4#t=.25,1 0", "is already on line 1"),
    ],
)
def test_bad_lines_are_named(films: Path, line: str, says: str) -> None:
    if "#t=.25" in line:
        line = line.replace("#t=.25", "#t=0.25")
    (films / "list.txt").write_text(f"b.mp4#t=0.25,1 0\nb.mp4#t=0.25,1.5 1\n{line}\n")
    with pytest.raises(ListError, match=says) as error:
        read_list(films / "list.txt", films, 2)
    assert "list.txt:3: " in str(error.value)


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("a.mp4#t=1,2", "a.mp4#t=2,3", False),
        ("a.mp4#t=1,2", "./a.mp4#t=1.9", True),
        ("a.mp4#t=1,2", "b.mp4#t=1,2", False),
        ("a.mp4#t=1,2", "a.mp4", True),
        ("a.mp4", "a.mp4#frames=3,4", True),
        ("a.mp4#frames=3,4", "a.mp4#frames=4,5", False),
        ("a.mp4#t=,1", "a.mp4#frames=0,3", False),  # not known before they are counted
    ],
)
def test_splits_share_what_overlaps(films: Path, one: str, other: str, shared: bool) -> None:
    lists = []
    for path in (one, other):
        write_list(films / "list.txt", [Sample("c.mp4", 0) if path == one else Sample("d.mp4", 0)])
        with (films / "list.txt").open("a") as file:
            file.write(f"{path} 0\n")
        lists.append(read_list(films / "list.txt", films, 1))
    assert shared_paths(*lists, films) == ([other] if shared else [])


def settings(films: Path, train: list[str], test: list[str]) -> DataConfig:
    for split, paths in {"train": train, "test": test}.items():
        write_list(films / f"{split}.txt", [Sample(p, i % 2) for i, p in enumerate(paths)])
    (films / "labels.txt").write_text("x\ny\n")
    return DataConfig(
        root=str(films), train_list=str(films / "train.txt"), test_list=str(films / "test.txt"),
        label_names=str(films / "labels.txt"), sampling="uniform8", num_frames=4, crop_size=32,
        num_workers=1,
    )  # fmt: skip


def test_frames_that_only_counting_finds_in_two_splits_are_refused(films: Path) -> None:
    cfg = settings(films, ["a.mp4#t=0,0.5", "b.mp4#t=1"], ["a.mp4#frames=11,20", "b.mp4#t=0,0.5"])
    plan = data.resolve(cfg, EvalConfig())
    splits = data.read_splits(cfg, plan)
    with pytest.raises(ListError, match=r"share frames of 1 videos(.|\n)*a.mp4#frames=11,20"):
        data.load_splits(cfg, plan, splits)


def test_films_in_two_splits_and_odd_ends_are_said(films: Path) -> None:
    cfg = settings(films, ["a.mp4#t=0,0.5", "b.mp4#t=1,9"], ["a.mp4#frames=12,20"])
    plan = data.resolve(cfg, EvalConfig())
    lists = data.load_splits(cfg, plan, data.read_splits(cfg, plan))
    [line] = lists["train"].warnings
    assert line.startswith(f"{films}/b.mp4#t=1,9: ") and "16 frames" in line
    assert not lists["test"].warnings
    assert any("1 films" in said for said in data.list_warnings(lists, plan, balanced=True))


def test_segments_of_one_film_are_counted_by_one_machine(films: Path) -> None:
    paths = [*PARTS[:3], "c.mp4#t=1", "b.mp4#t=,0.5", "c.mp4#t=,1", "d.mp4"]
    samples = Samples.of([Sample(path, 0) for path in paths])
    parts = [
        [one.path for one in sharded(films / "l.txt", samples, (i, 2), None)[1]] for i in (1, 2)
    ]
    assert parts == [[*PARTS[:3], "b.mp4#t=,0.5"], ["c.mp4#t=1", "c.mp4#t=,1", "d.mp4"]]
