"""Folds of a cross-validation: every video is tested once, by models that never saw its group."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from commands import lines_of, prepare

from vidadapt.lists import ListError, fold_names, group_numbers, read_folds, read_prepared

PEOPLE, CLASSES = ("ann", "ben", "cho", "dee", "eve", "fay"), ("jump", "run", "walk")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Six people, two videos of each action of each, and two videos of nobody."""
    rows = [(f"{c}/{who} {n}.mp4", c, who) for c in CLASSES for who in PEOPLE for n in (0, 1)]
    rows += [("jump/x.mp4", "jump", ""), ("walk/x.mp4", "walk", "")]
    for path, _, _ in rows:
        (tmp_path / "videos" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / path).write_text(path)
    random.Random(0).shuffle(rows)
    lines = ["path,label,group", *(",".join(row) for row in rows)]
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "clips.csv"


def make(table: Path, folds: object, *options: object, name: str = "out"):
    out = table.parent / name
    words = ("--videos", table.parent / "videos", "--folds", folds, *options)
    return prepare("csv", table, out, *words), out


def sides(folder: Path) -> dict[str, set[str]]:
    return {
        split: {path for path, _ in lines_of(folder / file)}
        for split, file in read_prepared(folder).lists.items()
    }


@pytest.mark.parametrize("folds", ["leave-one-group-out", 2, 3, 5])
def test_no_group_is_on_two_sides_of_any_fold_and_every_video_is_tested_once(folds, table) -> None:
    done, out = make(table, folds, "--dev_fraction", "0.25")
    assert done.status == 0, done.told
    videos = read_folds(out)
    group, names = {video.path: video.group for video in videos}, fold_names(videos)
    assert len(videos) == len(group) == 38
    assert {group[f"run/{who} 0.mp4"] for who in PEOPLE} == set(PEOPLE)
    assert len(names) == (8 if folds == "leave-one-group-out" else folds)
    tested: Counter[str] = Counter()
    for name in names:
        found = sides(out / name)
        assert set.union(*found.values()) == group.keys()
        assert sum(map(len, found.values())) == len(group)
        groups = [{group[path] for path in side} for side in found.values()]
        assert len(set.union(*groups)) == sum(map(len, groups)), name
        assert found["test"] == {video.path for video in videos if video.fold == name}
        assert found["dev"] and found["train"]
        tested.update(found["test"])
    assert set(tested.values()) == {1} and tested.keys() == group.keys()
    developed = Counter(g for name in names for g in {group[p] for p in sides(out / name)["dev"]})
    assert len(developed) > 1  # not always the same people


def test_classes_are_spread_over_the_folds(table) -> None:
    _, out = make(table, 3, "--dev_fraction", "0")
    for name in fold_names(read_folds(out)):
        assert "dev" not in sides(out / name)
        of_class = Counter(path.split("/")[0] for path in sides(out / name)["test"])
        assert all(4 <= of_class[label] <= 5 for label in CLASSES), of_class


def test_videos_with_the_same_content_are_one_group(table) -> None:
    videos = table.parent / "videos"
    (videos / "run/ben 1.mp4").write_bytes((videos / "run/eve 0.mp4").read_bytes())
    _, out = make(table, "leave-one-group-out")
    fold = {video.path: video.fold for video in read_folds(out)}
    assert (
        len({fold[f"{c}/{who} {n}.mp4"] for c in CLASSES for who in ("ben", "eve") for n in (0, 1)})
        == 1
    )
    assert len(fold_names(read_folds(out))) == 7


def test_folds_depend_on_the_seed_and_not_on_the_order_of_the_rows(table) -> None:
    _, out = make(table, 3)
    first, *rows = table.read_text().splitlines()
    table.write_text("\n".join([first, *reversed(rows)]))
    _, again = make(table, 3, name="again")
    _, other = make(table, 3, "--seed", 1, name="other")
    of = [{video.path: video.fold for video in read_folds(o)} for o in (out, again, other)]
    assert of[0] == of[1] != of[2]
    for name in ("fold1", "fold2", "fold3"):
        assert sides(out / name) == sides(again / name)
    numbers = group_numbers(read_folds(out))
    assert numbers == group_numbers(read_folds(other)) and set(numbers.values()) == set(range(8))


def test_a_class_that_only_one_group_has_is_told(table) -> None:
    text = table.read_text()
    table.write_text("\n".join([text, *(f"fly/ann {n}.mp4,fly,ann" for n in range(3))]) + "\n")
    (table.parent / "videos" / "fly").mkdir()
    for number in range(3):
        (table.parent / f"videos/fly/ann {number}.mp4").write_text(f"fly {number}")
    done, out = make(table, "leave-one-group-out")
    assert done.status == 1 and "problem: classes that train has not (1)" in done.told
    assert sum((out / n / "report.txt").read_text() != "\n" for n in fold_names(read_folds(out)))


@pytest.mark.parametrize(
    ("folds", "options", "message"),
    [
        (9, (), "8 groups"),
        (3, ("--test_fraction", "0.2"), "--test_fraction"),
        (1, (), "from 2"),
        ("leave-one-out", (), "from 2"),
    ],
)
def test_folds_that_cannot_be(folds, options, message, table, capsys) -> None:
    done, out = make(table, folds, *options)
    assert done.status == 2 and message in done.told + capsys.readouterr().err
    assert not (out / "folds.csv").exists() and not list(out.glob("fold*"))


def test_a_source_with_lists_of_its_own_has_no_folds(table) -> None:
    rows = [
        f"{c}/{who} 0.mp4,{c},{s}"
        for c in CLASSES
        for who, s in zip(PEOPLE, ("train", "test") * 3, strict=True)
    ]
    table.write_text("\n".join(["path,label,split", *rows]) + "\n")
    done, _ = make(table, 2)
    assert done.status == 2 and "test" in done.told


def test_fewer_folds_than_before_never_leave_old_ones_beside_them(table) -> None:
    _, out = make(table, 5)
    done, _ = make(table, 3)
    assert done.status == 2 and "fold4, fold5" in done.told
    assert len(fold_names(read_folds(out))) == 5
    plain = prepare("csv", table, table.parent / "plain", "--videos", table.parent / "videos")
    assert plain.status == 0
    done, _ = make(table, 3, name="plain")
    assert done.status == 2 and "without folds" in done.told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,group\n", ":1: "),
        ("path,label,group,fold\na.mp4,x,g,fold1\n", ":2: "),
        ("path,label,group,fold\na.mp4,0,g,../x\n", ":2: "),
        ("path,label,group,fold\na.mp4,0,g,fold1\na.mp4,0,g,fold2\n", ":3: a.mp4"),
        ("path,label,group,fold\na.mp4,0,g,fold1\n", "two folds"),
    ],
)
def test_a_damaged_folds_csv_is_refused(text, message, tmp_path: Path) -> None:
    with pytest.raises(ListError, match="prepare csv"):
        read_folds(tmp_path)
    (tmp_path / "folds.csv").write_text(text)
    with pytest.raises(ListError, match=message):
        read_folds(tmp_path)
