"""Training from Python is the train command's, in scripts of any kind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import vidadapt
from vidadapt.config import ConfigError
from vidadapt.lists import LABELS_FILE, Prepared, write_prepared
from vidadapt.runs import RunError

RECIPE = {
    "backbone": "vit_tiny",
    "weights": "random",
    "num_frames": 4,
    "crop_size": 32,
    "epochs": 1,
    "batch_size": 4,
    "base_lr": 0.1,
    "precision": "fp32",
}


@pytest.fixture
def lists(tiny_set, tmp_path) -> Path:
    """The tiny set's lists as a prepared folder."""
    folder = tmp_path / "lists"
    folder.mkdir()
    for split, path in tiny_set.lists.items():
        shutil.copy(path, folder / f"{split}.txt")
    (folder / LABELS_FILE).write_text("red\ngreen\nblue\n")
    files = {split: f"{split}.txt" for split in tiny_set.lists}
    write_prepared(folder, Prepared("custom", str(tiny_set.root), files, LABELS_FILE, {}, {}))
    return folder


def test_of_a_grid_the_best_model_is_returned(lists, tmp_path):
    root = tmp_path / "grid"
    grid = {"grid.base_lr": [1e-9, 1.0], "grid.weight_decay": [0.1]}
    model = vidadapt.finetune(
        lists, "linear", run_dir=root, num_workers=0, overrides=grid, **RECIPE
    )
    best = json.loads((root / "grid.json").read_text())["best"]
    assert best in ("lr1e-09_wd0.1", "lr1_wd0.1")
    again = vidadapt.load(root / best, "random")
    video = lists.parent / "tiny.mp4"
    shutil.copy(
        next(Path(json.loads((lists / "prepared.json").read_text())["root"]).glob("*.mp4")), video
    )
    assert model.predict(video) == again.predict(video)


def test_it_leaves_the_run_that_the_command_leaves(lists, tmp_path, run_tool):
    model = vidadapt.finetune(
        str(lists),
        "lora",
        run_dir=tmp_path / "api",
        rank=2,
        num_workers=0,
        overrides={"train": {"label_smoothing": 0.1}, "eval.num_clips": 1},
        **RECIPE,
    )
    words = [
        "--config",
        "custom",
        "--data.lists",
        lists,
        "--method.name",
        "lora",
        "--method.rank",
        2,
    ]
    words += ["--model.backbone", "vit_tiny", "--model.weights", "random", "--data.num_frames", 4]
    words += ["--data.crop_size", 32, "--data.num_workers", 0, "--train.label_smoothing", 0.1]
    words += ["--eval.num_clips", 1]
    for key in ("epochs", "batch_size", "base_lr", "precision"):
        words += [f"--train.{key}", RECIPE[key]]
    run_tool("train", *words, "--run_dir", tmp_path / "tool")
    ours, theirs = tmp_path / "api", tmp_path / "tool"
    assert {p.name for p in ours.iterdir()} == {p.name for p in theirs.iterdir()}
    configs = [yaml.safe_load((run / "config.yaml").read_text()) for run in (ours, theirs)]
    assert configs[0] | {"run_dir": ""} == configs[1] | {"run_dir": ""}
    for checkpoint in ("best", "last"):
        tensors = [(run / checkpoint / "adapter.safetensors") for run in (ours, theirs)]
        assert tensors[0].read_bytes() == tensors[1].read_bytes()
    assert model.adapter.folder == ours / "best"
    assert model.labels == ("red", "green", "blue")
    with pytest.raises(RunError, match="run_dir"):
        vidadapt.finetune(lists, "lora", run_dir=ours, rank=2, **RECIPE)


def test_a_folder_of_class_folders_is_prepared_first(tiny_set, tmp_path, capsys):
    for label, name in enumerate(("red", "green", "blue")):
        (tmp_path / "videos" / name).mkdir(parents=True)
        for number in range(label, 12, 3):
            shutil.copy(tiny_set.root / f"train {number} [x]#.mp4", tmp_path / "videos" / name)
    run = tmp_path / "run"
    model = vidadapt.finetune(tmp_path / "videos", run_dir=run, num_workers=0, **RECIPE)
    assert "vidadapt train" not in capsys.readouterr().out, "it trains itself"
    assert model.labels == ("blue", "green", "red")
    assert json.loads((run / "summary.json").read_text())["epochs"] == 1
    assert model.evaluate(tmp_path / "run_lists", num_workers=0)["num_videos"] == 3


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"epoch": 3}, ["epoch", "epochs"]),
        ({"bottleneck": "wide"}, ["bottleneck"]),
        ({"overrides": {"train.epoch": 3}}, ["train.epoch"]),
        ({"method": "adaptfomer"}, ["adaptfomer", "adaptformer"]),
        ({"weights": None}, ["model.weights"]),
        ({"epochs": 0}, ["train.epochs"]),
        ({"plugins": ["not_there_at_all"]}, ["not_there_at_all"]),
    ],
    ids=str,
)
def test_a_wrong_key_is_named_before_anything_is_written(lists, tmp_path, keys, words):
    with pytest.raises(ValueError) as caught:
        vidadapt.finetune(lists, run_dir=tmp_path / "run", **{**RECIPE, **keys})
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_videos_that_are_no_folder_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing_here"):
        vidadapt.finetune(tmp_path / "nothing_here", run_dir=tmp_path / "run", **RECIPE)


SCRIPT = """
import vidadapt
print("begins")
model = vidadapt.finetune({lists!r}, run_dir="run", num_workers=2, **{recipe!r})
result = model.evaluate({lists!r}, num_workers=2, num_clips=1, num_crops=1)
seen = model.predict({videos!r}, num_workers=2, num_clips=1, num_crops=1)
print("ends", result["num_videos"], len(seen), any(one.error for one in seen))
"""
EXEC = "exec(compile(open('script.py').read(), '<cell>', 'exec'))"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "given"),
    [(["script.py"], ""), (["-c", "{script}"], ""), (["-"], "{script}"), (["-c", EXEC], "")],
    ids=["file", "command", "stdin", "cell"],
)
def test_it_works_without_a_main_guard(lists, tiny_set, tmp_path, words, given):
    """The processes that read videos do not run the script again."""
    videos = [str(path) for path in sorted(tiny_set.root.glob("test *.mp4"))]
    script = SCRIPT.format(lists=str(lists), recipe=RECIPE, videos=videos)
    (tmp_path / "script.py").write_text(script)
    told = subprocess.run(
        [sys.executable, *(word.replace("{script}", script) for word in words)],
        input=given.replace("{script}", script),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("begins") == 1
    assert told.stdout.splitlines()[-1] == "ends 7 7 False"
