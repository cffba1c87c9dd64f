"""CIFAR-100's own files become PNG images and lists; others are refused before they are opened."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, load_tool
from PIL import Image
from torchvision.datasets import CIFAR100

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
