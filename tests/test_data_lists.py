"""data_lists/: as its README says, and as the official files say where they are at hand."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from vidadapt.apps.prepare import hmdb51, ucf101
from vidadapt.apps.prepare.report import Report
from vidadapt.data import DATASETS
from vidadapt.lists import Sample, read_label_names, read_list, write_list

ROOT = Path(__file__).parents[1]
LISTS = ROOT / "data_lists"
LABELS = ROOT.parent / "shared" / "labels"
needs_labels = pytest.mark.skipif(
    not LABELS.is_dir(), reason="needs the official label files of ../shared/labels"
)
ROWS = re.findall(
    r"^\| `(.+)` \| ([\d,]+) (class names|videos).* \| `([0-9a-f]{64})` \|$",
    (LISTS / "README.md").read_text(encoding="utf-8"),
    flags=re.MULTILINE,
)


def test_readme_tells_of_every_file() -> None:
    there = {path.relative_to(LISTS).as_posix() for path in LISTS.rglob("*") if path.is_file()}
    assert {row[0] for row in ROWS} == there - {"README.md"}
    assert len(ROWS) == 15


@pytest.mark.parametrize(("path", "number", "_kind", "digest"), ROWS, ids=[row[0] for row in ROWS])
def test_counts_and_checksums_of_the_readme_hold(path, number, _kind, digest) -> None:
    content = (LISTS / path).read_bytes()
    assert hashlib.sha256(content).hexdigest() == digest
    assert content.count(b"\n") == int(number.replace(",", "")) and content.endswith(b"\n")


@pytest.mark.parametrize("dataset", [name for name, of in DATASETS.items() if of.num_classes])
def test_label_names_fit_their_data_set(dataset: str) -> None:
    assert len(read_label_names(LISTS / dataset / "labels.txt")) == DATASETS[dataset].num_classes


def test_hmdb51_names_are_sorted_and_those_of_the_reader() -> None:
    names = read_label_names(LISTS / "hmdb51" / "labels.txt")
    assert names == sorted(names) == list(hmdb51.CLASSES)


def test_readme_is_right_about_numbers_that_differ_elsewhere() -> None:
    names = read_label_names(LISTS / "hmdb51" / "labels.txt")
    as_archives = sorted(names, key=lambda name: f"{name}.rar".replace("_", "").replace(".", ""))
    moved = {i: name for i, name in enumerate(as_archives) if names[i] != name}
    assert moved == {20: "kick_ball", 21: "kick", 44: "sword_exercise", 45: "sword"}
    official = read_label_names(LISTS / "ucf101" / "labels.txt")
    assert official == sorted(official, key=str.lower) != sorted(official)
    moved = {i: name for i, name in enumerate(official) if sorted(official)[i] != name}
    assert moved == {34: "Hammering", 35: "HammerThrow", 46: "JumpingJack", 47: "JumpRope"}


@pytest.mark.parametrize("split", [1, 2, 3])
def test_hmdb51_lists_are_complete_balanced_and_disjoint(split: int) -> None:
    folder = LISTS / "hmdb51" / f"split{split}"
    names = read_label_names(LISTS / "hmdb51" / "labels.txt")
    videos = {}
    for side, number in (("train", 70), ("test", 30)):
        samples = read_list(folder / f"{side}.txt", "", num_classes=51)
        assert Counter(sample.label for sample in samples) == dict.fromkeys(range(51), number)
        assert all(sample.path.split("/")[0] == names[sample.label] for sample in samples)
        videos[side] = {sample.path for sample in samples}
    assert not videos["train"] & videos["test"]


@needs_labels
@pytest.mark.parametrize("split", [1, 2, 3])
def test_hmdb51_lists_are_what_the_official_split_files_say(split: int, tmp_path: Path) -> None:
    report = Report()
    annotations = hmdb51.read(LABELS / "hmdb51_splits", split, report)
    assert not report.problems and not report.missing
    assert list(annotations.splits) == ["train", "test"]
    for side, entries in annotations.splits.items():
        write_list(tmp_path / "made.txt", [Sample(f"{e.key}.avi", e.label) for e in entries])
        ours = LISTS / "hmdb51" / f"split{split}" / f"{side}.txt"
        assert (tmp_path / "made.txt").read_bytes() == ours.read_bytes()


@needs_labels
@pytest.mark.parametrize("split", [1, 2, 3])
def test_hmdb51_lists_against_a_second_reading_of_the_split_files(split: int) -> None:
    names = sorted(p.name[: -len("_test_split1.txt")] for p in LABELS.rglob("*_test_split1.txt"))
    assert len(names) == 51
    for side, wanted in (("train", "1"), ("test", "2")):
        lines = []
        for label, name in enumerate(names):
            path = LABELS / "hmdb51_splits" / f"{name}_test_split{split}.txt"
            for file, value in (line.split() for line in path.read_text().splitlines()):
                lines += [f"{name}/{file} {label}\n"] if value == wanted else []
        ours = (LISTS / "hmdb51" / f"split{split}" / f"{side}.txt").read_text(encoding="utf-8")
        assert ours == "".join(lines)


@needs_labels
@pytest.mark.parametrize(
    ("split", "films", "videos"), [(1, 133, 457), (2, 149, 527), (3, 144, 529)]
)
def test_readme_is_right_about_films_on_both_sides(split: int, films: int, videos: int) -> None:
    splits = hmdb51.read(LABELS / "hmdb51_splits", split, Report()).splits
    trained = {entry.group for entry in splits["train"]}
    shared = [entry for entry in splits["test"] if entry.group in trained]
    assert (len({entry.group for entry in shared}), len(shared)) == (films, videos)
    in_class = {(entry.label, entry.group) for entry in splits["train"]}
    assert not [entry for entry in splits["test"] if (entry.label, entry.group) in in_class]


@needs_labels
def test_a_class_list_with_other_numbers_is_passed_around() -> None:
    text = (LABELS / "hmdb51_splits" / "class_list.txt").read_text(encoding="utf-8")
    names = read_label_names(LISTS / "hmdb51" / "labels.txt")
    moved = {i: line.strip() for i, line in enumerate(text.split("\n")) if line.strip() != names[i]}
    assert moved == {20: "kick_ball", 21: "kick", 44: "sword_exercise", 45: "sword"}


@needs_labels
def test_label_names_are_the_official_ones() -> None:
    ids = json.loads((LABELS / "something-something-v2-labels.json").read_text(encoding="utf-8"))
    for i, name in enumerate(read_label_names(LISTS / "ssv2" / "labels.txt")):
        assert ids[name] == str(i)
    for dataset, file in (
        ("hmdb51", "hmdb51_classes_sorted.txt"),
        ("kinetics400", "kinetics400_classes.txt"),
    ):
        official = (LABELS / file).read_text(encoding="utf-8").splitlines()
        assert read_label_names(LISTS / dataset / "labels.txt") == official
    official = ucf101.read(LABELS / "ucf101_splits", 1, Report()).label_names
    assert read_label_names(LISTS / "ucf101" / "labels.txt") == list(official)
