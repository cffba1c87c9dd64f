"""HMDB51's official files: every quirk of theirs, and what is wrong in copies of them."""

from __future__ import annotations

from functools import partial

import layouts
import pytest
from reading import LABELS, keyed, needs_labels, read_samples

from vidadapt.apps.prepare import hmdb51
from vidadapt.apps.prepare.report import Report

hmdb51_files = partial(layouts.hmdb51, with_videos=False)


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
    assert twice.startswith("sword_test_split1.txt:2:") and "in sword_test_split1.txt:1," in twice
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


def test_hmdb51_folder_without_split_files(tmp_path) -> None:
    layout = hmdb51_files(tmp_path)
    with pytest.raises(ValueError, match="holds no split files such as brush_hair_test_split1"):
        hmdb51.read(layout.videos, 1, Report())
