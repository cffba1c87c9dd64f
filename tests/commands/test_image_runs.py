"""Images in class folders from the first command to the last, as a user calls them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ALONE, ROOT, launch, load_tool
from PIL import Image, ImageDraw

from vidadapt.data import centre_clips
from vidadapt.lists import ListError, Sample, read_list, write_list
from vidadapt.runs.adapters import read_adapter
from vidadapt.serving import AdapterBank
from vidadapt.video import ReadError

REAL = ROOT.parent / "shared" / "real"
CLASSES = ("disc", "ring", "square")
ENDINGS = ("jpg", "png", "webp", "tif", "bmp")


def drawn(shape: str, rng: np.random.Generator) -> Image.Image:
    """A bright shape on a dark ground, at random."""
    image = Image.new("RGB", (60, 44), tuple(rng.integers(0, 70, 3).tolist()))
    x, y, side = (int(v) for v in (*rng.integers(0, 20, 2), rng.integers(16, 24)))
    colour = tuple(rng.integers(160, 255, 3).tolist())
    draw, box = ImageDraw.Draw(image), (x, y, x + side, y + side)
    if shape == "disc":
        draw.ellipse(box, fill=colour)
    elif shape == "ring":
        draw.ellipse(box, outline=colour, width=3)
    else:
        draw.rectangle(box, fill=colour)
    return image


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Class folders of train and test, with files of all kinds."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in {"train": 10, "test": 4}.items():
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                ending = ENDINGS[number % len(ENDINGS)]
                drawn(name, rng).save(root / split / name / f"{number}.{ending}")
    return root


TRAIN = [
    *("--config", "images", "--data.lists", "lists", "--data.num_workers", 0),
    *("--model.backbone", "timm/vit_tiny_patch16_224", "--model.weights", "random"),
    *("--data.crop_size", 32, "--data.resize", 40, "--train.epochs", 2, "--train.batch_size", 6),
    *("--method.name", "linear"),
]


def run(patched: pytest.MonkeyPatch, name: str, *words: object) -> None:
    patched.setattr(sys, "argv", [name, *map(str, words)])
    tool = load_tool(name)
    tool.main(ALONE) if name in ("train", "evaluate") else tool.main(list(map(str, words)))


@pytest.fixture(scope="module")
def home(pictures, tmp_path_factory) -> Path:
    """A folder with lists; and a run, its evaluation and the same from a cache of features."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(home)
        run(patched, "prepare", "imagefolder", pictures, "lists", "--processes", 1)
        run(patched, "train", *TRAIN, "--run_dir", "run")
        cached = ["--run_dir", "cached", "--cache.dir", "cache", "--cache.draws", 2]
        run(patched, "train", *TRAIN, *cached)
        run(patched, "evaluate", "--run_dir", "run", "--out", "scores")
    return home


@pytest.fixture
def here(home, monkeypatch) -> Path:
    monkeypatch.chdir(home)
    return home


def losses(folder: Path) -> list[float]:
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["train_loss"] for line in lines]


def test_class_folders_of_images_become_lists(here, pictures):
    about = json.loads(Path("lists/prepared.json").read_text(encoding="utf-8"))
    assert about["dataset"] == "custom_images"
    samples = read_list("lists/train.txt", pictures, 3)
    assert len(samples) == 30 and {Path(one.path).suffix[1:] for one in samples} == {*ENDINGS}


def test_a_run_from_cached_features_is_the_run(here):
    assert losses(Path("cached")) == pytest.approx(losses(Path("run")), rel=1e-5)


def test_adapter_knows_how_images_become_squares(here):
    adapter = read_adapter(Path("run/last"))
    assert adapter.about["format"] == "vidadapt-adapter-3"
    framing = adapter.plan.framing
    assert (framing.resize, framing.interpolation, framing.fit) == (40, "bicubic", "crop")
    assert adapter.config.data.resize == 40 and adapter.config.data.interpolation == "bicubic"


def test_bank_evaluation_and_prediction_agree(here, pictures, monkeypatch, capsys):
    adapter = read_adapter(Path("run/last"))
    bank = AdapterBank.for_adapter("run/last")
    bank.add("task", "run/last")
    samples = read_list("lists/test.txt", pictures, 3)
    files = [pictures / one.path for one in samples]
    clips = centre_clips(files, adapter.plan, "auto")
    assert clips.shape == (12, 3, 1, 32, 32)
    logits = bank.logits(clips, "task")
    found = json.loads(Path("scores/metrics.json").read_text(encoding="utf-8"))
    right = (logits.argmax(1).numpy() == samples.labels).mean()
    assert found["top1"] == pytest.approx(100 * right) and found["views"] == "1 clips x 1 crops"
    assert (found["resize"], found["num_videos"]) == (40, 12)
    capsys.readouterr()
    run(monkeypatch, "predict", pictures / "test", "--adapter", "run", "--json")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    seen = {}
    for line in lines:
        [said] = line["predictions"].values()
        seen[line["video"]] = said["top"][0]["label"]
    expected = {str(f): k for f, k in zip(files, logits.argmax(1).tolist(), strict=True)}
    assert seen == expected


