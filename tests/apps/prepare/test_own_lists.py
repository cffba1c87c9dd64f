"""Lists of own videos, from folders and tables, good and bad; and the folder of lists itself."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import lines_of, prepare
from conftest import load_tool

from vidadapt.apps.prepare import build
from vidadapt.apps.synthetic import write_video
from vidadapt.config import DataConfig
from vidadapt.lists import (
    PREPARED_FILE,
    VIDEO_ENDINGS,
    ListError,
    counted_videos,
    read_label_names,
    read_list,
    read_prepared,
    with_lists,
)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Own videos: three classes of ten."""
    for name in ("jump", "run far", "walk"):
        for i in range(10):
            file = tmp_path / "videos" / name / f"{name} {i}.mp4"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(f"{name} {i}".encode())
    return tmp_path / "videos"


def test_a_folder_is_split_by_class(own, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = prepare("folder", own, out, "--test_fraction", "0.2", "--dev_fraction", "0.25")
    assert done.status == 0 and done.report == ""
    assert read_label_names(out / "labels.txt") == ["jump", "run far", "walk"]
    lists = {name: lines_of(out / f"{name}.txt") for name in ("train", "dev", "test")}
    for name, number in {"train": 6, "dev": 2, "test": 2}.items():
        assert Counter(label for _, label in lists[name]) == {0: number, 1: number, 2: number}
    together = [line for found in lists.values() for line in found]
    assert len(set(together)) == 30
    assert all(read_label_names(out / "labels.txt")[n] == p.split("/")[0] for p, n in together)
    prepare("folder", own, tmp_path / "other", "--test_fraction", "0.2", "--seed", "1")
    assert lines_of(tmp_path / "other" / "test.txt") != lists["test"]


@pytest.mark.parametrize("validation", ["val", "Validation", "dev"])
def test_a_folder_with_its_own_splits_keeps_them(validation, own, tmp_path: Path) -> None:
    parts = {"train": range(6), validation: range(6, 8), "test": range(8, 10)}
    for split, numbers in parts.items():
        for name in ("jump", "run far", "walk"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i in numbers:
                file = own / name / f"{name} {i}.mp4"
                file.rename(tmp_path / "set" / split / name / file.name)
    done = prepare("folder", tmp_path / "set", tmp_path / "out")
    assert done.status == 0, done.told
    prepared = read_prepared(tmp_path / "out")
    dev = "dev.txt" if validation == "dev" else "val.txt"
    assert prepared.lists == {"train": "train.txt", "dev": dev, "test": "test.txt"}
    assert lines_of(tmp_path / "out" / dev)[0] == (f"{validation}/jump/jump 6.mp4", 0)
    done = prepare("folder", tmp_path / "set", tmp_path / "out", "--test_fraction", "0.1")
    assert done.status == 2 and "the source has a test list: --test_fraction must be 0" in done.told


def test_equal_files_end_on_one_side(own, tmp_path: Path) -> None:
    for i in range(1, 8):  # eight of ten videos are one
        shutil.copy(own / "walk" / "walk 0.mp4", own / "walk" / f"walk {i}.mp4")
    done = prepare(
        "folder", own, tmp_path / "out", "--test_fraction", "0.3", "--dev_fraction", "0.3"
    )
    assert done.status == 0
    places = [
        {path for path, _ in lines_of(tmp_path / "out" / f"{name}.txt")}
        for name in ("train", "dev", "test")
    ]
    same = {f"walk/walk {i}.mp4" for i in range(8)}
    assert sum(bool(place & same) for place in places) == 1
    assert len(done.listed("note: the same video twice in ")) == 1


def test_one_video_under_two_classes_is_a_problem_of_own_videos(own, tmp_path: Path) -> None:
    shutil.copy(own / "walk" / "walk 0.mp4", own / "jump" / "really a walk.mp4")
    done = prepare("folder", own, tmp_path / "out", "--test_fraction", "0", "--dev_fraction", "0")
    assert done.status == 1
    [line] = done.listed("problem: the same video twice in train, under different labels")
    assert "walk/walk 0.mp4" in line and "jump/really a walk.mp4" in line


def test_a_table_in_other_capitals_is_told_the_file_that_it_means(own, tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    rows = [
        "jump/jump 0.mp4,jump",
        "Walk/WALK 1.MP4,walk",
        "walk/walk 2.mp4,walk",
        "jump/x.mp4,jump",
    ]
    table.write_text("path,label\n" + "\n".join(rows) + "\n")
    done = prepare("csv", table, "--videos", own, tmp_path / "out")
    respelled, gone = done.listed("missing: annotated videos without a file")
    assert "walk/walk 1.mp4" in respelled and "?" not in gone


def test_the_help_names_every_ending_of_a_video(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load_tool("prepare").main(["folder", "--help"])
    words = re.split(r"[\s,]+", capsys.readouterr().out.replace(".\n", "\n"))
    assert {f".{ending}" for ending in VIDEO_ENDINGS} <= set(words)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_with_names_splits_and_groups(delimiter, own, tmp_path: Path) -> None:
    rows = [["Video", "Action", "subset", "who"]]
    names = ("jump", "run far", "walk")
    for name in names:
        for i in range(10):
            split = "testing" if i == 9 else "Train"
            rows.append([f"{name}/{name} {i}.mp4", name, split, f"person {i // 3}"])
    table = tmp_path / "clips.csv"
    text = "".join(delimiter.join(row) + "\r\n" for row in rows)
    table.write_text(text, encoding="utf-8-sig")
    command = ["csv", table, tmp_path / "out", "--videos", own, "--group_column", "who"]
    done = prepare(*command, "--dev_fraction", "0.34")
    assert done.status == 0, done.told
    lists = {n: lines_of(tmp_path / "out" / f"{n}.txt") for n in ("train", "dev", "test")}
    assert lists["test"] == [
        (f"{n}/{n} 9.mp4", i) for i, n in enumerate(("jump", "run far", "walk"))
    ]
    people = [{int(path[-5]) // 3 for path, _ in lists[name]} for name in ("train", "dev")]
    assert len(lists["dev"]) == 9 and not people[0] & people[1]


def test_a_table_with_numbers_keeps_them(own, tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    rows = "".join(
        f"{n}/{n} {i}.mp4,{2 - k}\n" for k, n in enumerate(("jump", "walk")) for i in "012"
    )
    table.write_text("path,label\n" + rows + "run far/run far 1,0\n")
    names = tmp_path / "names.txt"
    names.write_text("run\nwalk\njump\n")
    command = ["csv", table, tmp_path / "out", "--videos", own, "--label-names", names]
    done = prepare(*command, "--test_fraction", "0", "--dev_fraction", "0")
    assert done.status == 0, done.told
    assert read_label_names(tmp_path / "out" / "labels.txt") == ["run", "walk", "jump"]
    lines = lines_of(tmp_path / "out" / "train.txt")
    assert lines[0] == ("jump/jump 0.mp4", 2)
    assert lines[-1] == ("run far/run far 1.mp4", 0), "found without its ending"


@pytest.mark.parametrize("places", ["table", "root", "absolute"])
def test_paths_in_a_table_may_start_elsewhere(places, own, tmp_path: Path) -> None:
    before = {"table": "videos/", "root": "", "absolute": f"{own}/"}[places]
    rows = [f"{before}{n}/{n} {i}.mp4,{n}\n" for n in ("jump", "walk") for i in range(3)]
    (tmp_path / "clips.csv").write_text("path,label\n" + "".join(rows))
    done = prepare("csv", tmp_path / "clips.csv", tmp_path / "out", "--videos", own)
    assert done.status == 0, done.told
    lines = lines_of(tmp_path / "out" / "train.txt")
    assert all(
        path in (f"jump/jump {path[-5]}.mp4", f"walk/walk {path[-5]}.mp4") for path, _ in lines
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4,0\nb.mp4,1\n", ":1: expected a header with a path column"),
        ("path,kind\na.mp4,0\n", ":1: expected a header with a label column"),
        ("path,label\n", " has no row that can be used"),
        ("", ":1: expected a header"),
        ("path,label\na.mp4,7\nb.mp4,0\n", ": labels go up to 7, but there are 2 videos"),
        ("path,label\na.mp4,x\nb.mp4,x\n", ": expected at least two classes, found 'x' alone"),
        ('path,label\n"a.mp4,x\n' + "b.mp4,x\n" * 20_000, "; is a quote not closed?"),
    ],
)
def test_a_table_that_cannot_be_used(text, message, own, tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text(text)
    done = prepare("csv", tmp_path / "clips.csv", tmp_path / "out", "--videos", own)
    assert done.status == 2 and "clips.csv" in done.told and message in done.told
    assert not (tmp_path / "out").exists()


def test_a_table_with_names_that_look_like_line_ends(own, tmp_path: Path) -> None:
    odd = ("line\u2028separator.mp4", "two\nlines.mp4")
    for name in odd:
        (own / "walk" / name).write_bytes(name.encode())
    rows = [f'"walk/{name}",walk\n' for name in odd]
    rows += [f"{n}/{n} {i}.mp4,{n}\n" for n in ("jump", "walk") for i in range(3)]
    (tmp_path / "clips.csv").write_text("path,label\n" + "".join(rows), encoding="utf-8")
    done = prepare("csv", tmp_path / "clips.csv", tmp_path / "out", "--videos", own)
    assert done.status == 1 and "missing: annotated videos" not in done.report
    found = done.listed("problem: names that a list cannot hold; rename the files")
    assert found == [r"'walk/line\u2028separator.mp4'", r"'walk/two\nlines.mp4'"]


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_table_without_training_videos(split, own, tmp_path: Path) -> None:
    rows = [f"{n}/{n} {i}.mp4,{n},{split}\n" for n in ("jump", "walk") for i in range(3)]
    (tmp_path / "clips.csv").write_text("path,label,split\n" + "".join(rows))
    command = ["csv", tmp_path / "clips.csv", tmp_path / "out", "--videos", own]
    done = prepare(*command)
    assert done.status == 0, done.told
    assert read_prepared(tmp_path / "out").lists == {"test": f"{split}.txt"}
    done = prepare(*command, "--dev_fraction", "0.1")
    assert done.status == 2 and "no train list: --dev_fraction must be 0" in done.told


def test_bad_rows_of_a_table_are_told(own, tmp_path: Path) -> None:
    good = [f"{n}/{n} {i}.mp4,{n},train" for n in ("jump", "walk") for i in range(3)]
    bad = [
        "jump/jump 4.mp4,jmp,train",
        "jump/jump 5.mp4,jump,trian",
        ",jump,train",
        "jump/jump 6.mp4,jump",
        "../elsewhere.mp4,jump,train",
        "jump/jump 0.mp4,jump,train",
        "jump/jump 1.mp4,jump,test",
        "jump/jump 99.mp4,jump,train",
    ]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,split", *good, *bad]))
    (tmp_path / "names.txt").write_text("jump\nwalk\n")
    command = ["csv", tmp_path / "clips.csv", tmp_path / "out", "--videos", own]
    done = prepare(*command, "--label-names", tmp_path / "names.txt")
    assert done.status == 1
    assert done.listed("problem: unknown labels") == ["clips.csv:8: 'jmp' did you mean jump?"]
    assert done.listed("problem: unknown splits")[0].startswith("clips.csv:9: 'trian'")
    assert done.listed("problem: unusable rows") == [
        "clips.csv:10: nothing under path",
        "clips.csv:11: 2 fields, the header has 3",
    ]
    assert done.listed("problem: videos outside")[0].startswith("clips.csv:12: ../elsewhere.mp4")
    assert done.listed("problem: one video twice in train") == [
        "clips.csv:13: jump/jump 0.mp4 is already in clips.csv:2, which counts"
    ]
    assert done.listed("problem: the same video in train and test") == [
        "train: jump/jump 1.mp4, test: jump/jump 1.mp4"
    ]
    assert done.listed("missing: annotated videos without a file") == [
        "jump/jump 99.mp4 (clips.csv:15)"
    ]
    assert len(lines_of(tmp_path / "out" / "train.txt")) == 6, "the rest is finished"


def test_files_of_equal_size_are_not_the_same(own, tmp_path: Path) -> None:
    for i in range(10):  # alike in the middle, where files are looked at first
        (own / "walk" / f"walk {i}.mp4").write_bytes(b"%d" % i + bytes(30_000))
    done = prepare("folder", own, tmp_path / "out")
    assert done.status == 0 and "the same video" not in done.report


def test_empty_classes_and_stray_videos(own, tmp_path: Path) -> None:
    (own / "sleep").mkdir()
    (own / "stray.mp4").write_bytes(b"stray")
    (own / "walk" / "notes.txt").write_text("not a video")
    (own / "walk" / "._walk 1.mp4").write_bytes(b"mac")
    done = prepare("folder", own, tmp_path / "out", "--allow_partial")
    assert done.status == 1
    assert done.listed("problem: class folders without a video") == ["sleep"]
    assert done.listed("problem: videos in no class folder") == ["stray.mp4"]
    assert done.listed("note: hidden files and folders, passed over") == ["walk/._walk 1.mp4"]
    assert read_label_names(tmp_path / "out" / "labels.txt") == ["jump", "run far", "walk"]


def test_a_class_misspelt_in_one_split(own, tmp_path: Path) -> None:
    shutil.copytree(own, tmp_path / "set" / "train")
    for name in ("jump", "run far", "wlak"):
        (tmp_path / "set" / "test" / name).mkdir(parents=True)
        (tmp_path / "set" / "test" / name / "a.mp4").write_bytes(name.encode())
    done = prepare("folder", tmp_path / "set", tmp_path / "out")
    assert done.status == 1
    found = done.listed("problem: classes that train has not")
    assert found == ["test: wlak did you mean walk?"]


def test_one_level_too_low_and_one_class_alone(own, tmp_path: Path) -> None:
    done = prepare("folder", own / "jump", tmp_path / "out")
    assert done.status == 2
    assert "found none, and 10 videos in no class folder; did you mean the folder" in done.told
    shutil.rmtree(own / "jump")
    shutil.rmtree(own / "walk")
    done = prepare("folder", own, tmp_path / "out")
    assert done.status == 2 and done.told.strip().endswith("at least two classes, found run far")


def test_one_level_too_high(own, tmp_path: Path) -> None:
    (tmp_path / "above").mkdir()
    own.rename(tmp_path / "above" / "videos")
    done = prepare("folder", tmp_path / "above", tmp_path / "out")
    assert done.status == 2
    assert f"found videos; did you mean {tmp_path / 'above' / 'videos'}?" in done.told


def test_links_to_folders_are_followed_once(own, tmp_path: Path) -> None:
    (own / "walk").rename(tmp_path / "kept elsewhere")
    (own / "walk").symlink_to(tmp_path / "kept elsewhere")
    (own / "jump" / "again").symlink_to(own)
    done = prepare("folder", own, tmp_path / "out", "--test_fraction", "0", "--dev_fraction", "0")
    assert done.status == 0, done.told
    assert len(lines_of(tmp_path / "out" / "train.txt")) == 30
    assert done.listed("note: links to folders that were looked through already") == ["jump/again"]


def test_a_folder_that_cannot_be_read() -> None:
    with tempfile.TemporaryDirectory() as place:  # open to all, as pytest's folders are not
        videos, out = Path(place) / "videos", Path(place) / "out"
        Path(place).chmod(0o755)
        out.mkdir()
        out.chmod(0o777)
        for name in ("jump", "run far", "walk"):
            (videos / name).mkdir(parents=True)
            for i in range(10):
                (videos / name / f"{i}.mp4").write_bytes(f"{name} {i}".encode())
        (videos / "walk").chmod(0)
        with as_nobody():
            done = prepare("folder", videos, out)
        (videos / "walk").chmod(0o755)
        assert done.status == 1
        assert "problem: folders that cannot be read (1)" in done.told
        assert f"{videos / 'walk'}: Permission denied" in done.told
        assert read_label_names(out / "labels.txt") == ["jump", "run far"], "the rest is finished"
        assert len(lines_of(out / "train.txt")) == 12


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, which reads everything."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_names_that_a_list_cannot_hold(own, tmp_path: Path) -> None:
    bad = ("two\nlines.mp4", os.fsdecode(b"latin \xe9.mp4"), "red \x1b[31m.mp4")
    for name in (*bad, "ends with a comma,.mp4"):
        (own / "walk" / name).write_bytes(name.encode(errors="surrogateescape"))
    for name in ("two\nlines", os.fsdecode(b"latin \xe9"), "red \x1b[31m"):  # classes
        (own / name).mkdir()
        (own / name / "a.mp4").write_bytes(name.encode(errors="surrogateescape"))
    done = prepare("folder", own, tmp_path / "out", "--test_fraction", "0", "--dev_fraction", "0")
    assert done.status == 1
    found = done.listed("problem: names that a list cannot hold; rename the files")
    assert found == [
        r"'latin \udce9/a.mp4'",
        r"'red \x1b[31m/a.mp4'",
        r"'two\nlines/a.mp4'",
        r"'walk/latin \udce9.mp4'",
        r"'walk/red \x1b[31m.mp4'",
        r"'walk/two\nlines.mp4'",
    ]
    assert "\x1b" not in done.told + done.report
    assert ("walk/ends with a comma,.mp4", 2) in lines_of(tmp_path / "out" / "train.txt")
    assert len(lines_of(tmp_path / "out" / "train.txt")) == 31
    assert read_label_names(tmp_path / "out" / "labels.txt") == ["jump", "run far", "walk"]


ALIKE = ("caf\xe9", "cafe\u0301")  # NFC and NFD


def test_classes_alike_to_the_eye_are_told(own, tmp_path: Path) -> None:
    for name in (*ALIKE, "Wave", "wave"):
        (own / name).mkdir()
        for i in range(4):
            (own / name / f"{i}.mp4").write_bytes(f"{name} {i}".encode())
    done = prepare("folder", own, tmp_path / "out")
    assert done.status == 1
    (line,) = done.listed("problem: classes whose names differ in Unicode spelling alone")
    assert line == r"cafe\u0301, caf\xe9"
    assert done.listed("note: classes whose names differ in case alone") == ["Wave, wave"]


@pytest.mark.parametrize("listed", [0, 1])
def test_a_table_finds_files_in_another_unicode_spelling(listed: int, own, tmp_path: Path) -> None:
    here, there = ALIKE[listed], ALIKE[1 - listed]
    (own / there).mkdir()
    rows = ["path,label", *(f"walk/walk {i}.mp4,walk" for i in range(10))]
    for i in range(5):
        (own / there / f"{there}{i}.mp4").write_bytes(f"{i}".encode())
        rows.append(f"{here}/{here}{i}.mp4,drink")
    (tmp_path / "table.csv").write_text("\n".join(rows), encoding="utf-8")
    command = ["csv", tmp_path / "table.csv", "--videos", own, tmp_path / "out"]
    command += ["--test_fraction", "0", "--dev_fraction", "0"]
    done = prepare(*command)
    assert done.status == 0, done.told
    assert len(done.listed("note: annotated in another Unicode spelling than the file's")) == 5
    found = lines_of(tmp_path / "out" / "train.txt")
    paths = [path for path, label in found if label == 0]
    assert paths == [f"{there}/{there}{i}.mp4" for i in range(5)]
    (own / there / f"{here}0.mp4").write_bytes(b"other")  # now two are spelled otherwise
    done = prepare(*command)
    assert done.status == 1
    (line,) = done.listed("problem: files that differ in Unicode spelling alone; none is taken")
    assert line.isascii() and line.count("mp4") == 3


def test_a_list_whose_names_are_spelled_otherwise_says_so(own, tmp_path: Path) -> None:
    (own / "walk" / f"{ALIKE[1]}.mp4").write_bytes(b"1")
    listed = tmp_path / "list.txt"
    listed.write_text(f"walk/{ALIKE[0]}.mp4 0\nwalk/gone.mp4 0\n", encoding="utf-8")
    with pytest.raises(ListError) as error:
        counted_videos(listed, own, read_list(listed, own, 1), check_files=True)
    looked_at = counted_videos(listed, own, read_list(listed, own, 1))
    for first, second in (
        str(error.value).split("\n")[1:],
        (looked_at.facts(0).error, looked_at.facts(1).error),
    ):
        assert r"walk/cafe\u0301.mp4" in first and r"walk/caf\xe9.mp4" in first
        assert "Unicode" not in second


def test_columns_of_times_of_clips_that_are_cut_already_are_not_used_unasked(
    own, tmp_path: Path
) -> None:
    rows = ["walk/walk 0.mp4,walk,0,2", "jump/jump 1.mp4,jump,0,9"]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["path,label,start,end", *rows]))
    command = ["csv", table, "--videos", own, tmp_path / "out", "--test_fraction", "0"]
    done = prepare(*command, "--dev_fraction", "0")
    assert done.listed("note: columns that are not used: each file is one video")
    assert [path for path, _ in lines_of(tmp_path / "out" / "train.txt")] == [
        row.split(",")[0] for row in rows
    ]


def test_names_that_turn_the_order_of_letters_are_shown_escaped(own, tmp_path: Path) -> None:
    for name in ("\u202e4pm.mp4", "zero\u200bwidth.mp4", "\u2066.mp4"):
        (own / "walk" / name).write_bytes(b"the same")
    done = prepare("folder", own, tmp_path / "out")
    for character in "\u202e\u200b\u2066":
        assert character not in done.told + done.report
        assert f"\\u{ord(character):04x}" in done.report


# The folder of lists


@pytest.fixture
def prepared(own: Path, tmp_path: Path) -> Iterator[Path]:
    prepare("folder", own, tmp_path / "out")
    yield tmp_path / "out"


def test_lists_of_an_earlier_preparation_go(prepared, own) -> None:
    assert (prepared / "dev.txt").is_file()
    assert prepare("folder", own, prepared, "--dev_fraction", "0").status == 0
    assert not (prepared / "dev.txt").exists()
    assert set(read_prepared(prepared).lists) == {"train", "test"}


def test_other_lists_are_not_overwritten(prepared, own) -> None:
    (prepared / PREPARED_FILE).unlink()
    (prepared / "train.txt").write_text("mine.mp4 0\n")
    done = prepare("folder", own, prepared)
    assert done.status == 2 and "was not written by a preparation" in done.told
    assert (prepared / "train.txt").read_text() == "mine.mp4 0\n"
    assert not (prepared / PREPARED_FILE).exists()


def test_a_damaged_record_is_told_with_what_helps(prepared, own) -> None:
    (prepared / PREPARED_FILE).write_text("{")
    done = prepare("folder", own, prepared)
    assert (
        done.status == 2 and f"its {PREPARED_FILE} is damaged: choose another folder" in done.told
    )


def test_lists_of_another_command_are_not_overwritten(prepared, own, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in prepared.iterdir()}
    (tmp_path / "clips.csv").write_text("path,label\njump/jump 0.mp4,a\nwalk/walk 0.mp4,b\n")
    done = prepare("csv", tmp_path / "clips.csv", prepared, "--videos", own)
    assert done.status == 2
    assert f"{prepared} was written by 'vidadapt prepare folder': choose another" in done.told
    done = prepare("csv", tmp_path / "clips.csv", tmp_path / "clips.csv", "--videos", own)
    assert done.status == 2 and "clips.csv is a file: expected a folder to write" in done.told
    assert {path.name: path.read_bytes() for path in prepared.iterdir()} == before


def test_an_interrupted_call_is_made_good_with_any_options(prepared, own, monkeypatch) -> None:
    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build, "write_prepared", interrupt)
        prepare("folder", own, prepared, "--seed", "1")
    assert not (prepared / PREPARED_FILE).exists()
    done = prepare("folder", own, prepared, "--seed", "2", "--dev_fraction", "0")
    assert done.status == 0, done.told
    assert {path.name for path in prepared.iterdir()} == {
        *("train.txt", "test.txt", "labels.txt", PREPARED_FILE, "report.txt"),
    }


def test_the_folder_of_lists_may_lie_among_the_videos(own, tmp_path: Path) -> None:
    for _ in range(2):
        done = prepare("folder", own, own / "lists")
        assert done.status == 0, done.told
    assert read_label_names(own / "lists" / "labels.txt") == ["jump", "run far", "walk"]


def test_classes_that_no_file_of_names_can_hold(prepared, own, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in prepared.iterdir()}
    (own / "walk ").mkdir()
    (own / "walk " / "a.mp4").write_bytes(b"another")
    done = prepare("folder", own, prepared)
    assert done.status == 2 and "'walk' is already on line 3" in done.told
    assert {path.name: path.read_bytes() for path in prepared.iterdir()} == before


def test_lists_that_are_split_here_have_readable_videos_alone(own, tmp_path: Path) -> None:
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    for number, file in enumerate(sorted(own.rglob("*.mp4"))):
        frames[..., 0] = number
        write_video(file, frames, 12)
    for name in ("jump/jump 3.mp4", "walk/walk 8.mp4"):
        (own / name).write_bytes(b"no video at all" + name.encode())
    out = tmp_path / "out"
    command = ["folder", own, out, "--test_fraction", "0.3", "--dev_fraction", "0.3"]
    done = prepare(*command, "--reader", "pyav", index=True)
    assert done.status == 1
    left_out = done.listed("problem: videos that cannot be read, left out")
    assert [line.split(":")[0] for line in left_out] == ["jump/jump 3.mp4", "walk/walk 8.mp4"]
    lists = {name: lines_of(out / f"{name}.txt") for name in ("train", "dev", "test")}
    together = [path for found in lists.values() for path, _ in found]
    assert len(set(together)) == len(together) == 28
    [said] = done.listed("missing: videos by split")
    assert "28 of 30" in said
    assert not {"jump/jump 3.mp4", "walk/walk 8.mp4"} & set(together)
    # Of the readable ones: 9, 10 and 9 a class.
    assert Counter(label for _, label in lists["test"]) == {0: 3, 1: 3, 2: 3}
    again = prepare(*command[:2], tmp_path / "again", *command[3:], "--reader", "pyav", index=True)
    assert again.status == 1 and lines_of(tmp_path / "again" / "dev.txt") == lists["dev"]


@pytest.mark.parametrize("form", ["cells", "columns"])
def test_a_table_with_several_labels_a_video(form, own, tmp_path: Path) -> None:
    """Groups stay whole, every class has its share in each list, and both forms say the same."""
    classes = ("jump", "run far", "walk")
    sets = {
        f"{n}/{n} {i}.mp4": {k for k in range(3) if (k + 2 * j + i) % 3 == 0 or i == 7} - {i % 4}
        for j, n in enumerate(classes)
        for i in range(10)
    }
    if form == "cells":
        rows = [["path", "label", "group"]]
        rows += [[p, ";".join(classes[k] for k in s), p[:6]] for p, s in sets.items()]
        words: list[str] = ["--multi_label"]
    else:
        rows = [["path", *classes, "group"]]
        rows += [[p, *(str(int(k in s)) for k in range(3)), p[:6]] for p, s in sets.items()]
        words = ["--label_columns", *classes]
    table, out = tmp_path / "clips.csv", tmp_path / "out"
    table.write_text("".join(",".join(row) + "\n" for row in rows))
    done = prepare("csv", table, out, "--videos", own, *words, "--dev_fraction", "0.3")
    assert done.status == 0, done.told
    assert read_label_names(out / "labels.txt") == list(classes)
    lists = {
        name: list(read_list(out / f"{name}.txt", own, 3, multi_label=True))
        for name in ("train", "dev", "test")
    }
    found = {sample.path: set(sample.label) for listed in lists.values() for sample in listed}
    assert found == sets
    assert with_lists(DataConfig(lists=str(out))).multi_label
    for listed in lists.values():
        assert {label for sample in listed for label in sample.label} == {0, 1, 2}


def test_a_table_whose_marks_are_not_0_or_1(own, tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    rows = "".join(f"jump/jump {i}.mp4,1,0\nwalk/walk {i}.mp4,0,1\n" for i in range(8))
    table.write_text(f"path,jump,walk\n{rows}jump/jump 9.mp4,yes,0\n")
    done = prepare(
        "csv", table, tmp_path / "out", "--videos", own, "--label_columns", "jump", "walk"
    )
    assert done.status == 1
    assert done.listed("problem: unusable rows") == [
        "clips.csv:18: 'yes' under jump, expected 0 or 1"
    ]
