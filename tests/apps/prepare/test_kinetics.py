"""Kinetics' official files: every quirk of theirs, and what is wrong in copies of them."""

from __future__ import annotations

from pathlib import Path

import layouts
import pytest
from reading import keyed, read_samples

from vidadapt.apps.prepare import kinetics
from vidadapt.apps.prepare.report import Report
from vidadapt.lists import read_label_names


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