def test_pages_show_images(here, monkeypatch):
    run(monkeypatch, "report", "run", "--out", "report.html")
    run(monkeypatch, "browse", "lists/train.txt", "--config", "run/config.yaml", "--out", "look")
    assert Path("report.html").stat().st_size and Path("look/index.html").stat().st_size


def test_damaged_images_are_left_out_of_training_and_wrong_in_evaluation(
    pictures, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pictures, "own")
    for broken in ("own/train/disc/0.jpg", "own/test/ring/1.png"):
        content = Path(broken).read_bytes()
        Path(broken).write_bytes(content[: len(content) // 2])
    run_of = [*TRAIN, "--run_dir", "run", "--train.epochs", 1]
    with pytest.raises(SystemExit):
        run(monkeypatch, "prepare", "imagefolder", "own", "lists", "--processes", 1)
    with pytest.raises(ReadError, match=r"own/train/disc/0\.jpg"):
        run(monkeypatch, "train", *run_of)
    run(monkeypatch, "train", *run_of, "--data.max_unreadable", 1)
    run(monkeypatch, "evaluate", "--run_dir", "run", "--out", "scores")
    found = json.loads(Path("scores/metrics.json").read_text(encoding="utf-8"))
    assert found["num_videos"] == 12 and len(found["unreadable"]) == 1


def test_images_among_videos_are_refused_with_their_numbers(tiny_set, here, pictures, tmp_path):
    clip = next(tiny_set.root.glob("*.mp4"))
    names = [line.path for line in read_list("lists/train.txt", pictures, 3)]
    samples = [Sample(str(pictures / name), number % 3) for number, name in enumerate(names)]
    write_list(tmp_path / "mixed.txt", [*samples, Sample(str(clip), 0)])
    write_list(tmp_path / "clips.txt", [Sample(str(clip), 0)])
    with pytest.MonkeyPatch.context() as patched:
        own = ["--data.allow_outside_root", "true", "--run_dir", tmp_path / "run"]
        own += ["--data.label_names", "lists/labels.txt", "--data.root", "."]
        words = [word for word in TRAIN if word not in ("--data.lists", "lists")]
        mixed = ["--data.train_list", tmp_path / "mixed.txt"]
        with pytest.raises(ListError, match=r"30 image\(s\) and 1 video"):
            run(patched, "train", *words, *own, *mixed)
        apart = ["--data.train_list", tmp_path / "images.txt"]
        apart += ["--data.test_list", tmp_path / "clips.txt"]
        write_list(tmp_path / "images.txt", samples)
        with pytest.raises(ListError, match=r"30 image\(s\) and 0 video.*0 image\(s\) and 1 video"):
            run(patched, "train", *words, *own, *apart)


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one(here):
    head = ["--model.head", "linear"]  # BatchNorm sees the images of its process
    launch("train", *TRAIN, *head, "--run_dir", "single")
    launch("train", *TRAIN, *head, "--train.batch_size", 3, "--run_dir", "pair", processes=2)
    assert losses(Path("pair")) == pytest.approx(losses(Path("single")), rel=1e-4)
    launch("evaluate", "--run_dir", "run", "--out", "pairs", processes=2)
    one, two = (json.loads(Path(n, "metrics.json").read_text()) for n in ("scores", "pairs"))
    assert one["top1"] == two["top1"] and one["num_videos"] == two["num_videos"]


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="needs the images and weights of ../shared/real")
def test_a_linear_probe_learns_real_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for split, count in {"train": 20, "test": 10}.items():
        for folder in sorted((REAL / "cifar10" / split).iterdir()):
            (Path("own") / split / folder.name).mkdir(parents=True)
            for file in sorted(folder.iterdir())[:count]:
                (Path("own") / split / folder.name / file.name).symlink_to(file)
    weights = REAL / "vit_small_patch14_dinov2_imgfocus_fp16.safetensors"
    run(monkeypatch, "prepare", "imagefolder", "own", "lists", "--processes", 1)
    run(
        monkeypatch, "train", "--config", "images", "--data.lists", "lists", "--run_dir", "run",
        "--model.backbone", "timm/vit_small_patch14_dinov2", "--model.weights", weights,
        "--method.name", "linear", "--data.crop_size", 112, "--data.resize", 112,
        "--data.train_crop", "none", "--train.batch_size", 20, "--train.epochs", 20,
        "--train.base_lr", 0.05, "--cache.dir", "cache", "--data.num_workers", 0,
    )  # fmt: skip
    lines = Path("run/log.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1])["test_top1"] > 35  # chance is 10
