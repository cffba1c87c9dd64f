"""Official sets of images become lists; other files are refused before they are opened."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, load_tool
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import CIFAR100, SVHN

from vidadapt.apps.prepare import image_sets
from vidadapt.lists import read_label_names, read_list, read_prepared

NAMES = read_label_names(ROOT / "data_lists" / "cifar100" / "labels.txt")
SIZES = {"train": 300, "test": 100}


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Files in the official layout, with fewer images, whose sums count as the published ones."""
    folder, rng, pixels = tmp_path / "download" / "cifar-100-python", np.random.default_rng(0), {}
    folder.mkdir(parents=True)
    sums = {}
    for split, count in SIZES.items():
        pixels[split] = rng.integers(0, 255, (count, 3072), np.uint8)
        labels = [number * 7 % 100 for number in range(count)]
        content = {"data": pixels[split], "fine_labels": labels}
        (folder / split).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": NAMES}))
    for name in (*SIZES, "meta"):
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": sums["meta"]})
    return pixels


def prepare(home: Path, *options: str) -> None:
    words = ["cifar100", "--annotations", home / "download", "--videos", home / "png"]
    load_tool("prepare").main([*map(str, words), *options, str(home / "lists"), "--processes", "1"])


def test_images_have_the_official_pixels_and_labels(official, tmp_path):
    prepare(tmp_path, "--allow_partial")  # of 50,000
    prepared = read_prepared(tmp_path / "lists")
    assert prepared.dataset == "cifar100"
    assert read_label_names(tmp_path / "lists" / "labels.txt") == NAMES
    for split, count in SIZES.items():
        samples = read_list(tmp_path / "lists" / f"{split}.txt", tmp_path / "png", 100)
        assert len(samples) == count
        for sample in samples:
            number = int(Path(sample.path).stem)
            assert sample.label == number * 7 % 100
            expected = official[split][number].reshape(3, 32, 32).transpose(1, 2, 0)
            assert np.array_equal(np.asarray(Image.open(tmp_path / "png" / sample.path)), expected)


def test_a_partial_set_is_said_to_be_partial(official, tmp_path):
    with pytest.raises(SystemExit, match="not all is there"):
        prepare(tmp_path)


def test_files_that_are_not_the_published_ones_are_never_opened(official, tmp_path):
    (tmp_path / "download" / "cifar-100-python" / "train").write_bytes(b"cos\nsystem\n(S'ls'\ntR.")
    with pytest.raises(ValueError, match=r"cifar-100-python.*MD5"):
        prepare(tmp_path)
    assert not (tmp_path / "png").exists()


def test_digits_of_svhn_are_their_own_classes(tmp_path, monkeypatch):
    """In the files the digit 0 has the label 10."""
    home, rng, pixels = tmp_path / "download", np.random.default_rng(0), {}
    home.mkdir()
    known = {}
    for split, count in {"train": 40, "test": 20}.items():
        pixels[split] = rng.integers(0, 255, (32, 32, 3, count), np.uint8)
        labels = np.array([[number % 10 + 1] for number in range(count)], np.uint8)
        file = home / f"{split}_32x32.mat"
        savemat(file, {"X": pixels[split], "y": labels})
        known[split] = ["", file.name, hashlib.md5(file.read_bytes()).hexdigest()]
    monkeypatch.setattr(SVHN, "split_list", known)
    out = tmp_path / "lists"
    words = ["svhn", "--annotations", home, "--videos", tmp_path / "png", "--allow_partial", out]
    load_tool("prepare").main([*map(str, words), "--processes", "1"])
    assert read_label_names(out / "labels.txt") == list("0123456789")
    for split, count in {"train": 40, "test": 20}.items():
        samples = list(read_list(out / f"{split}.txt", tmp_path / "png", 10))
        assert len(samples) == count
        for sample in samples:
            number = int(Path(sample.path).stem)
            assert sample.label == (number % 10 + 1) % 10
            image = np.asarray(Image.open(tmp_path / "png" / sample.path))
            assert (image == pixels[split][..., number]).all()
    (home / "train_32x32.mat").write_bytes(b"other")
    words[4] = tmp_path / "again"
    with pytest.raises(ValueError, match="MD5"):
        load_tool("prepare").main([*map(str, words), "--processes", "1"])


