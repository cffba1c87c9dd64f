"""The README's five commands and those of docs/your_data.md, run in their order, as they stand."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from apps.prepare import layouts
from conftest import load_tool
from pages import called, commands, text

from benchmarks.store_server import Store
from vidadapt import models
from vidadapt.apps.synthetic import write_video
from vidadapt.lists import read_list, read_prepared, read_quarantine

pytestmark = pytest.mark.slow  # whole runs, or files that take long

# Miniature copies of official sets are not whole; a model and an epoch that CI can afford.
ALSO = {
    "hmdb51": ["--allow_partial"],
    "ssv2": ["--allow_partial"],
    "ucf101": ["--allow_partial"],
    "train": [
        *("--model.backbone", "vit_tiny", "--data.num_workers", "1", "--data.crop_size", "64"),
        *("--train.epochs", "1", "--train.warmup_epochs", "null"),
        *("--train.warmup_share", "0.1", "--train.batch_size", "2"),
    ],
    "browse": ["--data.num_workers", "0"],
}


def commands_of(page: str) -> list[list[str]]:
    """List the commands of vidadapt on a page; a benchmark of copies is test_benchmarks.py's."""
    return [words for words in commands(text(page)) if called(words)[0]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the commands name."""
    rng = np.random.default_rng(0)
    for action in ("pour", "stir (slowly)", "#shake"):
        for number in range(8):
            path = tmp_path / "VIDEOS" / action / f"{action} {number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            smooth = rng.integers(90, 160, (10, 3, 4, 3), np.uint8).repeat(32, 1).repeat(32, 2)
            write_video(path, smooth, fps=12)
    hmdb51 = layouts.hmdb51(tmp_path / "hmdb51_download")
    ssv2 = layouts.ssv2(tmp_path / "ssv2_download")
    ucf101 = layouts.ucf101(tmp_path / "ucf101_download")
    kinetics = layouts.kinetics(tmp_path / "kinetics_download")
    for name, folder in {
        "testTrainMulti_7030_splits": hmdb51.annotations,
        "hmdb51_org": hmdb51.videos,
        "labels": ssv2.annotations,
        "20bn-something-something-v2": ssv2.videos,
        "ucfTrainTestlist": ucf101.annotations,
        "UCF-101": ucf101.videos,
        "annotations": kinetics.annotations,
        "k400": kinetics.videos,
    }.items():
        (tmp_path / name).symlink_to(folder)
    videos = sorted((tmp_path / "VIDEOS").rglob("*.mp4"))
    rows = [f"{path.relative_to(tmp_path / 'VIDEOS')},{path.parent.name}\n" for path in videos]
    (tmp_path / "videos.csv").write_text("".join(["path,label\n", *rows]), encoding="utf-8")
    rows = ["path,label,start,end\n"]
    for number in range(12):
        path = tmp_path / "FILMS" / f"P{number:02d}.mp4"
        path.parent.mkdir(exist_ok=True)
        smooth = rng.integers(90, 160, (36, 3, 4, 3), np.uint8).repeat(32, 1).repeat(32, 2)
        write_video(path, smooth, fps=12)
        rows += [f"{path.name},open,0.25,1.5\n", f"{path.name},close,1.5,00:00:02.75\n"]
    (tmp_path / "segments.csv").write_text("".join(rows), encoding="utf-8")
    model, _ = models.build("vit_tiny", num_frames=8, crop_size=64, num_classes=2)
    encoder = {f"encoder.{k}": v for k, v in model.state_dict().items() if "head" not in k}
    torch.save({"model": encoder}, tmp_path / "videomae_pretrain_vit_b.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(words: list[str]) -> None:
    name, arguments = called(words)
    extra = ALSO.get(arguments[0] if name == "prepare" else name, [])
    if name in ("train", "evaluate"):  # which start processes, or are some themselves
        launcher = ["-m", *words]
        if words[0] == "torchrun":
            launcher = ["-m", "torch.distributed.run", "--standalone", *words[1:]]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, *launcher, *extra]
        subprocess.run(command, check=True, timeout=300, env=environment)
        return
    assert words[0] == "vidadapt"
    try:
        status = load_tool(name).main([*arguments, *extra])
    except SystemExit as exit_:
        status = exit_.code
    assert not status, f"{shlex.join(words)} ended with {status}"


def test_the_commands_of_the_readme_run_in_their_order(home: Path) -> None:
    for words in commands_of("README.md"):
        run(words)
    assert json.loads(Path("runs/mine/summary.json").read_text())["best"] is not None
    [results] = Path("runs/mine").glob("eval_test_best_*/metrics.json")
    assert json.loads(results.read_text())["num_videos"] > 0
    assert list(Path().glob("seen*.png"))


def test_the_commands_of_the_page_run_in_their_order(home: Path, store: Store) -> None:
    (store.folder / "bucket" / "videos").symlink_to(home / "VIDEOS")
    for words in commands_of("docs/your_data.md"):
        run(words)
    mine = read_prepared("lists/mine")
    assert set(mine.lists) == {"train", "dev", "test"}
    listed = [
        sample.path
        for name in mine.lists.values()
        for sample in read_list(Path("lists/mine") / name, mine.root, 3)
    ]
    assert len(set(listed)) == len(listed) == 24
    for split in ("split1", "split2", "split3"):
        assert read_prepared(Path("lists/hmdb51") / split).dataset == "hmdb51"
    assert read_prepared("lists/ssv2").lists["test"] == "val.txt"
    assert read_prepared("lists/ucf101").dataset == "ucf101"
    assert read_prepared("lists/k400").dataset == "kinetics400"
    assert set(read_prepared("lists/table").lists) == {"train", "dev", "test"}
    assert Path("look/index.html").is_file() and Path("look/sheet.png").is_file()
    assert json.loads(Path("runs/mine/summary.json").read_text())["best"] is not None
    assert read_quarantine("lists/mine/train.txt.quarantine.txt") == {}
    for name in mine.lists.values():
        assert len(read_list(Path("fast/mine") / name, "fast/mine", 3)) == len(
            read_list(Path("lists/mine") / name, mine.root, 3)
        )


def test_the_pages_show_every_step() -> None:
    shown = " ".join(" ".join(words) for words in commands_of("docs/your_data.md"))
    for step in (
        *("prepare folder", "prepare hmdb51", "prepare ssv2", "prepare ucf101", "prepare kinetics"),
        *("prepare csv", "prepare index", "prepare frames", "browse", "check_videos", "train"),
    ):
        assert f"vidadapt {step}" in shown
    assert [called(words)[0] for words in commands_of("README.md")] == [
        *("prepare", "train", "evaluate", "predict")
    ]
