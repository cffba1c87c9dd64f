"""`prepare.py index`: frames are counted before a training, and every defect is told."""

import csv
import io
from pathlib import Path

import pytest
from conftest import load_tool
from videos import grey_frames, write_video

from vidadapt.lists import Prepared, frame_counts, index_path, write_prepared


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, count in (("a.mp4", 10), ("b.mp4", 12)):
        write_video(tmp_path / name, grey_frames(count, 96, 96))
    whole = tmp_path / "whole.mp4"
    write_video(whole, grey_frames(40, 96, 96), header_first=True, key_every=1)
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    (tmp_path / "bad.mp4").write_text("no video")
    lines = ["a.mp4 0", "b.mp4 99", "cut.mp4 1", "bad.mp4 2", "missing.mp4 0"]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    (tmp_path / "test.txt").write_text("b.mp4 0\n")
    return tmp_path


def index(*arguments: object) -> None:
    load_tool("prepare").main(["index", *map(str, arguments)])


def test_lists_are_counted_and_summed_up(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists, folder = [root / "train.txt", root / "test.txt"], root / "index"
    settings = ("--root", root, "--reader", "pyav", "--processes", 1, "--index-dir", folder)
    index(*lists, *settings)
    told = capsys.readouterr().out
    assert "train.txt: 5 videos, 3 readable, 2 unreadable, 1 truncated; " in told
    assert "test.txt: 1 videos, 1 readable, 0 unreadable, 0 truncated; 12 frames" in told
    assert "readers: pyav (3)" in told and "readers: pyav (1)" in told
    assert f"unreadable: {root / 'bad.mp4'}: Invalid data" in told
    assert f"unreadable: {root / 'missing.mp4'}: No such file" in told
    assert "truncated: cut.mp4: the header promises 40 frames, " in told
    for path in lists:
        assert f"index: {index_path(path, folder)}" in told
        assert index_path(path, folder).is_file()
    # the training finds every row: nothing is left to be written
    before = index_path(lists[1], folder).stat().st_mtime_ns
    frame_counts(lists[1], root, ["b.mp4"], reader="pyav", index_dir=folder)
    assert index_path(lists[1], folder).stat().st_mtime_ns == before


def test_the_root_of_a_prepared_folder_is_known(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "lists").mkdir()
    moved = (root / "test.txt").rename(root / "lists" / "test.txt")
    with pytest.raises(ValueError, match=r"test\.txt: no folder of videos is known; give --root"):
        index(moved)
    record = Prepared("custom", str(root), {"test": "test.txt"}, "labels.txt", {}, {})
    write_prepared(root / "lists", record)
    index(moved)
    assert "test.txt: 1 videos, 1 readable" in capsys.readouterr().out


def test_many_unreadable_videos_are_cut_short(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "none.txt").write_text("".join(f"missing{i}.mp4 0\n" for i in range(13)))
    index(root / "none.txt", "--root", root)
    told = capsys.readouterr().out
    assert "0 readable, 13 unreadable" in told and "readers: none" in told
    assert told.count("No such file") == 10 and "and 3 more" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{root}/absent.txt", "--root", "{root}"], "cannot read .*absent.txt"),
        (
            ["{root}/test.txt", "--root", "{root}", "--index-dir", "{root}/a.mp4"],
            "data.index_dir",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(root: Path, options: list[str], message: str) -> None:
    with pytest.raises((ValueError, OSError), match=message) as error:
        index(*(option.format(root=root) for option in options))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("number", ["0", "-2", "many"])
@pytest.mark.parametrize("command", [["index", "a.txt", "--root", "."], ["synthetic", "out"]])
def test_processes_below_one_are_refused(
    capsys: pytest.CaptureFixture[str], command: list[str], number: str
) -> None:
    with pytest.raises(SystemExit) as error:
        load_tool("prepare").main([*command, "--processes", number])
    assert error.value.code == 2
    assert f"expected a number of processes from 1, got '{number}'" in capsys.readouterr().err


def test_the_index_is_shown_as_a_table_and_as_csv(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index(root / "train.txt", "--root", root, "--processes", 1)
    capsys.readouterr()
    index(root / "train.txt", "--csv")
    rows = {row["path"]: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert set(rows) == {"a.mp4", "b.mp4", "cut.mp4", "bad.mp4"}
    assert (rows["a.mp4"]["num_frames"], rows["a.mp4"]["width"]) == ("10", "96")
    assert "Invalid data" in rows["bad.mp4"]["error"] and rows["cut.mp4"]["truncated"] == "yes"
    index(root / "train.txt", "--show")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and lines[0].split()[:2] == ["path", "size"]
    with pytest.raises(ValueError, match=r"test\.txt\.index"):
        index(root / "test.txt", "--show")


@pytest.mark.parametrize("number", [1, 2, 3, 5])
@pytest.mark.parametrize("tool", ["index", "check_videos"])
def test_shards_joined_are_the_index_of_one_machine(
    root: Path, tmp_path: Path, tool: str, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(folder: Path, *more: object) -> None:
        where = "--index_dir" if tool == "index" else "--out"
        words = [root / "train.txt", "--root", root, where, folder, "--processes", 1, *more]
        if tool == "index":
            index(*words)
        else:
            load_tool("check_videos").main([*map(str, words)])

    one, many = tmp_path / "one", tmp_path / "many"
    call(one)
    with pytest.raises(ValueError, match="no such index"):
        call(many, "--join", number)
    for shard in range(number, 0, -1):
        call(many, "--shard", f"{shard}/{number}")
    capsys.readouterr()
    call(many, "--join", number)
    assert "4 videos of" in capsys.readouterr().out, "missing.mp4 is in no index"
    same = ["train.txt.index", *(["train.txt.check.csv"] if tool == "check_videos" else [])]
    for name in same:
        assert (many / name).read_bytes() == (one / name).read_bytes()
    with pytest.raises(ValueError, match="choose fewer parts"):
        call(many, "--shard", "6/6")