def test_food101_keeps_its_official_lists(tmp_path):
    names, home = ["apple_pie", "sushi"], tmp_path / "food-101"
    (home / "meta").mkdir(parents=True)
    wanted = {}
    for split, numbers in {"train": (3, 1), "test": (2,)}.items():
        listed = {name: [f"{name}/{number}" for number in numbers] for name in names}
        (home / "meta" / f"{split}.json").write_text(json.dumps(listed))
        wanted[split] = [(f"{n}/{k}.jpg", names.index(n)) for n in names for k in numbers]
        for path, label in wanted[split]:
            (home / "images" / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20 + len(path)), (label * 200, int(path[-5]) * 20, 0)).save(
                home / "images" / path
            )
    words = ["food101", "--annotations", home / "meta", "--videos", home / "images"]
    with pytest.raises(SystemExit):  # two of 101 classes
        load_tool("prepare").main([*map(str, words), str(tmp_path / "out"), "--processes", "1"])
    for split, expected in wanted.items():
        found = read_list(tmp_path / "out" / f"{split}.txt", home, 2)
        assert [(sample.path, sample.label) for sample in found] == expected
    assert "officially" in (tmp_path / "out" / "report.txt").read_text()
    (home / "meta" / "test.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"test\.json"):
        load_tool("prepare").main([*map(str, words), str(tmp_path / "out"), "--processes", "1"])


def test_flowers_have_their_official_splits(tmp_path, monkeypatch):
    home = tmp_path / "flowers-102"
    (home / "jpg").mkdir(parents=True)
    labels = [1 + number % 3 for number in range(9)]
    ids = {"trnid": [1, 2, 3], "valid": [4, 5, 6], "tstid": [9, 8, 7]}
    savemat(home / "imagelabels.mat", {"labels": np.array([labels])})
    savemat(home / "setid.mat", {key: np.array([found]) for key, found in ids.items()})
    for number in range(1, 10):
        Image.new("RGB", (20, 30), (number * 20, 0, 0)).save(home / f"jpg/image_{number:05}.jpg")
    sums = {name: hashlib.md5((home / name).read_bytes()).hexdigest() for name in image_sets.SUMS}
    words = ["flowers102", "--annotations", home, "--videos", home / "jpg", tmp_path / "out"]
    with pytest.raises(ValueError, match=r"imagelabels\.mat.*MD5"):
        load_tool("prepare").main([*map(str, words), "--processes", "1"])
    monkeypatch.setattr(image_sets, "SUMS", sums)
    with pytest.raises(SystemExit):  # few of the images
        load_tool("prepare").main([*map(str, words), "--processes", "1"])
    prepared = read_prepared(tmp_path / "out")
    assert prepared.lists.keys() == {"train", "dev", "test"}
    for split, key in {"train": "trnid", "dev": "valid", "test": "tstid"}.items():
        found = read_list(tmp_path / "out" / prepared.lists[split], home / "jpg", 102)
        assert [(sample.path, sample.label) for sample in found] == [
            (f"image_{number:05}.jpg", labels[number - 1] - 1) for number in ids[key]
        ]


def test_downloads_are_made_only_when_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(CIFAR100, "download", lambda self: asked.append(self.root))
    words = ["cifar100", "--annotations", tmp_path, "--videos", tmp_path / "png", tmp_path / "out"]
    for more, times in (([], 0), (["--download"], 2)):
        with pytest.raises((ValueError, RuntimeError)):
            load_tool("prepare").main([*map(str, words), *more])
        assert len(asked) in (times, times // 2)
