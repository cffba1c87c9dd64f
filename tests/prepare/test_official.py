"""Readers of official annotation files, on miniature downloads: their quirks, and bad input."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import layouts
import pytest

from vidadapt.data.lists import read_label_names
from vidadapt.prepare import hmdb51, kinetics, ssv2, ucf101
from vidadapt.prepare.annotations import Annotations
from vidadapt.prepare.report import Report

LABELS = Path(__file__).parents[3] / "shared" / "labels"
needs_labels = pytest.mark.skipif(
    not LABELS.is_dir(), reason="needs the official label files of ../shared/labels"
)

ssv2_files = partial(layouts.ssv2, with_videos=False)
hmdb51_files = partial(layouts.hmdb51, with_videos=False)
ucf101_files = partial(layouts.ucf101, with_videos=False)


def keyed(samples: dict[str, list[tuple[str, int]]]) -> dict[str, list[tuple[str, int]]]:
    """Samples by split, paths without their endings."""
    return {split: [(p.rpartition(".")[0], n) for p, n in side] for split, side in samples.items()}


def read_samples(annotations: Annotations) -> dict[str, list[tuple[str, int]]]:
    return {s: [(e.key, e.label) for e in side] for s, side in annotations.splits.items()}


# Something-Something V2


@pytest.mark.parametrize("naming", ["official", "plain"])
@pytest.mark.parametrize("below", ["", "labels"])
def test_ssv2_under_both_names_in_both_places(naming, below, tmp_path) -> None:
    layout = ssv2_files(tmp_path, naming=naming, below=below)
    report = Report()
    read = ssv2.read(layout.annotations, report)
    assert read_samples(read) == keyed(layout.samples)
    assert (read.dataset, list(read.label_names)) == ("ssv2", layouts.ssv2_names())
    assert read.expected == {"train": 168_913, "val": 24_777}
    assert read.unlisted == ("1420", "166429", "3")
    assert not report.problems
    assert set(report.missing) == {"official counts"}  # it is a miniature
    assert report.missing["official counts"] == [
        "3 test videos, officially 27,157",
        "train: 10 videos are annotated, officially 168,913",
        "val: 4 videos are annotated, officially 24,777",
    ]
    assert report.notes["in no list"] == [
        "3 test videos, officially 27,157: published results are on the validation list"
    ]


def test_ssv2_of_the_promised_size_leaves_nothing_to_report(tmp_path, monkeypatch) -> None:
    layout = ssv2_files(tmp_path)
    monkeypatch.setattr(ssv2, "OFFICIAL", {"train": 10, "val": 4, "test": 3})
    report = Report()
    ssv2.read(layout.annotations, report)
    assert not report.problems and not report.missing


def test_ssv2_entries_say_where_they_come_from(tmp_path) -> None:
    layout = ssv2_files(tmp_path)
    entry = ssv2.read(layout.annotations, Report()).splits["train"][2]
    assert (entry.key, entry.group) == ("100904", "")
    assert entry.source == "something-something-v2-train.json, record 3"


@pytest.mark.parametrize("kind", [str, int])
def test_ssv2_labels_in_any_order_ids_as_text_or_numbers(kind, tmp_path) -> None:
    layout = ssv2_files(tmp_path)
    names = layouts.ssv2_names()
    labels = {name: kind(len(names) - 1 - i) for i, name in enumerate(names)}
    path = layout.annotations / "something-something-v2-labels.json"
    layouts.write_json(path, labels)
    train = layout.annotations / "something-something-v2-train.json"
    records = json.loads(train.read_text(encoding="utf-8"))
    layouts.write_json(train, [{**record, "id": kind(record["id"])} for record in records])
    read = ssv2.read(layout.annotations, Report())
    assert list(read.label_names) == names[::-1]
    flipped = [(key, 173 - label) for key, label in keyed(layout.samples)["train"]]
    assert read_samples(read)["train"] == flipped


def test_ssv2_label_names_beyond_ascii_and_a_byte_order_mark(tmp_path) -> None:
    layout = ssv2_files(tmp_path, naming="plain")
    names = [*layouts.ssv2_names()[:-1], "Rühren in etwas – mit 手"]
    text = json.dumps({name: str(i) for i, name in enumerate(names)}, ensure_ascii=False)
    (layout.annotations / "labels.json").write_text("\ufeff" + text, encoding="utf-8")
    record = {"id": "9", "label": "x", "template": "Rühren in [etwas] – mit [手]"}
    layouts.write_json(layout.annotations / "train.json", [record])
    read = ssv2.read(layout.annotations, Report())
    assert read.label_names[-1] == names[-1]
    assert read_samples(read)["train"] == [("9", 173)]


def test_ssv2_records_that_cannot_be_used_are_told_and_the_rest_goes_on(tmp_path) -> None:
    layout = ssv2_files(tmp_path, naming="plain")
    path = layout.annotations / "train.json"
    template = "Pushing [something] from left to right"
    records = [
        {"label": "no id", "template": template},
        {"id": "31", "label": "no template"},
        {"id": "32", "template": "Pushing [something] from left to rihgt"},
        {"id": "33", "template": ["a list"]},
        {"id": 3.5, "template": template},
        {"id": True, "template": template},
        {"id": "../34", "template": template},
        "not a record",
        {"id": "35", "template": template},
        {"id": "35", "template": template},
        {"id": "36", "template": template},
    ]
    layouts.write_json(path, records)
    report = Report()
    read = ssv2.read(layout.annotations, report)
    assert [entry.key for entry in read.splits["train"]] == ["35", "36"]
    assert len(read.splits["val"]) == 4
    assert report.problems["missing keys"] == [
        "train.json, record 1: no 'id'",
        "train.json, record 2 (id 31): no 'template'",
    ]
    (unknown,) = report.problems["unknown templates"]
    assert unknown.startswith("train.json, record 3 (id 32)")
    assert "did you mean Pushing something from left to right" in unknown
    numbers = [line.split(":")[0].split(" (")[0] for line in report.problems["wrong types"]]
    assert numbers == [f"train.json, record {i}" for i in (5, 6, 7, 8, 4)]
    (twice,) = report.problems["duplicate ids"]
    assert "record 10: id 35 is already in train.json, record 9" in twice


def test_ssv2_too_many_videos_or_classes_are_problems(tmp_path) -> None:
    layout = ssv2_files(tmp_path, naming="plain")
    records = [{"id": str(i)} for i in range(27_158)]
    layouts.write_json(layout.annotations / "test.json", records)
    labels = {name: i for i, name in enumerate([*layouts.ssv2_names(), "Another"])}
    layouts.write_json(layout.annotations / "labels.json", labels)
    report = Report()
    ssv2.read(layout.annotations, report)
    classes, test = report.problems["official counts"]
    assert "names 175 classes, officially 174" in classes
    assert "27,158" in test and "officially 27,157" in test


@pytest.mark.parametrize("name", ["labels", "train", "validation"])
def test_ssv2_missing_file_names_both_names(name, tmp_path) -> None:
    layout = ssv2_files(tmp_path)
    (layout.annotations / f"something-something-v2-{name}.json").unlink()
    with pytest.raises(ValueError, match=rf"something-something-v2-{name}.json nor {name}.json"):
        ssv2.read(layout.annotations, Report())


def test_ssv2_without_its_test_ids_goes_on(tmp_path) -> None:
    layout = ssv2_files(tmp_path)
    (layout.annotations / "something-something-v2-test.json").unlink()
    report = Report()
    assert set(ssv2.read(layout.annotations, report).splits) == {"train", "val"}
    assert "test.json" in report.missing["test ids"][0]


def test_ssv2_two_copies_of_a_file_are_noted(tmp_path) -> None:
    layout = ssv2_files(tmp_path)
    ssv2_files(tmp_path, naming="plain", below="labels")
    report = Report()
    ssv2.read(layout.annotations, report)
    assert len(report.notes["more than one copy of a file"]) == 4


@pytest.mark.parametrize("text", ["<html>", "", '{"a": 1', "\udcff"])
def test_ssv2_file_that_is_no_json(text, tmp_path) -> None:
    layout = ssv2_files(tmp_path, naming="plain")
    content = text.encode("utf-8", errors="surrogateescape")
    (layout.annotations / "validation.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"validation\.json cannot be read as JSON"):
        ssv2.read(layout.annotations, Report())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train", {"id": "1"}, "holds a dict, expected a list of records"),
        ("labels", ["a"], "holds a list, expected an object"),
        ("labels", {}, "expected ids"),
        ("labels", {"a": "0", "b": "two"}, "'b': 'two'"),
        ("labels", {"a": "0", "b": True}, "'b': True"),
        ("labels", {"a": "0", "b": "2"}, "missing: 1"),
        ("labels", {"a": "1", "b": "1"}, "missing: 0"),
    ],
)
def test_ssv2_files_of_another_kind(name, content, message, tmp_path) -> None:
    layout = ssv2_files(tmp_path, naming="plain")
    layouts.write_json(layout.annotations / f"{name}.json", content)
    with pytest.raises(ValueError, match=message):
        ssv2.read(layout.annotations, Report())


@needs_labels
def test_ssv2_bracket_variants_of_the_official_files() -> None:
    """As counted over the full validation file: without brackets, each is part of a class name."""
    facts = json.loads((LABELS / "ssv2_annotation_layout_example.json").read_text("utf-8"))
    names = "\n".join(layouts.ssv2_names())
    for variant in facts["facts_measured_on_full_validation_json"]["bracket_variants"]:
        assert ssv2.class_name(variant) in names
    for record in facts["example_records_from_validation"]:
        assert ssv2.class_name(record["template"]) in layouts.ssv2_names()


# HMDB51


@pytest.mark.parametrize("split", [1, 2, 3])
def test_hmdb51_splits_in_the_order_of_classes_and_files(split, tmp_path) -> None:
    layout = hmdb51_files(tmp_path, split=split)
    report = Report()
    read = hmdb51.read(layout.annotations, split, report)
    assert read_samples(read) == keyed(layout.samples)
    assert (read.dataset, list(read.label_names)) == ("hmdb51", layouts.hmdb51_names())
    assert read.expected == {"train": 3_570, "test": 1_530}
    assert not report.problems
    assert len(report.missing["missing split files"]) == 51 - len(layouts.HMDB51_FILES)
    files = sum(len(files) for files in layouts.HMDB51_FILES.values())
    listed = sum(len(side) for side in read.splits.values())
    assert len(read.unlisted) == files - listed > 0  # value 0


def test_hmdb51_notes_the_classes_that_others_number_otherwise(tmp_path) -> None:
    report = Report()
    hmdb51.read(hmdb51_files(tmp_path).annotations, 1, report)
    notes = "\n".join(report.notes["classes with other numbers elsewhere"])
    assert "kick is 20 and kick_ball 21 here" in notes
    assert "sword is 44 and sword_exercise 45 here" in notes


def test_hmdb51_groups_are_films_across_classes(tmp_path) -> None:
    layout = hmdb51_files(tmp_path, split=3)
    read = hmdb51.read(layout.annotations, 3, Report())
    groups = {
        entry.key.split("/")[1]: entry.group for side in read.splits.values() for entry in side
    }
    remi = "FOOT_2009_(REMI_GAILLARD)"
    assert groups[f"{remi}_kick_f_cm_np1_ba_med_5"] == remi
    assert groups[f"{remi}_kick_ball_f_cm_np1_ba_bad_1"] == remi


def test_hmdb51_a_film_in_train_and_test_is_noted(tmp_path) -> None:
    layout = hmdb51_files(tmp_path)
    name = "FOOT_2009_(REMI_GAILLARD)_kick_f_cm_np1_ba_med_5.avi"
    path = layout.annotations / "kick_test_split3.txt"
    assert f"{name} 2 " in path.read_text(encoding="utf-8")
    report = Report()
    read = hmdb51.read(layout.annotations, 3, report)
    trained = {entry.group for entry in read.splits["train"]}
    shared = [entry.key for entry in read.splits["test"] if entry.group in trained]
    assert f"kick/{name.removesuffix('.avi')}" in shared
    (note,) = report.notes["films in train and test"]
    assert f"with {len(shared)} of {len(read.splits['test'])} test videos" in note


@needs_labels
def test_hmdb51_films_of_all_official_names() -> None:
    """The film is what stands before `_<class>_`, wherever that is in the name only once."""
    names = set()
    for split in (1, 2, 3):
        read = hmdb51.read(LABELS / "hmdb51_splits", split, Report())
        entries = [entry for side in read.splits.values() for entry in side]
        names |= {*(entry.key for entry in entries), *read.unlisted}
        for entry in entries:
            name, stem = entry.key.split("/")
            parts = stem.rsplit("_", name.count("_") + 7)  # six tags, the class, the film
            assert (parts[0], "_".join(parts[1:-6])) == (entry.group, name)
    assert len(names) == 6_766


def test_hmdb51_bad_lines_are_told_and_the_rest_goes_on(tmp_path) -> None:
    layout = hmdb51_files(tmp_path)
    path = layout.annotations / "sword_test_split1.txt"
    good = "Fellowship_4_sword_u_cm_np1_fr_med_4.avi"
    lines = [
        f"{good} 1 ",
        f"{good} 2 ",
        "Other_4_sword_u_cm_np1_fr_med_4.avi 3 ",
        "Other_5_sword_u_cm_np1_fr_med_4.avi",
        "1",
        "Blade_sword_exercise_f_cm_np1_fr_med_4.avi 1",
        "",
        "With blanks_sword_f_cm_np2_fr_med_0.avi   2\t",
    ]
    path.write_text("\r\n".join(lines), encoding="utf-8")
    report = Report()
    read = hmdb51.read(layout.annotations, 1, report)
    label = layouts.hmdb51_names().index("sword")
    keys = {s: [e.key for e in side if e.label == label] for s, side in read.splits.items()}
    assert keys == {
        "train": [f"sword/{good.removesuffix('.avi')}"],
        "test": ["sword/With blanks_sword_f_cm_np2_fr_med_0"],
    }
    assert [line.split(": ")[0] for line in report.problems["unusable lines"]] == [
        "sword_test_split1.txt:3",
        "sword_test_split1.txt:4",
        "sword_test_split1.txt:5",
    ]
    (twice,) = report.problems["duplicate lines"]
    assert twice.startswith("sword_test_split1.txt:2:") and "on line 1" in twice
    (other,) = report.problems["names of another class"]
    assert other.startswith("sword_test_split1.txt:6:")


def test_hmdb51_split_files_of_another_set(tmp_path) -> None:
    layout = hmdb51_files(tmp_path)
    (layout.annotations / "kick_test_split1.txt").rename(layout.annotations / "kik_test_split1.txt")
    (layout.annotations / "basketball_dunk_test_split1.txt").write_text("x.avi 1\n")
    report = Report()
    read = hmdb51.read(layout.annotations, 1, report)
    first, second = report.problems["split files of another set"]
    assert "basketball_dunk" in first
    assert "'kik'" in second and "did you mean kick" in second
    assert any("kick_test_split1.txt" in line for line in report.missing["missing split files"])
    kick = layouts.hmdb51_names().index("kick")
    assert kick not in {entry.label for side in read.splits.values() for entry in side}


def test_hmdb51_more_than_70_and_30_is_a_problem(tmp_path) -> None:
    layout = hmdb51_files(tmp_path)
    path = layout.annotations / "wave_test_split1.txt"
    path.write_text("".join(f"F{i}_wave_f_cm_np1_fr_med_0.avi 1 \n" for i in range(71)))
    report = Report()
    hmdb51.read(layout.annotations, 1, report)
    (line,) = report.problems["official counts by class"]
    assert line == "wave_test_split1.txt: train 71, officially 70"


def test_hmdb51_split_file_that_is_no_text(tmp_path) -> None:
    layout = hmdb51_files(tmp_path)
    (layout.annotations / "kick_test_split1.txt").write_bytes(b"Rar!\x1a\x07\xff\xfe")
    report = Report()
    assert hmdb51.read(layout.annotations, 1, report).splits["train"]
    assert "kick_test_split1.txt" in report.problems["unreadable split files"][0]


def test_hmdb51_folders_and_splits_that_are_none(tmp_path) -> None:
    layout = hmdb51_files(tmp_path)
    with pytest.raises(ValueError, match="no split 4; choose 1, 2 or 3"):
        hmdb51.read(layout.annotations, 4, Report())
    with pytest.raises(ValueError, match="holds no split files such as brush_hair_test_split1"):
        hmdb51.read(layout.videos, 1, Report())


# UCF101


@pytest.mark.parametrize("split", [1, 2, 3])
def test_ucf101_numbers_are_those_of_class_ind(split, tmp_path) -> None:
    layout = ucf101_files(tmp_path, split=split)
    report = Report()
    read = ucf101.read(layout.annotations, split, report)
    assert read_samples(read) == keyed(layout.samples)
    names = list(read.label_names)
    assert (read.dataset, names) == ("ucf101", layouts.ucf101_names())
    assert (names.index("Hammering"), names.index("HammerThrow")) == (34, 35)
    assert not report.problems and set(report.missing) == {"official counts"}
    groups = {side: {entry.group for entry in read.splits[side]} for side in ("train", "test")}
    assert "HandstandPushups/g22" in groups["train"]
    assert not groups["train"] & groups["test"]


@needs_labels
@pytest.mark.parametrize("split", [1, 2, 3])
def test_ucf101_official_lists_hold_what_is_expected(split) -> None:
    report = Report()
    read = ucf101.read(LABELS / "ucf101_splits", split, report)
    assert report == Report()
    assert {side: len(entries) for side, entries in read.splits.items()} == read.expected
    for side, entries in read.splits.items():
        text = (LABELS / "ucf101_splits" / f"{side}list{split:02d}.txt").read_text("utf-8")
        assert [f"{entry.key}.avi" for entry in entries] == [
            line.split()[0] for line in text.splitlines()
        ]
    groups = [{entry.group for entry in side} for side in read.splits.values()]
    assert not groups[0] & groups[1]


def test_ucf101_bad_lines_are_told_and_the_rest_goes_on(tmp_path) -> None:
    layout = ucf101_files(tmp_path)
    good = "YoYo/v_YoYo_g08_c01.avi 101"
    layouts.write_crlf(
        layout.annotations / "trainlist01.txt",
        [
            good,
            good,
            "YoYo/v_YoYo_g08_c02.avi 100",
            "YoYo/v_YoYo_g08_c03.avi",
            "v_YoYo_g08_c04.avi 101",
            "Yoyo/v_YoYo_g08_c05.avi 101",
            "YoYo/v_Archery_g08_c06.avi 101",
            "",
            "YoYo/v_YoYo_g08_c07.avi 101",
        ],
    )
    report = Report()
    read = ucf101.read(layout.annotations, 1, report)
    assert [entry.key for entry in read.splits["train"]] == [
        "YoYo/v_YoYo_g08_c01",
        "YoYo/v_YoYo_g08_c07",
    ]
    told = {
        title: [line.split(": ")[0] for line in lines] for title, lines in report.problems.items()
    }
    assert told == {
        "duplicate lines": ["trainlist01.txt:2"],
        "numbers of another class": ["trainlist01.txt:3"],
        "unusable lines": ["trainlist01.txt:4", "trainlist01.txt:5"],
        "unknown classes": ["trainlist01.txt:6"],
        "names of another class": ["trainlist01.txt:7"],
    }
    assert "has 100, but YoYo is 101" in report.problems["numbers of another class"][0]
    assert "did you mean YoYo" in report.problems["unknown classes"][0]


@pytest.mark.parametrize("name", ["classInd.txt", "trainlist02.txt", "testlist02.txt"])
def test_ucf101_missing_file(name, tmp_path) -> None:
    layout = ucf101_files(tmp_path)
    (layout.annotations / name).unlink()
    with pytest.raises(ValueError, match=rf"cannot read .*{name}"):
        ucf101.read(layout.annotations, 2, Report())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["0 A", "1 B"], r"without gaps, got 2 of 0\.\.1"),
        (["1 A", "3 B"], "without gaps"),
        (["1 A", "1 B"], r"classInd.txt:2: '1 B' is there twice"),
        (["1 A", "2 A"], "twice"),
        (["A 1"], "expected 'NUMBER CLASS'"),
        ([], "without gaps"),
    ],
)
def test_ucf101_class_numbers_that_cannot_be_used(rows, message, tmp_path) -> None:
    layout = ucf101_files(tmp_path)
    layouts.write_crlf(layout.annotations / "classInd.txt", rows)
    with pytest.raises(ValueError, match=message):
        ucf101.read(layout.annotations, 1, Report())


def test_ucf101_has_three_splits_and_101_classes(tmp_path) -> None:
    layout = ucf101_files(tmp_path)
    with pytest.raises(ValueError, match="no split 0"):
        ucf101.read(layout.annotations, 0, Report())
    rows = [f"{i} {name}" for i, name in enumerate([*layouts.ucf101_names(), "Zoo"], start=1)]
    layouts.write_crlf(layout.annotations / "classInd.txt", rows)
    report = Report()
    ucf101.read(layout.annotations, 1, report)
    assert report.problems["official counts"] == ["classInd.txt names 102 classes, officially 101"]


# Kinetics


@pytest.mark.parametrize("is_cc", [True, False])
@pytest.mark.parametrize("named", ["clip", "id"])
def test_kinetics_by_name_of_the_clip_or_of_the_video(named, is_cc, tmp_path) -> None:
    layout = layouts.kinetics(tmp_path, folders="flat", named=named, is_cc=is_cc)
    by_id = kinetics.named_by_id(path.stem for path in layout.videos.iterdir())
    assert by_id == (named == "id")
    report = Report()
    read = kinetics.read(layout.annotations, report, by_id=by_id)
    assert read_samples(read) == keyed(layout.samples)
    assert read.expected == {"train": 7, "val": 3}
    assert (read.dataset, len(read.label_names)) == ("kinetics400", 400)
    assert not report.problems
    entry = read.splits["train"][0]
    assert (entry.group, entry.source) == ("-0jyTTbWGGM", "train.csv:2")
    assert len(report.missing["classes of Kinetics-400 without a line"]) == 397


def test_kinetics_one_csv_alone(tmp_path) -> None:
    layout = layouts.kinetics(tmp_path, with_videos=False)
    read = kinetics.read(layout.annotations / "validate.csv", Report())
    assert read_samples(read) == {
        "val": [(path.split("/")[1], label) for path, label in keyed(layout.samples)["val"]]
    }


@pytest.mark.parametrize("labelled", [True, False])
def test_kinetics_test_lines_are_in_no_list(labelled, tmp_path) -> None:
    layout = layouts.kinetics(tmp_path, with_videos=False)
    if not labelled:
        (layout.annotations / "test.csv").write_text(
            "youtube_id,time_start,time_end,split\ntttttttttt1,8,18,test\n", encoding="utf-8"
        )
    report = Report()
    read = kinetics.read(layout.annotations, report)
    assert set(read.splits) == {"train", "val"}
    assert read.unlisted == ("tttttttttt1_000008_000018",)
    assert report.notes["in no list"] == [
        "1 test videos: published results are on the validation list"
    ]


def test_kinetics_bad_lines_are_told_and_the_rest_goes_on(tmp_path) -> None:
    path = tmp_path / "train.csv"
    rows = [
        "label,youtube_id,time_start,time_end,split,is_cc",
        '"air drumming",_dbcJuKJQNs,40.0,50.0,train,0',
        "air drumming,_dbcJuKJQNs,40,50,train,0",
        "air drumming,too-short,40,50,train,0",
        "air drumming,aaaaaaaaaaa,forty,50,train,0",
        "air drumming,bbbbbbbbbbb,40,50,holdout,0",
        ",ccccccccccc,40,50,train,0",
        "air drumming,ddddddddddd",
        "",
        "abseiling,eeeeeeeeeee,1,11,val,1",
    ]
    path.write_text("\r\n".join(rows), encoding="utf-8-sig")
    report = Report()
    read = kinetics.read(tmp_path, report)
    assert read_samples(read) == {
        "train": [("_dbcJuKJQNs_000040_000050", 1)],
        "val": [("eeeeeeeeeee_000001_000011", 0)],
    }
    lines = [line.split(": ")[0] for line in report.problems["unusable lines"]]
    assert lines == [f"train.csv:{i}" for i in range(4, 9)]
    (twice,) = report.problems["duplicate lines"]
    assert twice.startswith("train.csv:3:") and "train.csv:2" in twice


def write_classes(path: Path, names: list[str]) -> None:
    rows = [f'"{name}",{i:011d},0,10,train\n' for i, name in enumerate(names)]
    text = "label,youtube_id,time_start,time_end,split\n" + "".join(rows)
    path.write_text(text, encoding="utf-8")


def test_kinetics_400_names_of_which_one_is_misspelt(tmp_path) -> None:
    names = read_label_names(layouts.DATA_LISTS / "kinetics400" / "labels.txt")
    write_classes(tmp_path / "train.csv", [*names[1:], "abseilling"])
    report = Report()
    read = kinetics.read(tmp_path, report)
    assert read.dataset == "custom"
    (line,) = report.problems["class names"]
    assert line.startswith("'abseilling' is no class of Kinetics-400; did you mean abseiling")


def test_kinetics_all_400_names(tmp_path) -> None:
    names = read_label_names(layouts.DATA_LISTS / "kinetics400" / "labels.txt")
    write_classes(tmp_path / "train.csv", names[::-1])
    report = Report()
    read = kinetics.read(tmp_path, report)
    assert (read.dataset, list(read.label_names)) == ("kinetics400", names)
    assert [entry.label for entry in read.splits["train"]] == list(range(400))[::-1]
    assert report == Report()


def test_kinetics_with_other_classes_is_custom(tmp_path) -> None:
    """As of Kinetics-600 and -700."""
    write_classes(tmp_path / "train.csv", ["zumba", "abseiling", "acting in play"])
    report = Report()
    read = kinetics.read(tmp_path, report)
    assert read.dataset == "custom"
    assert read.label_names == ("abseiling", "acting in play", "zumba")
    assert [entry.label for entry in read.splits["train"]] == [2, 0, 1]
    assert "3 classes" in report.notes["data set"][0] and not report.problems


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,label\na.mp4,1\n", r"no column youtube_id, time_start, time_end, split"),
        (b"", "no column"),
        (
            b"youtube_id,time_start,time_end,split\na_b-c_d-e_f,0,10,test\n",
            "no training or validation line",
        ),
        (b"label\xff\xfe", "cannot read .*train.csv"),
    ],
)
def test_kinetics_files_that_are_something_else(content, message, tmp_path) -> None:
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        kinetics.read(tmp_path, Report())


def test_kinetics_no_csv_at_all(tmp_path) -> None:
    with pytest.raises(ValueError, match="holds no csv file"):
        kinetics.read(tmp_path, Report())
    with pytest.raises(ValueError, match="cannot read"):
        kinetics.read(tmp_path / "train.csv", Report())
