"""The commands that write lists, run as a user would on miniature downloads, and on bad ones."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import layouts
import pytest
from commands import lines_of, prepare
from conftest import ROOT, load_tool

from vidadapt.apps.prepare.sources import SOURCES
from vidadapt.lists import (
    Sample,
    add_to_index,
    frame_counts,
    index_path,
    manifest_hash,
    read_index,
    read_label_names,
    read_prepared,
)
from vidadapt.serving import GivenVideo, find_videos

SPLITS = ROOT.parent / "shared" / "labels" / "hmdb51_splits"
OF_VIDEOS = [name for name, source in SOURCES.items() if not source.images]
OFFICIAL = {name: getattr(layouts, name) for name in OF_VIDEOS}


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


# What is promised


@pytest.mark.parametrize("name", OF_VIDEOS)
def test_official_miniatures_become_their_lists(name, made, tmp_path: Path) -> None:
    layout, out = made[name], tmp_path / "out"
    done = prepare(*official(name, layout, out, "--allow_partial"))
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
        rf"vidadapt train --config \S+ .*--data.lists {re.escape(str(out))}", done.told
    )


def test_test_videos_without_labels_get_a_list_for_predictions(tmp_path: Path) -> None:
    layout, out = layouts.ssv2(tmp_path / "set"), tmp_path / "out"
    here = [layout.videos / f"{key}.webm" for key in layouts.SSV2_TEST_IDS[:2]]
    for file in here:
        layouts.small_video(file)
    (layout.videos / f"{layouts.SSV2_TEST_IDS[2]}.webm").unlink(missing_ok=True)
    command = official("ssv2", layout, out, "--allow_partial")
    done = prepare(*command)
    assert f"unlabelled.txt: 2 of {len(layouts.SSV2_TEST_IDS)} test videos" in done.report
    named = find_videos([str(out / "unlabelled.txt")])
    assert named == [GivenVideo(str(file)) for file in here]
    assert prepare(*command).status == 0  # it may replace its own
    for file in layout.annotations.rglob("*test.json"):
        file.unlink()
    prepare(*command)
    assert not (out / "unlabelled.txt").exists()
    (out / "unlabelled.txt").write_text("mine\n")
    (layout.annotations / "test.json").write_text('[{"id": "1420"}]')
    assert prepare(*command).status == 2
    assert (out / "unlabelled.txt").read_text() == "mine\n"


def test_a_partial_copy_is_told_and_fails_unless_allowed(made, tmp_path: Path) -> None:
    command = official("hmdb51", made["hmdb51"], tmp_path / "out")
    done = prepare(*command)
    assert done.status == 1 and "add --allow_partial where that is meant so" in done.told
    assert "train: 22 videos are annotated, officially 3,570" in done.report
    lists = (tmp_path / "out" / "train.txt").read_bytes()
    assert prepare(*command, "--allow_partial").status == 0
    assert (tmp_path / "out" / "train.txt").read_bytes() == lists


def test_frames_are_counted_and_running_again_changes_nothing(made, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = official("hmdb51", made["hmdb51"], out, "--allow_partial", "--dev_fraction", "0.3")
    prepare(*command, "--reader", "pyav", index=True)
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(first) == {
        *("train.txt", "dev.txt", "test.txt", "labels.txt", "report.txt", "prepared.json"),
        *("train.txt.index", "dev.txt.index", "test.txt.index"),
    }
    for name in ("train", "dev", "test"):
        index = read_index(index_path(out / f"{name}.txt"))
        assert index is not None and len(index) == len(lines_of(out / f"{name}.txt"))
        counted = {(index[row].requested, index[row].num_frames) for row in range(len(index))}
        assert counted == {("pyav", 4)}
    indexed = index_path(out / "train.txt").stat().st_mtime_ns
    prepare(*command, "--reader", "pyav", index=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    assert index_path(out / "train.txt").stat().st_mtime_ns == indexed, "nothing is counted again"


def test_no_video_is_counted_for_two_lists(made, tmp_path: Path) -> None:
    layout, out = made["hmdb51"], tmp_path / "out"
    pyav = ("--allow_partial", "--reader", "pyav")
    prepare(*official("hmdb51", layout, out / "split1", *pyav), index=True)
    for name in ("train", "test"):  # marked, so that a count is told from one carried over
        path = index_path(out / "split1" / f"{name}.txt")
        index = read_index(path)
        assert index is not None
        known = [index[row] for row in range(len(index))]
        add_to_index(path, [replace(facts, num_frames=44) for facts in known])
    prepare(
        *official("hmdb51", layout, out, *pyav, "--split", "all", "--dev_fraction", "0.3"),
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
def test_hmdb51_lists_are_those_of_data_lists(tmp_path: Path) -> None:
    names = read_label_names(ROOT / "data_lists" / "hmdb51" / "labels.txt")
    for name in names:
        (tmp_path / "videos" / name).mkdir(parents=True)
        for line in (SPLITS / f"{name}_test_split1.txt").read_text().splitlines():
            file = line.rsplit(maxsplit=1)[0]
            (tmp_path / "videos" / name / file).write_bytes(f"{name}/{file}".encode())
    out = tmp_path / "out"
    command = ["hmdb51", "--annotations", SPLITS, "--videos", tmp_path / "videos", "--split", "all"]
    done = prepare(*command, out)
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
def test_clips_of_one_film_do_not_straddle_dev(name, made, tmp_path: Path) -> None:
    layout, out = made[name], tmp_path / "out"
    prepare(*official(name, layout, out, "--allow_partial", "--dev_fraction", "0.3"))
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


@pytest.mark.parametrize("command", [*SOURCES, "folder", "csv"])
def test_help_shows_the_layout(command, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        load_tool("prepare").main([command, "--help"])
    told = capsys.readouterr().out
    assert end.value.code == 0
    assert f"example: vidadapt prepare {command} " in told
    wanted = {"folder": "juggle/", "csv": "path,label,split,group"}.get(command, "ANNOTATIONS/")
    assert wanted in told


# Bad input


def test_missing_keys_and_ids_without_a_video(copy, tmp_path: Path) -> None:
    layout = copy("ssv2")
    file = layout.annotations / "something-something-v2-train.json"
    records = json.loads(file.read_text(encoding="utf-8"))
    del records[1]["template"], records[2]["id"]
    records.append(records[0])
    layouts.write_json(file, records)
    (layout.videos / "16.webm").unlink()
    layouts.small_video(layout.videos / "999999.webm")
    done = prepare(*official("ssv2", layout, tmp_path / "out", "--allow_partial"))
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


def test_two_files_for_one_id(copy, tmp_path: Path) -> None:
    layout = copy("ssv2")
    (layout.videos / "transcoded").mkdir()
    shutil.copy(layout.videos / "16.webm", layout.videos / "transcoded" / "16.MP4")
    (layout.videos / "link.webm").symlink_to("7.webm")
    done = prepare(*official("ssv2", layout, tmp_path / "out", "--allow_partial"))
    assert done.status == 1
    (line,) = done.listed("problem: two files for one video")
    assert line == "16: 16.webm, transcoded/16.MP4"
    assert lines_of(tmp_path / "out" / "train.txt") == layout.samples["train"]


def test_all_files_in_one_folder_are_found_by_their_names(copy, tmp_path: Path) -> None:
    layout, flat = copy("hmdb51"), tmp_path / "flat"
    flat.mkdir()
    for video in layout.videos.glob("*/*.avi"):
        video.rename(flat / video.name)
    flat_layout = layouts.Layout(layout.annotations, flat, {})
    done = prepare(*official("hmdb51", flat_layout, tmp_path / "out", "--allow_partial"))
    assert done.status == 0, done.told
    expected = [(path.split("/")[1], label) for path, label in layout.samples["train"]]
    assert lines_of(tmp_path / "out" / "train.txt") == expected
    number = len(layout.samples["train"]) + len(layout.samples["test"])
    (line,) = done.listed("note: found by their names alone")
    assert line == f"{number} videos, since not one of the annotated folders is there"


@pytest.mark.parametrize("spelling", ["Shake_Hands", "shakehands", "shake_hand"])
def test_a_class_folder_misspelt(spelling, copy, tmp_path: Path) -> None:
    layout = copy("hmdb51")
    (layout.videos / "shake_hands").rename(layout.videos / spelling)
    done = prepare(*official("hmdb51", layout, tmp_path / "out", "--allow_partial"))
    assert done.status == 1
    hint = f"shake_hands: did you mean {spelling}?"
    assert done.listed("problem: annotated folders under another name") == [hint]
    assert done.listed("note: folders of videos that no annotation names") == [spelling]
    train = [line for line in layout.samples["train"] if not line[0].startswith("shake_hands")]
    assert lines_of(tmp_path / "out" / "train.txt") == train


def test_a_class_folder_missing_is_a_class_without_videos(copy, tmp_path: Path) -> None:
    layout = copy("hmdb51")
    shutil.rmtree(layout.videos / "climb")
    command = official("hmdb51", layout, tmp_path / "out")
    done = prepare(*command, "--allow_partial")
    assert done.status == 0
    assert done.listed("missing: annotated folders that are not there") == ["climb"]
    assert "climb (train): none of 4 videos" in done.listed("missing: classes without a video")


def test_split_files_of_another_set_and_duplicate_lines(copy, tmp_path: Path) -> None:
    layout = copy("hmdb51")
    (layout.annotations / "yoyo_test_split1.txt").write_text("a_yoyo_f_cm_np1_ba_med_0.avi 1 \n")
    file = layout.annotations / "sword_test_split1.txt"
    file.write_text(file.read_text() + file.read_text().splitlines()[0] + "\n")
    done = prepare(*official("hmdb51", layout, tmp_path / "out", "--allow_partial"))
    assert done.status == 1
    assert "HMDB51 has no class 'yoyo'" in done.report
    assert len(done.listed("problem: duplicate lines")) == 1
    assert lines_of(tmp_path / "out" / "train.txt") == layout.samples["train"]


@pytest.mark.parametrize("how", ["id", "content"])
def test_train_and_val_overlap(how, copy, tmp_path: Path) -> None:
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
        line = (
            "train: 7.webm, val: 5.webm (Pushing something from left to right / Putting number of "
            "something onto something)"
        )
    done = prepare(*official("ssv2", layout, tmp_path / "out", "--allow_partial"))
    assert done.status == 1
    (found,) = done.listed("problem: the same video in train and val")
    assert found == line
    assert ("problem: the same video in train and val, under" in done.report) == (how == "content")
    assert lines_of(tmp_path / "out" / "train.txt") == layout.samples["train"], "stays official"


def test_empty_and_unreadable_videos_and_dead_links(copy, tmp_path: Path) -> None:
    layout = copy("ssv2")
    (layout.videos / "16.webm").write_bytes(b"")
    (layout.videos / "7.webm").write_bytes(b"no video at all")
    (layout.videos / "4.webm").unlink()
    (layout.videos / "4.webm").symlink_to("gone.webm")
    command = official("ssv2", layout, tmp_path / "out", "--allow_partial", "--reader", "pyav")
    done = prepare(*command, index=True)
    assert done.status == 1
    assert done.listed("missing: empty files (0 bytes), left out") == ["16.webm"]
    assert done.listed("problem: links that lead nowhere") == ["4.webm"]
    (line,) = done.listed("problem: videos that cannot be read")
    assert line.startswith("train: 7.webm: ")
    listed = [path for path, _ in lines_of(tmp_path / "out" / "train.txt")]
    assert "7.webm" in listed and not {"16.webm", "4.webm"} & set(listed)


def test_names_that_no_report_can_hold_are_escaped(copy, tmp_path: Path) -> None:
    layout = copy("ssv2")
    for name in (b"two\nlines.webm", b"latin \xe9.webm"):
        (layout.videos / os.fsdecode(name)).write_bytes(name)
    done = prepare(*official("ssv2", layout, tmp_path / "out", "--allow_partial"))
    assert done.status == 0, done.told
    unknown = done.listed("note: videos that no annotation names")
    assert unknown == [r"latin \udce9.webm", r"two\nlines.webm"]


def test_lists_beside_the_annotations(copy) -> None:
    layout = copy("kinetics")
    for _ in range(2):  # the second time, csv files of frame counts lie there, too
        command = official("kinetics", layout, layout.annotations, "--allow_partial")
        done = prepare(*command, index=True)
        assert done.status == 0, done.told
    assert lines_of(layout.annotations / "train.txt") == layout.samples["train"]


def test_nothing_found(made, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    layout = layouts.Layout(made["ssv2"].annotations, tmp_path / "none", {})
    done = prepare(*official("ssv2", layout, tmp_path / "out"))
    assert done.status == 2 and "not one of 14 annotated videos is there" in done.told
    layout = layouts.Layout(tmp_path / "no", tmp_path / "none", {})
    assert (
        "no such folder; expected the official files"
        in prepare(*official("ssv2", layout, tmp_path / "out")).told
    )
    assert not (tmp_path / "out").exists()
