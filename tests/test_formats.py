"""docs/formats.md has exactly the keys of the files that a real run leaves."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ALONE, load_tool
from pages import keys_of, text

from vidadapt.config import yaml_files
from vidadapt.data import SKIPPED
from vidadapt.models import NonFinite

PAGE = text("docs/formats.md")


@pytest.fixture(scope="module")
def home(tiny_set, tmp_path_factory) -> Path:
    """A folder with a run from cached features, its evaluation, lists, a check and copies."""
    home = tmp_path_factory.mktemp("formats")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(home)
        for name, words in {
            "train": ["--method.name", "linear", "--cache.dir", "cache", *tiny_set.options()],
            "evaluate": [],
        }.items():
            patched.setattr(sys, "argv", [name, "--run_dir", "run", *words])
            load_tool(name).main(ALONE)
        for number, path in enumerate(sorted(tiny_set.root.glob("*.mp4"))):
            folder = home / "videos" / f"class {number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder)
        load_tool("prepare").main(["folder", "videos", "lists"])
        load_tool("check_videos").main(["lists/dev.txt"])
        words = ["lists/test.txt", "--adapter", "run", "--out", "features", "--knn"]
        patched.setattr(sys, "argv", ["features", *words])
        load_tool("features").main(ALONE)
        load_tool("prepare").main(
            ["transcode", "lists/dev.txt", "--out", "fast", "--min_psnr", "5"]
        )
    return home


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("heading", "file"),
    [
        ("environment.json", "run/environment.json"),
        ("summary.json", "run/summary.json"),
        ("adapter.json", "run/best/adapter.json"),
        ("metrics.json", "run/eval_test_best_2x3/metrics.json"),
        ("prepared.json", "lists/prepared.json"),
        ("features.json", "features/features.json"),
        ("Feature cache", "cache/*/key.json"),
    ],
)
def test_keys_of_json_files(home, heading, file):
    found = sorted(home.glob(file))
    assert found, sorted(str(path.relative_to(home)) for path in home.rglob("*.json"))
    for path in found:
        assert list(read_json(path)) == keys_of(PAGE, heading)


def test_keys_of_a_grid(tiny_set, tmp_path, run_tool):
    options = [*tiny_set.options(train__epochs=1), "--method.name", "linear"]
    run_tool("train", *options, "--grid.base_lr", "[0.1,1]", "--run_dir", tmp_path / "grid")
    found = read_json(tmp_path / "grid" / "grid.json")
    assert list(found) == keys_of(PAGE, "grid.json")
    [line] = [one for one in PAGE.splitlines() if one.startswith("| `runs` |")]
    assert all(list(one) == line.split("`")[3::2] for one in found["runs"])


@pytest.mark.parametrize("file", ["log.jsonl", "steps.jsonl"])
def test_keys_of_logs(home, file):
    lines = (home / "run" / file).read_text(encoding="utf-8").splitlines()
    assert lines
    for line in lines:
        assert list(json.loads(line)) == keys_of(PAGE, file)


def test_keys_of_the_configuration(home):
    written = yaml_files.read_yaml(home / "run" / "config.yaml", "config.yaml")
    assert set(written) == set(keys_of(PAGE, "config.yaml"))


@pytest.mark.parametrize(
    ("heading", "file"),
    [("check.csv", "lists/dev.txt.check.csv"), ("copies.csv", "fast/copies.csv")],
)
def test_columns_of_tables(home, heading, file):
    with (home / file).open(newline="", encoding="utf-8") as table:
        header, *rows = csv.reader(table)
    assert rows and header == keys_of(PAGE, heading)


def test_arrays_of_scores(home):
    with np.load(home / "run" / "eval_test_best_2x3" / "scores.npz") as scores:
        assert scores.files == keys_of(PAGE, "scores.npz")
        said = PAGE.split("\n## scores.npz\n")[1].split("\n## ")[0]
        for name in scores.files:
            [line] = [one for one in said.splitlines() if one.startswith(f"| `{name}` |")]
            assert (
                scores[name].ndim
                == {"()": 0, "(N V,)": 1, "(N V, K)": 2}[
                    line.split("|")[2].partition(", ")[2].strip()
                ]
            )


def test_files_of_the_folders(home):
    run = PAGE.split("\n## The run folder\n")[1].split("```")[1]
    assert {path.name for path in (home / "run").iterdir() if path.is_file()} <= set(run.split())
    for name in ("last", "best"):
        said = set(keys_of(PAGE, "Checkpoints")) - ({"trainer.pt"} if name == "best" else set())
        assert {path.name for path in (home / "run" / name).iterdir()} == said
    saved = torch.load(home / "run" / "last" / "trainer.pt", weights_only=True)
    [line] = [one for one in PAGE.splitlines() if one.startswith("| `trainer.pt` |")]
    assert all(f"`{key}`" in line for key in saved) and len(saved) == line.count("`") / 2 - 1


def test_keys_of_what_a_failed_run_leaves(tiny_set, tmp_path, run_tool):
    videos = tmp_path / "videos"
    shutil.copytree(tiny_set.root, videos)
    options = tiny_set.options(data__root=videos, data__max_skipped=2, data__dev_list=None)
    with pytest.raises(NonFinite):
        run_tool("train", *options, "--train.base_lr", 1e38, "--run_dir", tmp_path / "nan")
    assert list(read_json(tmp_path / "nan" / "failure.json")) == keys_of(PAGE, "failure.json")
    broken = videos / "train 3 [x]#.mp4"
    facts = broken.stat()  # the index knows the file by its size and time: counted as whole
    broken.write_bytes(bytes(facts.st_size))
    os.utime(broken, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    run_tool("train", *options, "--run_dir", tmp_path / "skipped")
    [line, *_] = (tmp_path / "skipped" / SKIPPED).read_text(encoding="utf-8").splitlines()
    assert list(json.loads(line)) == keys_of(PAGE, "skipped.jsonl")
