"""Runs that moved, or are evaluated from elsewhere or on other lists; options of other methods."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import ALONE, ROOT, load_tool

from vidadapt import methods
from vidadapt.config import command_line
from vidadapt.lists import LABELS_FILE, Prepared, read_prepared, write_prepared
from vidadapt.serving import trained


def prepare(folder: Path, tiny_set, names: str = "red\ngreen\nblue\n") -> Path:
    """The tiny set's lists as vidadapt prepare leaves them, apart from the videos."""
    folder.mkdir(parents=True)
    for split, path in tiny_set.lists.items():
        shutil.copy(path, folder / f"{split}.txt")
    (folder / LABELS_FILE).write_text(names)
    lists = {split: f"{split}.txt" for split in tiny_set.lists}
    root = str(tiny_set.root)
    write_prepared(folder, Prepared("custom", root, lists, LABELS_FILE, {}, {"command": "folder"}))
    return folder


@pytest.fixture(scope="module")
def home(tiny_set, tmp_path_factory) -> Path:
    """Where a run was trained by relative paths: lists/mine, weights and runs/mine."""
    home = tmp_path_factory.mktemp("home")
    prepare(home / "lists" / "mine", tiny_set)
    shutil.copy(tiny_set.weights, home / "weights.safetensors")
    options = tiny_set.options(
        data__root=None, data__train_list=None, data__dev_list=None, data__test_list=None,
        data__label_names=None, data__lists="lists/mine", model__weights="weights.safetensors",
        train__epochs=1,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr("sys.argv", ["train.py", *options, "--run_dir", "runs/mine"])
        load_tool("train").main(ALONE)
    return home


def metrics_of(out: Path) -> dict:
    found = json.loads((out / "metrics.json").read_text())
    return {key: found[key] for key in ("top1", "loss", "num_videos", "manifest", "label_names")}


VIEWS = ["--eval.num_clips", "1", "--eval.num_crops", "1"]


def test_a_run_is_evaluated_from_any_working_directory_and_without_its_label_file(
    home, run_tool, tmp_path, monkeypatch
):
    monkeypatch.chdir(home)
    run_tool("evaluate", "--run_dir", "runs/mine", *VIEWS, "--out", tmp_path / "at_home")
    wanted = metrics_of(tmp_path / "at_home")
    moved = tmp_path / "elsewhere" / "run"
    shutil.copytree(home / "runs" / "mine", moved)
    monkeypatch.chdir(tmp_path)
    labels = home / "lists" / "mine" / LABELS_FILE
    kept = labels.read_text()
    labels.unlink()
    try:
        run_tool("evaluate", "--run_dir", moved, *VIEWS, "--out", tmp_path / "away")
    finally:
        labels.write_text(kept)
    assert metrics_of(tmp_path / "away") == wanted


def test_one_option_gives_all_lists_anew(home, tiny_set, run_tool, tmp_path, monkeypatch):
    """Where nothing lies any more where it was at the training."""
    monkeypatch.chdir(home)
    run_tool("evaluate", "--run_dir", "runs/mine", *VIEWS, "--out", tmp_path / "at_home")
    moved = tmp_path / "run"
    shutil.copytree(home / "runs" / "mine", moved)
    environment = json.loads((moved / "environment.json").read_text())
    environment["working_directory"] = str(tmp_path / "gone")
    (moved / "environment.json").write_text(json.dumps(environment))
    config = (moved / "config.yaml").read_text()
    assert "lists/mine/test.txt" in config
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"data\.test_list: lists/mine/test\.txt .*--data\.lists"):
        run_tool("evaluate", "--run_dir", moved, *VIEWS)
    other = prepare(tmp_path / "other", tiny_set)
    run_tool(
        "evaluate", "--run_dir", moved, *VIEWS, "--data.lists", other,
        "--model.weights", tiny_set.weights, "--out", tmp_path / "away",
    )  # fmt: skip
    assert metrics_of(tmp_path / "away") == metrics_of(tmp_path / "at_home")


def test_lists_of_other_classes_are_refused(home, tiny_set, run_tool, tmp_path, monkeypatch):
    monkeypatch.chdir(home)
    other = prepare(tmp_path / "other", tiny_set, "red\nlime\nblue\n")
    with pytest.raises(ValueError, match="'lime' in the list, 'green' in the model"):
        run_tool("evaluate", "--run_dir", "runs/mine", *VIEWS, "--data.lists", other)


