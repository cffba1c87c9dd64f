"""The installed wheel, outside the checkout: from a folder of videos to predictions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vidadapt.apps.synthetic import write_video

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

CLASSES = {"going left": -1, "going right": 1, "resting": 0, "blinking": None}
SMALL = (
    *("--model.backbone", "vit_tiny", "--model.weights", "demo", "--data.crop_size", "64"),
    *("--data.num_frames", "4", "--train.epochs", "2", "--train.precision", "fp32"),
)
IN_PYTHON = """
import vidadapt
assert vidadapt.__file__.startswith({site!r}), vidadapt.__file__
model = vidadapt.load("runs/mine")
print(model.labels)
print(model.predict("VIDEOS/resting/video 3.mp4"))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the last commit."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder / "source")], check=True)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", str(folder), str(folder / "source")], check=True)
    [path] = folder.glob("vidadapt-*.whl")
    return path


def test_the_wheel_holds_what_the_commands_need(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [entry] = [name for name in names if name.endswith("entry_points.txt")]
        assert "vidadapt = vidadapt.cli:main" in archive.read(entry).decode()
    for folder in ("configs", "data_lists"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file():
                assert f"vidadapt/{path.relative_to(ROOT)}" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests", "tools", "benchmarks")) for name in names)


def make_videos(folder: Path) -> None:
    """60 videos of a square on grey, 15 of each class, in a folder for each class."""
    rng = np.random.default_rng(0)
    for name, speed in CLASSES.items():
        for number in range(15):
            frames = np.full((16, 48, 64, 3), 110, np.uint8)
            top = int(rng.integers(8, 28))
            for time in range(16):
                left = 24 + (speed or 0) * 2 * (time - 8)
                if speed is not None or time % 4 < 2:
                    frames[time, top : top + 12, left : left + 12] = (220, 60, 40)
            path = folder / name / f"video {number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, frames, 12)


def test_five_commands_and_the_python_api_outside_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-warn-script-location",
    ]
    subprocess.run([*install, "--target", str(site), str(wheel)], check=True)
    make_videos(tmp_path / "VIDEOS")
    environment = {
        **os.environ,
        **{"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    }

    def run(*words: str) -> str:
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    vidadapt = str(site / "bin" / "vidadapt")
    run(
        *(vidadapt, "prepare", "folder", "VIDEOS", "lists/mine"),
        *("--dev_fraction", "0.2", "--test_fraction", "0.2"),
    )
    training = ("train", "--config", "custom", "--data.lists", "lists/mine", *SMALL)
    run(vidadapt, *training, "--run_dir", "runs/mine")
    run(vidadapt, "evaluate", "--run_dir", "runs/mine")
    [metrics] = tmp_path.glob("runs/mine/eval_test_*/metrics.json")
    assert json.loads(metrics.read_text())["num_videos"] == 12
    run(vidadapt, "report", "runs/mine")
    said = run(vidadapt, "predict", "VIDEOS/going left/video 0.mp4", "--adapter", "runs/mine")
    assert any(name in said for name in CLASSES)
    said = run(sys.executable, "-c", IN_PYTHON.format(site=str(site)))
    assert "resting" in said
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    run(*torchrun, "--nproc-per-node", "2", "-m", "vidadapt", *training, "--run_dir", "runs/two")
    assert (tmp_path / "runs" / "two" / "summary.json").is_file()
