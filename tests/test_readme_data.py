"""The commands of the README's "Your data in five minutes", run in their order, as they stand."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from apps.prepare import layouts
from conftest import ROOT, load_tool

from vidadapt import models
from vidadapt.apps.synthetic import write_video
from vidadapt.lists import read_list, read_prepared, read_quarantine

pytestmark = pytest.mark.slow  # whole runs, or files that take long

SECTION = "## Your data in five minutes"
# Miniature copies of official sets are not whole; a model and an epoch that CI can afford.
ALSO = {
    "hmdb51": ["--allow_partial"],
    "ssv2": ["--allow_partial"],
    "train": [
        *("--model.backbone", "vit_tiny", "--data.num_workers", "1", "--data.crop_size", "64"),
        *("--train.epochs", "1", "--train.warmup_epochs", "0", "--train.batch_size", "2"),
    ],
    "browse": ["--data.num_workers", "0"],
}


def commands() -> list[list[str]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index(SECTION) :].split("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, flags=re.DOTALL)
    lines = re.sub(r"\\\n\s*", "", "".join(blocks)).splitlines()
    split = [shlex.split(line) for line in lines]
    return [words for words in split if words and words[0] != "source"]


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
    (tmp_path / "testTrainMulti_7030_splits").symlink_to(hmdb51.annotations)
    (tmp_path / "hmdb51_org").symlink_to(hmdb51.videos)
    (tmp_path / "labels").symlink_to(ssv2.annotations)
    (tmp_path / "20bn-something-something-v2").symlink_to(ssv2.videos)
    model, _ = models.build("vit_tiny", num_frames=8, crop_size=64, num_classes=2)
    encoder = {f"encoder.{k}": v for k, v in model.state_dict().items() if "head" not in k}
    torch.save({"model": encoder}, tmp_path / "videomae_pretrain_vit_b.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(words: list[str]) -> None:
    name, *arguments = words[words.index("vidadapt") + 1 :]
    extra = ALSO.get(arguments[0] if name == "prepare" else name, [])
    if words[0] == "torchrun":
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", *words[1:]]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run([*launcher, *extra], check=True, timeout=300, env=environment)
        return
    assert words[0] == "vidadapt"
    try:
        status = load_tool(name).main([*arguments, *extra])
    except SystemExit as exit_:
        status = exit_.code
    assert not status, f"{shlex.join(words)} ended with {status}"


def test_the_commands_of_the_section_run_in_their_order(home: Path) -> None:
    for words in commands():
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
    assert Path("look/index.html").is_file() and Path("look/sheet.png").is_file()
    assert json.loads(Path("runs/mine/summary.json").read_text())["best"] is not None
    assert read_quarantine("lists/mine/train.txt.quarantine.txt") == {}
    for name in mine.lists.values():
        assert len(read_list(Path("fast/mine") / name, "fast/mine", 3)) == len(
            read_list(Path("lists/mine") / name, mine.root, 3)
        )


def test_the_section_shows_every_step() -> None:
    text = " ".join(" ".join(words) for words in commands())
    for step in (
        *("prepare folder", "prepare hmdb51", "prepare ssv2", "prepare frames"),
        *("browse", "check_videos", "train"),
    ):
        assert f"vidadapt {step}" in text
