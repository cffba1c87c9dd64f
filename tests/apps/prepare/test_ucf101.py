"""UCF101's official files: every quirk of theirs, and what is wrong in copies of them."""

from __future__ import annotations

from functools import partial

import layouts
import pytest
from reading import LABELS, keyed, needs_labels, read_samples

from vidadapt.apps.prepare import ucf101
from vidadapt.apps.prepare.report import Report

ucf101_files = partial(layouts.ucf101, with_videos=False)


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


def test_ucf101_has_101_classes(tmp_path) -> None:
    layout = ucf101_files(tmp_path)
    rows = [f"{i} {name}" for i, name in enumerate([*layouts.ucf101_names(), "Zoo"], start=1)]
    layouts.write_crlf(layout.annotations / "classInd.txt", rows)
    report = Report()
    ucf101.read(layout.annotations, 1, report)
    assert report.problems["official counts"] == ["102 classes are named, officially 101"]
