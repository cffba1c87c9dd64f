"""`data.lists` stands for a prepared folder; a list's labels must mean the model's classes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import TinySet

from vidadapt.config import DataConfig
from vidadapt.lists import Prepared, known_root, read_prepared, with_lists, write_prepared


@pytest.fixture
def folder(tiny_set: TinySet, tmp_path: Path) -> Path:
    """The tiny set's lists as a prepared folder, apart from the videos."""
    folder = tmp_path / "lists"
    folder.mkdir()
    for path in (*tiny_set.lists.values(), tiny_set.root / "labels.txt"):
        shutil.copy(path, folder)
    lists = {split: f"{split}.txt" for split in ("train", "dev", "test")}
    write_prepared(
        folder,
        Prepared("custom", str(tiny_set.root), lists, "labels.txt", dict.fromkeys(lists, "0"), {}),
    )
    return folder


def options(tiny_set: TinySet, folder: Path, **changes: object) -> list[str]:
    unset = ("root", "train_list", "dev_list", "test_list", "label_names")
    given = {f"data__{key}": None for key in unset} | changes
    return tiny_set.options(**{"data__lists": folder, "train__epochs": 1} | given)


def test_a_prepared_folder_stands_for_lists_names_and_root(tiny_set, folder, tmp_path, run_tool):
    run = tmp_path / "run"
    run_tool("train", "--run_dir", run, *options(tiny_set, folder))
    saved = yaml.safe_load((run / "config.yaml").read_text())["data"]
    assert saved["lists"] is None and saved["root"] == str(tiny_set.root)
    for split in ("train", "dev", "test"):
        assert saved[f"{split}_list"] == str(folder / f"{split}.txt")
    assert (run / "best").is_dir()  # the development list chose it
    run_tool("evaluate", "--run_dir", run, "--data.num_workers", 0)
    about = json.loads((run / "best" / "adapter.json").read_text())
    assert about["label_names"] == ["red", "green", "blue"]
    manifests = json.loads((run / "summary.json").read_text())["manifests"]
    assert about["train_manifest"] == manifests["train"]
    metrics = json.loads(next(run.glob("eval_test_best_*/metrics.json")).read_text())
    assert metrics["manifest"] == manifests["test"] and metrics["list"] == str(folder / "test.txt")
    run_tool("train", "--run_dir", run, *options(tiny_set, folder), "--resume")  # nothing differs


def test_a_root_beside_the_lists_moves_with_them(folder, tmp_path):
    """Copies for fast loading are brought to a machine's own disk so."""
    write_prepared(folder, replace(read_prepared(folder), root="."))
    assert known_root(folder / "train.txt") == folder
    moved = shutil.copytree(folder, tmp_path / "own disk" / "lists")
    shutil.rmtree(folder)
    assert with_lists(DataConfig(lists=str(moved))).root == str(moved)
    assert known_root(moved / "test.txt") == moved


def test_a_folder_without_label_names_gives_none(folder):
    write_prepared(folder, replace(read_prepared(folder), label_names=None))
    assert with_lists(DataConfig(lists=str(folder))).label_names is None


def test_without_a_development_list_nothing_is_chosen(tiny_set, folder):
    write_prepared(folder, replace(read_prepared(folder), lists={"train": "train.txt"}))
    data = with_lists(DataConfig(lists=str(folder)))
    assert (data.dev_list, data.test_list) == (None, None)


def test_a_root_that_is_given_is_kept(folder):
    assert with_lists(DataConfig(lists=str(folder), root="/moved")).root == "/moved"


def test_the_root_of_a_list_is_found_beside_it(tiny_set, folder, tmp_path):
    assert known_root(folder / "train.txt") == tiny_set.root
    assert known_root(tmp_path / "train.txt", folder) == folder
    with pytest.raises(ValueError, match="no folder of videos is known; give --root"):
        known_root(tmp_path / "train.txt")
    with pytest.raises(ValueError, match=r"there is no folder .*gone; give --root"):
        known_root(folder / "train.txt", tmp_path / "gone")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DataConfig(dev_list="dev.txt"), r"stands for data\.dev_list, too: give one or the other"),
        (DataConfig(dataset="ssv2"), r"holds custom, but data\.dataset is ssv2; .*dataset custom"),
    ],
)
def test_contradictions_are_refused(folder, data, message):
    with pytest.raises(ValueError, match=message):
        with_lists(replace(data, lists=str(folder)))


def test_a_folder_that_was_not_prepared_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"holds no prepared\.json; .* written by vidadapt prepare"
    ):
        with_lists(DataConfig(lists=str(tmp_path)))
    (tmp_path / "prepared.json").write_text('{"dataset": "custom"}')
    with pytest.raises(ValueError, match=r"prepared\.json cannot be used: .*prepare the folder"):
        with_lists(DataConfig(lists=str(tmp_path)))


DIFFERENCES = r"(?s)2 of the names in .*labels\.txt differ.*1: 'blue' in the list, 'green' in the"


def test_an_evaluation_on_other_label_names_stops(tiny_set, folder, tmp_path, run_tool):
    run = tmp_path / "run"
    run_tool("train", "--run_dir", run, *options(tiny_set, folder))
    (folder / "labels.txt").write_text("red\nblue\ngreen\n")
    videos = ["--data.root", tiny_set.root, "--data.num_workers", 0]
    plain = tmp_path / "plain.txt"
    shutil.copy(tiny_set.lists["test"], plain)
    for given in (
        ["--data.lists", folder, "--data.num_workers", 0],
        [*videos, "--data.test_list", folder / "test.txt"],
        [*videos, "--data.test_list", plain, "--data.label_names", folder / "labels.txt"],
    ):
        with pytest.raises(ValueError, match=DIFFERENCES):
            run_tool("evaluate", "--adapter", run, "--model.weights", tiny_set.weights, *given)
    with pytest.raises(ValueError, match=DIFFERENCES):  # the run's own folder has changed
        run_tool("evaluate", "--run_dir", run)
    with pytest.raises(ValueError, match=DIFFERENCES):
        run_tool(
            *("evaluate", "--run_dir", run, "--data.test_list", folder / "test.txt"),
            *("--data.label_names", tiny_set.root / "labels.txt"),
        )
    out = tmp_path / "out"
    plain_list = ["--data.test_list", plain, "--out", out]  # no names: nothing to compare
    run_tool(
        *("evaluate", "--adapter", run, "--model.weights", tiny_set.weights, *videos, *plain_list)
    )
    assert (out / "scores.npz").is_file()


def test_training_lists_of_other_label_names_are_refused(tiny_set, folder, tmp_path, run_tool):
    (folder / "labels.txt").write_text("red\nblue\ngreen\n")
    changed = tiny_set.options(data__dev_list=folder / "dev.txt")
    with pytest.raises(ValueError, match=DIFFERENCES):
        run_tool("train", "--run_dir", tmp_path / "run", *changed)
