"""The commands that write lists, run as a user would on miniature downloads, and on bad ones."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import layouts
import pytest
from conftest import ROOT, load_tool

from vidadapt.data.frame_index import frame_counts, index_path
from vidadapt.data.lists import Sample, manifest_hash, read_label_names, read_list
from vidadapt.data.prepared import RECORD, read_prepared

SPLITS = ROOT.parent / "shared" / "labels" / "hmdb51_splits"
OFFICIAL = {
    "ssv2": layouts.ssv2,
    "hmdb51": layouts.hmdb51,
    "ucf101": layouts.ucf101,
    "kinetics": layouts.kinetics,
}


@dataclass(frozen=True)
class Done:
    """A finished command: exit status, what it printed, and the whole report."""

    status: int
    told: str
    report: str

    def listed(self, title: str) -> list[str]:
        """The lines of the report under a title, e.g. "problem: two files for one video"."""
        lines = self.report.split("\n")
        (start,) = [i for i, line in enumerate(lines) if line.startswith(title)]
        found = []
        for line in lines[start + 1 :]:
            if not line.startswith("  "):
                break
            found.append(line.strip())
        return found


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def run(*arguments: object, index: bool = False) -> Done:
        words = [*map(str, arguments), "--processes", "1", *([] if index else ["--no-index"])]
        status = 0
        capsys.readouterr()
        try:
            load_tool("prepare").main(words)
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code)
            status = end.code if isinstance(end.code, int) else 1
        told = capsys.readouterr().out
        report = re.search(r"^all of it: (.+)$", told, re.MULTILINE)
        return Done(status, told, Path(report[1]).read_text(encoding="utf-8") if report else "")

    return run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, layouts.Layout]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in OFFICIAL.items()}


@pytest.fixture
def copy(made: dict[str, layouts.Layout], tmp_path: Path) -> Callable[[str], layouts.Layout]:
    """A miniature download of one's own, to spoil."""

    def copy(name: str) -> layouts.Layout:
        layout = made[name]
        shutil.copytree(layout.annotations, tmp_path / "annotations")
        shutil.copytree(layout.videos, tmp_path / "videos")
        return layouts.Layout(tmp_path / "annotations", tmp_path / "videos", layout.samples)

    return copy


def official(name: str, layout: layouts.Layout, out: Path, *more: object) -> list[object]:
    return [name, "--annotations", layout.annotations, "--videos", layout.videos, *more, out]