def test_what_is_typed_stays_as_it_is(home, monkeypatch, tmp_path):
    """From another directory a typed path is not looked for where the run was trained."""
    monkeypatch.chdir(tmp_path)
    words = ["--run_dir", str(home / "runs" / "mine"), "--data.test_list", "lists/mine/test.txt"]
    cfg, options, _ = trained.asked(words)
    assert cfg is not None and cfg.data.test_list == "lists/mine/test.txt"
    assert cfg.data.dev_list == str(home / "lists" / "mine" / "dev.txt")
    with pytest.raises(ValueError, match=r"data\.test_list: lists/mine/test\.txt"):
        trained.find(cfg, options, None)


def test_a_list_in_the_place_of_its_folder_is_named(home):
    with pytest.raises(ValueError, match=r"train\.txt is a file; give the folder .*mine$"):
        read_prepared(home / "lists" / "mine" / "train.txt")


# --- a backbone of random weights -------------------------------------------------------------


@pytest.mark.parametrize("method", ["adaptformer", "full"])
def test_a_random_backbone_must_be_asked_for_and_is_found_again(
    method, tiny_set, run_tool, tmp_path, capsys, monkeypatch
):
    (tmp_path / "random").mkdir()  # no place of weights
    monkeypatch.chdir(tmp_path)
    options = tiny_set.options(model__weights=None, method__name=method, train__epochs=1)
    with pytest.raises(ValueError, match=r"model\.weights.*--model\.weights random"):
        run_tool("train", *options, "--run_dir", tmp_path / "run")
    assert not (tmp_path / "run" / "last").exists()
    options += ["--model.weights", "random", "--train.base_lr", "0.01"]
    run_tool("train", *options, "--run_dir", tmp_path / "run", "--train.seed", 3)
    assert "RANDOM WEIGHTS" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path / "run")
    torch.manual_seed(77)
    run_tool("evaluate", "--run_dir", tmp_path / "run", *VIEWS, "--out", tmp_path / "a")
    videos = ["--data.root", tiny_set.root, "--data.test_list", tiny_set.lists["test"]]
    adapter = ["--adapter", tmp_path / "run", "--data.num_workers", 0, *videos]
    run_tool("evaluate", *adapter, *VIEWS, "--out", tmp_path / "b")
    assert metrics_of(tmp_path / "a") == metrics_of(tmp_path / "b")


# --- another method than that of a configuration file ---------------------------------------------

FILE = str(ROOT / "configs" / "hmdb51" / "adaptformer.yaml")


@pytest.mark.parametrize("given", [["--config", FILE], [f"--config={FILE}"]])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("method", ["linear", "st_adapter"])
def test_options_of_another_method_stay_behind_and_are_named(given, first, method):
    asked = ["--method.name", method]
    words = [*asked, *given] if first else [*given, *asked]
    cfg, options = command_line.parse_train([*words, "--run_dir", "x"], methods.METHODS)
    assert cfg.method == {"name": method, **methods.default_options(method)}
    assert cfg.data.dataset == "hmdb51" and cfg.train.base_lr == 0.1  # the rest of the file holds
    [line] = options.dropped
    for word in (FILE, "method.bottleneck", "method.scale", "method.layers", method):
        assert word in line


def test_options_that_were_typed_stay_an_error():
    words = ["--config", FILE, "--method.name", "linear", "--method.bottleneck", "8"]
    with pytest.raises(ValueError, match=r"method\.bottleneck"):
        command_line.parse_train([*words, "--run_dir", "x"], methods.METHODS)


def test_a_later_file_may_name_another_method(tmp_path):
    (tmp_path / "own.yaml").write_text("method: {name: lora}\ntrain: {base_lr: 5e-4}\n")
    words = ["--config", FILE, "--config", str(tmp_path / "own.yaml"), "--run_dir", "x"]
    cfg, options = command_line.parse_train(words, methods.METHODS)
    assert cfg.method == {"name": "lora", **methods.default_options("lora")}
    assert cfg.train.base_lr == 5e-4 and len(options.dropped) == 1


def test_the_method_of_the_file_keeps_its_options():
    cfg, options = command_line.parse_train(["--config", FILE, "--run_dir", "x"], methods.METHODS)
    assert cfg.method["bottleneck"] == 64 and options.dropped == ()
