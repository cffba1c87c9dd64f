"""Official files of Something-Something V2: every quirk of theirs, and what may be wrong."""

from __future__ import annotations

import json
from functools import partial

import layouts
import pytest
from reading import LABELS, keyed, needs_labels, read_samples

from vidadapt.apps.prepare import ssv2
from vidadapt.apps.prepare.report import Report

ssv2_files = partial(layouts.ssv2, with_videos=False)


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
    assert numbers == [f"train.json, record {i}" for i in (4, 5, 6, 7, 8)]
    (twice,) = report.problems["duplicate ids"]
    assert "record 10: 35 is already in train.json, record 9" in twice


def test_ssv2_too_many_videos_or_classes_are_problems(tmp_path) -> None:
    layout = ssv2_files(tmp_path, naming="plain")
    records = [{"id": str(i)} for i in range(27_158)]
    layouts.write_json(layout.annotations / "test.json", records)
    labels = {name: i for i, name in enumerate([*layouts.ssv2_names(), "Another"])}
    layouts.write_json(layout.annotations / "labels.json", labels)
    report = Report()
    ssv2.read(layout.annotations, report)
    test, classes = report.problems["official counts"]
    assert classes == "175 classes are named, officially 174"
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