def lines_of(path: Path) -> list[tuple[str, int]]:
    samples = read_list(path, path.parent, sys.maxsize, check_files=False)
    return [(sample.path, sample.label) for sample in samples]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Own videos: three classes of ten."""
    for name in ("jump", "run far", "walk"):
        for i in range(10):
            file = tmp_path / "videos" / name / f"{name} {i}.mp4"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(f"{name} {i}".encode())
    return tmp_path / "videos"


# What is promised


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_miniatures_become_their_lists(name, made, run, tmp_path: Path) -> None:
    layout, out = made[name], tmp_path / "out"
    done = run(*official(name, layout, out, "--allow-partial"))
    assert done.status == 0 and "problem:" not in done.report
    tested = "test" if name in ("hmdb51", "ucf101") else "val"
    for split in ("train", tested):
        assert lines_of(out / f"{split}.txt") == layout.samples[split]
    prepared = read_prepared(out)
    dataset = {"kinetics": "kinetics400"}.get(name, name)
    names = read_label_names(ROOT / "data_lists" / dataset / "labels.txt")
    assert read_label_names(out / "labels.txt") == names
    assert (prepared.dataset, prepared.root) == (dataset, str(layout.videos))
    assert prepared.lists == {"train": "train.txt", "test": f"{tested}.txt"}
    for role, file in prepared.lists.items():
        samples = [Sample(*line) for line in lines_of(out / file)]
        assert prepared.manifests[role] == manifest_hash(samples, names)
    number = len(layout.samples["train"])
    assert f"train.txt (train): {number} videos" in done.told
    assert re.search(
        rf"tools/train.py --config \S+ .*--data.lists {re.escape(str(out))}", done.told
    )


@pytest.mark.parametrize("name", ["ssv2", "kinetics"])
def test_a_test_list_only_where_asked_for(name, tmp_path: Path, run) -> None:
    layout = layouts.ssv2(tmp_path, answers=True) if name == "ssv2" else layouts.kinetics(tmp_path)
    out = tmp_path / "out"
    run(*official(name, layout, out, "--allow-partial"))
    assert not (out / "test.txt").exists()
    done = run(*official(name, layout, out, "--allow-partial", "--test-list"))
    assert done.status == 0, done.told
    assert lines_of(out / "test.txt") == layout.samples["test"]
    lists = {"train": "train.txt", "dev": "val.txt", "test": "test.txt"}
    assert read_prepared(out).lists == lists


def test_a_partial_copy_is_told_and_fails_unless_allowed(made, run, tmp_path: Path) -> None:
    command = official("hmdb51", made["hmdb51"], tmp_path / "out")
    done = run(*command)
    assert done.status == 1
    assert "train: 22 videos are annotated, officially 3,570" in done.report
    lists = (tmp_path / "out" / "train.txt").read_bytes()
    assert run(*command, "--allow-partial").status == 0
    assert (tmp_path / "out" / "train.txt").read_bytes() == lists


def test_frames_are_counted_and_running_again_changes_nothing(made, run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = official("hmdb51", made["hmdb51"], out, "--allow-partial", "--dev-fraction", "0.3")
    run(*command, "--reader", "pyav", index=True)
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(first) == {
        *("train.txt", "dev.txt", "test.txt", "labels.txt", "report.txt", "prepared.json"),
        *("train.txt.frames.csv", "dev.txt.frames.csv", "test.txt.frames.csv"),
    }
    for name in ("train", "dev", "test"):
        rows = index_path(out / f"{name}.txt").read_text(encoding="utf-8").splitlines()[1:]
        assert len(rows) == len(lines_of(out / f"{name}.txt"))
        assert all(",pyav,4," in row for row in rows), "every video has four frames"
    indexed = index_path(out / "train.txt").stat().st_mtime_ns
    run(*command, "--reader", "pyav", index=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    assert index_path(out / "train.txt").stat().st_mtime_ns == indexed, "nothing is counted again"


def test_no_video_is_counted_for_two_lists(made, run, tmp_path: Path) -> None:
    layout, out = made["hmdb51"], tmp_path / "out"
    pyav = ("--allow-partial", "--reader", "pyav")
    run(*official("hmdb51", layout, out / "split1", *pyav), index=True)
    for name in ("train", "test"):  # marked, so that a count is told from one carried over
        index = index_path(out / "split1" / f"{name}.txt")
        index.write_text(index.read_text().replace(",pyav,4,", ",pyav,44,"))
    run(
        *official("hmdb51", layout, out, *pyav, "--split", "all", "--dev-fraction", "0.3"),
        index=True,
    )
    first = {path for name in ("train", "test") for path, _ in layout.samples[name]}
    for split in (1, 2, 3):
        for name in ("train", "dev", "test"):
            path = out / f"split{split}" / f"{name}.txt"
            paths = [path for path, _ in lines_of(path)]
            counts = frame_counts(path, layout.videos, paths, reader="pyav", decode=False)
            assert set(counts) == set(paths)
            for path, count in counts.items():
                assert count.num_frames == (44 if path in first else 4)


@pytest.mark.skipif(not SPLITS.is_dir(), reason=f"needs the official split files of {SPLITS}")
def test_hmdb51_lists_are_those_of_data_lists(run, tmp_path: Path) -> None:
    names = read_label_names(ROOT / "data_lists" / "hmdb51" / "labels.txt")
    for name in names:
        (tmp_path / "videos" / name).mkdir(parents=True)
        for line in (SPLITS / f"{name}_test_split1.txt").read_text().splitlines():
            file = line.rsplit(maxsplit=1)[0]
            (tmp_path / "videos" / name / file).write_bytes(f"{name}/{file}".encode())
    out = tmp_path / "out"
    command = ["hmdb51", "--annotations", SPLITS, "--videos", tmp_path / "videos", "--split", "all"]
    done = run(*command, out)
    assert done.status == 0, done.told
    for split in (1, 2, 3):
        for name, number in (("train", 3570), ("test", 1530)):
            path = out / f"split{split}" / f"{name}.txt"
            original = ROOT / "data_lists" / "hmdb51" / f"split{split}" / f"{name}.txt"
            assert path.read_bytes() == original.read_bytes()
            counts = Counter(label for _, label in lines_of(path))
            assert set(counts.values()) == {number // 51} and len(counts) == 51
        assert "missing:" not in (out / f"split{split}" / "report.txt").read_text()


@pytest.mark.parametrize("name", ["hmdb51", "ucf101"])
def test_clips_of_one_film_do_not_straddle_dev(name, made, run, tmp_path: Path) -> None:
    layout, out = made[name], tmp_path / "out"
    run(*official(name, layout, out, "--allow-partial", "--dev-fraction", "0.3"))
    train, dev = lines_of(out / "train.txt"), lines_of(out / "dev.txt")
    listed = layout.samples["train"]
    assert dev and sorted(train + dev) == sorted(listed)
    assert [line for line in listed if line in set(train)] == train, "in the official order"
    assert lines_of(out / "test.txt") == layout.samples["test"]

    def film(path: str) -> str:
        folder, _, file = path.partition("/")
        return file.split(f"_{folder}_")[0] if name == "hmdb51" else path.split("_c0")[0]

    assert not {film(path) for path, _ in train} & {film(path) for path, _ in dev}
    assert {label for _, label in train} == {label for _, label in listed}
    assert read_prepared(out).lists["dev"] == "dev.txt"


@pytest.mark.parametrize("command", ["ssv2", "hmdb51", "ucf101", "kinetics", "folder", "csv"])
def test_help_shows_the_layout(command, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        load_tool("prepare").main([command, "--help"])
    told = capsys.readouterr().out
    assert end.value.code == 0
    assert f"example: python tools/prepare.py {command} " in told
    wanted = {"folder": "juggle/", "csv": "path,label,split,group"}.get(command, "ANNOTATIONS/")
    assert wanted in told


# Own videos


def test_a_folder_is_split_by_class(own, run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("folder", own, out, "--test-fraction", "0.2", "--dev-fraction", "0.25")
    assert done.status == 0 and done.report == ""
    assert read_label_names(out / "labels.txt") == ["jump", "run far", "walk"]
    lists = {name: lines_of(out / f"{name}.txt") for name in ("train", "dev", "test")}
    for name, number in {"train": 6, "dev": 2, "test": 2}.items():
        assert Counter(label for _, label in lists[name]) == {0: number, 1: number, 2: number}
    together = [line for found in lists.values() for line in found]
    assert len(set(together)) == 30
    assert all(read_label_names(out / "labels.txt")[n] == p.split("/")[0] for p, n in together)
    run("folder", own, tmp_path / "other", "--test-fraction", "0.2", "--seed", "1")
    assert lines_of(tmp_path / "other" / "test.txt") != lists["test"]


@pytest.mark.parametrize("validation", ["val", "Validation", "dev"])
def test_a_folder_with_its_own_splits_keeps_them(validation, own, run, tmp_path: Path) -> None:
    parts = {"train": range(6), validation: range(6, 8), "test": range(8, 10)}
    for split, numbers in parts.items():
        for name in ("jump", "run far", "walk"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i in numbers:
                file = own / name / f"{name} {i}.mp4"
                file.rename(tmp_path / "set" / split / name / file.name)
    done = run("folder", tmp_path / "set", tmp_path / "out")
    assert done.status == 0, done.told
    prepared = read_prepared(tmp_path / "out")
    dev = "dev.txt" if validation == "dev" else "val.txt"
    assert prepared.lists == {"train": "train.txt", "dev": dev, "test": "test.txt"}
    assert lines_of(tmp_path / "out" / dev)[0] == (f"{validation}/jump/jump 6.mp4", 0)
    done = run("folder", tmp_path / "set", tmp_path / "out", "--test-fraction", "0.1")
    assert done.status == 1 and "the source has a test list: --test-fraction must be 0" in done.told


def test_equal_files_end_on_one_side(own, run, tmp_path: Path) -> None:
    for i in range(1, 8):  # eight of ten videos are one
        shutil.copy(own / "walk" / "walk 0.mp4", own / "walk" / f"walk {i}.mp4")
    done = run("folder", own, tmp_path / "out", "--test-fraction", "0.3", "--dev-fraction", "0.3")
    assert done.status == 0
    places = [
        {path for path, _ in lines_of(tmp_path / "out" / f"{name}.txt")}
        for name in ("train", "dev", "test")
    ]
    same = {f"walk/walk {i}.mp4" for i in range(8)}
    assert sum(bool(place & same) for place in places) == 1
    assert len(done.listed("note: the same video twice in ")) == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_with_names_splits_and_groups(delimiter, own, run, tmp_path: Path) -> None:
    rows = [["Video", "Action", "subset", "who"]]
    names = ("jump", "run far", "walk")
    for name in names:
        for i in range(10):
            split = "testing" if i == 9 else "Train"
            rows.append([f"{name}/{name} {i}.mp4", name, split, f"person {i // 3}"])
    table = tmp_path / "clips.csv"
    text = "".join(delimiter.join(row) + "\r\n" for row in rows)
    table.write_text(text, encoding="utf-8-sig")
    command = ["csv", table, tmp_path / "out", "--videos", own, "--group-column", "who"]
    done = run(*command, "--dev-fraction", "0.34")
    assert done.status == 0, done.told
    lists = {n: lines_of(tmp_path / "out" / f"{n}.txt") for n in ("train", "dev", "test")}
    assert lists["test"] == [
        (f"{n}/{n} 9.mp4", i) for i, n in enumerate(("jump", "run far", "walk"))
    ]
    people = [{int(path[-5]) // 3 for path, _ in lists[name]} for name in ("train", "dev")]
    assert len(lists["dev"]) == 9 and not people[0] & people[1]


def test_a_table_with_numbers_keeps_them(own, run, tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    rows = "".join(
        f"{n}/{n} {i}.mp4,{2 - k}\n" for k, n in enumerate(("jump", "walk")) for i in "012"
    )
    table.write_text("path,label\n" + rows + "run far/run far 1,0\n")
    names = tmp_path / "names.txt"
    names.write_text("run\nwalk\njump\n")
    command = ["csv", table, tmp_path / "out", "--videos", own, "--label-names", names]
    done = run(*command, "--test-fraction", "0", "--dev-fraction", "0")
    assert done.status == 0, done.told
    assert read_label_names(tmp_path / "out" / "labels.txt") == ["run", "walk", "jump"]
    lines = lines_of(tmp_path / "out" / "train.txt")
    assert lines[0] == ("jump/jump 0.mp4", 2)
    assert lines[-1] == ("run far/run far 1.mp4", 0), "found without its ending"


@pytest.mark.parametrize("places", ["table", "root", "absolute"])
def test_paths_in_a_table_may_start_elsewhere(places, own, run, tmp_path: Path) -> None:
    before = {"table": "videos/", "root": "", "absolute": f"{own}/"}[places]
    rows = [f"{before}{n}/{n} {i}.mp4,{n}\n" for n in ("jump", "walk") for i in range(3)]
    (tmp_path / "clips.csv").write_text("path,label\n" + "".join(rows))
    done = run("csv", tmp_path / "clips.csv", tmp_path / "out", "--videos", own)
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
    ],
)
def test_a_table_that_cannot_be_used(text, message, own, run, tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text(text)
    done = run("csv", tmp_path / "clips.csv", tmp_path / "out", "--videos", own)
    assert done.status == 1 and f"clips.csv{message}" in done.told
    assert not (tmp_path / "out").exists()


def test_bad_rows_of_a_table_are_told(own, run, tmp_path: Path) -> None:
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
    done = run(*command, "--label-names", tmp_path / "names.txt")
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


# Bad input


def test_missing_keys_and_ids_without_a_video(copy, run, tmp_path: Path) -> None:
    layout = copy("ssv2")
    file = layout.annotations / "something-something-v2-train.json"
    records = json.loads(file.read_text(encoding="utf-8"))
    del records[1]["template"], records[2]["id"]
    records.append(records[0])
    layouts.write_json(file, records)
    (layout.videos / "16.webm").unlink()
    layouts.small_video(layout.videos / "999999.webm")
    done = run(*official("ssv2", layout, tmp_path / "out", "--allow-partial"))
    assert done.status == 1, "a damaged file is no partial copy"
    assert len(done.listed("problem: missing keys")) == 2
    assert len(done.listed("problem: duplicate ids")) == 1
    missing = done.listed("missing: annotated videos without a file")
    assert missing == ["16 (something-something-v2-train.json, record 6)"]
    assert "train: 7 of 8 annotated videos are listed" in done.report
    unknown = done.listed("note: videos that no annotation names")
    assert unknown == ["100904.webm", "42326.webm", "999999.webm"]
    gone = {"42326.webm", "100904.webm", "16.webm"}
    expected = [line for line in layout.samples["train"] if line[0] not in gone]
    assert lines_of(tmp_path / "out" / "train.txt") == expected


def test_two_files_for_one_id(copy, run, tmp_path: Path) -> None:
    layout = copy("ssv2")
    (layout.videos / "transcoded").mkdir()
    shutil.copy(layout.videos / "16.webm", layout.videos / "transcoded" / "16.MP4")
    (layout.videos / "link.webm").symlink_to("7.webm")
    done = run(*official("ssv2", layout, tmp_path / "out", "--allow-partial"))
    assert done.status == 1
    (line,) = done.listed("problem: two files for one video")
    assert line == "16: 16.webm, transcoded/16.MP4"
    assert lines_of(tmp_path / "out" / "train.txt") == layout.samples["train"]


@pytest.mark.parametrize("spelling", ["Shake_Hands", "shakehands", "shake_hand"])
def test_a_class_folder_misspelt(spelling, copy, run, tmp_path: Path) -> None:
    layout = copy("hmdb51")
    (layout.videos / "shake_hands").rename(layout.videos / spelling)
    done = run(*official("hmdb51", layout, tmp_path / "out", "--allow-partial"))
    assert done.status == 1
    hint = f"shake_hands: did you mean {spelling}?"
    assert done.listed("problem: annotated folders under another name") == [hint]
    assert done.listed("note: folders of videos that no annotation names") == [spelling]
    train = [line for line in layout.samples["train"] if not line[0].startswith("shake_hands")]
    assert lines_of(tmp_path / "out" / "train.txt") == train


def test_a_class_folder_missing_is_a_class_without_videos(copy, run, tmp_path: Path) -> None:
    layout = copy("hmdb51")
    shutil.rmtree(layout.videos / "climb")
    command = official("hmdb51", layout, tmp_path / "out")
    done = run(*command, "--allow-partial")
    assert done.status == 0
    assert done.listed("missing: annotated folders that are not there") == ["climb"]
    assert "climb (train): none of 4 videos" in done.listed("missing: classes without a video")


def test_split_files_of_another_set_and_duplicate_lines(copy, run, tmp_path: Path) -> None:
    layout = copy("hmdb51")
    (layout.annotations / "yoyo_test_split1.txt").write_text("a_yoyo_f_cm_np1_ba_med_0.avi 1 \n")
    file = layout.annotations / "sword_test_split1.txt"
    file.write_text(file.read_text() + file.read_text().splitlines()[0] + "\n")
    done = run(*official("hmdb51", layout, tmp_path / "out", "--allow-partial"))
    assert done.status == 1
    assert "HMDB51 has no class 'yoyo'" in done.report
    assert len(done.listed("problem: duplicate lines")) == 1
    assert lines_of(tmp_path / "out" / "train.txt") == layout.samples["train"]


@pytest.mark.parametrize("how", ["id", "content"])
def test_train_and_val_overlap(how, copy, run, tmp_path: Path) -> None:
    layout = copy("ssv2")
    if how == "id":
        file = layout.annotations / "something-something-v2-validation.json"
        records = json.loads(file.read_text(encoding="utf-8"))
        train = layout.annotations / "something-something-v2-train.json"
        records.append(json.loads(train.read_text(encoding="utf-8"))[0])
        layouts.write_json(file, records)
        line = "train: 78687.webm, val: 78687.webm"
    else:
        shutil.copy(layout.videos / "7.webm", layout.videos / "5.webm")
        line = "train: 7.webm, val: 5.webm (labels "
    done = run(*official("ssv2", layout, tmp_path / "out", "--allow-partial"))
    assert done.status == 1
    (found,) = done.listed("problem: the same video in train and val")
    assert found.startswith(line)
    assert lines_of(tmp_path / "out" / "train.txt") == layout.samples["train"], "stays official"


def test_files_of_equal_size_are_not_the_same(own, run, tmp_path: Path) -> None:
    for i in range(10):  # alike in the middle, where files are looked at first
        (own / "walk" / f"walk {i}.mp4").write_bytes(b"%d" % i + bytes(30_000))
    done = run("folder", own, tmp_path / "out")
    assert done.status == 0 and "the same video" not in done.report


def test_empty_classes_and_stray_videos(own, run, tmp_path: Path) -> None:
    (own / "sleep").mkdir()
    (own / "stray.mp4").write_bytes(b"stray")
    (own / "walk" / "notes.txt").write_text("not a video")
    (own / "walk" / "._walk 1.mp4").write_bytes(b"mac")
    done = run("folder", own, tmp_path / "out", "--allow-partial")
    assert done.status == 1
    assert done.listed("problem: class folders without a video") == ["sleep"]
    assert done.listed("problem: videos in no class folder") == ["stray.mp4"]
    assert done.listed("note: hidden files and folders, passed over") == ["walk/._walk 1.mp4"]
    assert read_label_names(tmp_path / "out" / "labels.txt") == ["jump", "run far", "walk"]


def test_a_class_misspelt_in_one_split(own, run, tmp_path: Path) -> None:
    shutil.copytree(own, tmp_path / "set" / "train")
    for name in ("jump", "run far", "wlak"):
        (tmp_path / "set" / "test" / name).mkdir(parents=True)
        (tmp_path / "set" / "test" / name / "a.mp4").write_bytes(name.encode())
    done = run("folder", tmp_path / "set", tmp_path / "out")
    assert done.status == 1
    found = done.listed("problem: classes that train has not")
    assert found == ["test: wlak did you mean walk?"]


def test_one_level_too_high(own, run, tmp_path: Path) -> None:
    (tmp_path / "above").mkdir()
    own.rename(tmp_path / "above" / "videos")
    done = run("folder", tmp_path / "above", tmp_path / "out")
    assert done.status == 1
    assert f"found videos; did you mean {tmp_path / 'above' / 'videos'}?" in done.told


def test_empty_and_unreadable_videos_and_dead_links(copy, run, tmp_path: Path) -> None:
    layout = copy("ssv2")
    (layout.videos / "16.webm").write_bytes(b"")
    (layout.videos / "7.webm").write_bytes(b"no video at all")
    (layout.videos / "4.webm").unlink()
    (layout.videos / "4.webm").symlink_to("gone.webm")
    command = official("ssv2", layout, tmp_path / "out", "--allow-partial", "--reader", "pyav")
    done = run(*command, index=True)
    assert done.status == 1
    assert done.listed("missing: empty files (0 bytes), left out") == ["16.webm"]
    assert done.listed("problem: links that lead nowhere") == ["4.webm"]
    (line,) = done.listed("problem: videos that cannot be read")
    assert line.startswith(f"train: {layout.videos / '7.webm'}: ")
    listed = [path for path, _ in lines_of(tmp_path / "out" / "train.txt")]
    assert "7.webm" in listed and not {"16.webm", "4.webm"} & set(listed)


def test_links_to_folders_are_followed_once(own, run, tmp_path: Path) -> None:
    (own / "walk").rename(tmp_path / "kept elsewhere")
    (own / "walk").symlink_to(tmp_path / "kept elsewhere")
    (own / "jump" / "again").symlink_to(own)
    done = run("folder", own, tmp_path / "out", "--test-fraction", "0", "--dev-fraction", "0")
    assert done.status == 0, done.told
    assert len(lines_of(tmp_path / "out" / "train.txt")) == 30
    assert done.listed("note: links to folders that were looked through already") == ["jump/again"]


def test_a_folder_that_cannot_be_read(run) -> None:
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
            done = run("folder", videos, out)
        (videos / "walk").chmod(0o755)
        assert done.status == 1
        assert "problem: folders that cannot be read (1)" in done.told
        assert f"{videos / 'walk'}: Permission denied" in done.told
        assert read_label_names(out / "labels.txt") == ["jump", "run far"], "the rest is finished"
        assert len(lines_of(out / "train.txt")) == 14


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


def test_names_that_a_list_cannot_hold(own, run, tmp_path: Path) -> None:
    for name in ("two\nlines.mp4", os.fsdecode(b"latin \xe9.mp4"), "ends with a comma,.mp4"):
        (own / "walk" / name).write_bytes(name.encode(errors="surrogateescape"))
    done = run("folder", own, tmp_path / "out", "--test-fraction", "0", "--dev-fraction", "0")
    assert done.status == 1
    found = done.listed("problem: names that a list cannot hold; rename the files")
    assert found == [r"'walk/latin \udce9.mp4'", r"'walk/two\nlines.mp4'"]
    assert ("walk/ends with a comma,.mp4", 2) in lines_of(tmp_path / "out" / "train.txt")


def test_nothing_found(made, run, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    layout = layouts.Layout(made["ssv2"].annotations, tmp_path / "none", {})
    done = run(*official("ssv2", layout, tmp_path / "out"))
    assert done.status == 1 and "not one of 14 annotated videos is there" in done.told
    layout = layouts.Layout(tmp_path / "no", tmp_path / "none", {})
    assert (
        "no such folder; expected the official files"
        in run(*official("ssv2", layout, tmp_path / "out")).told
    )
    assert not (tmp_path / "out").exists()


# The folder of lists


@pytest.fixture
def prepared(own: Path, run: Callable[..., Done], tmp_path: Path) -> Iterator[Path]:
    run("folder", own, tmp_path / "out")
    yield tmp_path / "out"


def test_lists_of_an_earlier_preparation_go(prepared, own, run) -> None:
    assert (prepared / "dev.txt").is_file()
    assert run("folder", own, prepared, "--dev-fraction", "0").status == 0
    assert not (prepared / "dev.txt").exists()
    assert set(read_prepared(prepared).lists) == {"train", "test"}


def test_other_lists_are_not_overwritten(prepared, own, run) -> None:
    (prepared / RECORD).unlink()
    assert run("folder", own, prepared).status == 0, "left by a call that was interrupted"
    (prepared / RECORD).unlink()
    (prepared / "train.txt").write_text("mine.mp4 0\n")
    done = run("folder", own, prepared)
    assert done.status == 1 and "was not written by a preparation" in done.told
    assert (prepared / "train.txt").read_text() == "mine.mp4 0\n"
    assert not (prepared / RECORD).exists()


def test_the_folder_of_lists_may_lie_among_the_videos(own, run, tmp_path: Path) -> None:
    for _ in range(2):
        done = run("folder", own, own / "lists")
        assert done.status == 0, done.told
    assert read_label_names(own / "lists" / "labels.txt") == ["jump", "run far", "walk"]
