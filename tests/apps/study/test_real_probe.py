"""A probe brought to its optimum, beside the study's (benchmarks/real_probe.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks import real_probe
from vidadapt.lists.folds import FoldedVideo, write_folds
from vidadapt.lists.prepared import Prepared, write_prepared

CLASSES, GROUPS = 3, 6
VIDEOS = {f"g{group}/c{label}.mp4": (group, label) for group in range(GROUPS) for label in range(3)}


@pytest.fixture
def folds(tmp_path: Path) -> Path:
    """Lists of three folds of two groups each; two of the other four groups develop."""
    for fold in range(3):
        tested, dev = {2 * fold, 2 * fold + 1}, {(2 * fold + 2) % 6, (2 * fold + 3) % 6}
        here = tmp_path / f"fold{fold + 1}"
        here.mkdir()
        lists = {name: f"{name}.txt" for name in ("train", "dev", "test")}
        for name, file in lists.items():
            own = {"test": tested, "dev": dev, "train": set(range(6)) - tested - dev}[name]
            lines = [f"{path} {label}\n" for path, (g, label) in VIDEOS.items() if g in own]
            (here / file).write_text("".join(lines))
        (here / "labels.txt").write_text("a\nb\nc\n")
        write_prepared(here, Prepared("custom", str(tmp_path), lists, "labels.txt", {}, {}))
    folded = [FoldedVideo(p, y, f"g{g}", f"fold{g // 2 + 1}") for p, (g, y) in VIDEOS.items()]
    write_folds(tmp_path, folded)
    return tmp_path


def test_features_of_the_class_are_told_apart_and_every_video_counts_once(folds: Path) -> None:
    features = {path: np.eye(CLASSES)[label] for path, (_, label) in VIDEOS.items()}
    found = real_probe.cross_validated(features, folds)
    assert found["by_group"] == {str(group): [CLASSES, CLASSES] for group in range(GROUPS)}


def test_features_of_the_group_alone_are_worth_no_more_than_chance(folds: Path) -> None:
    features = {path: np.eye(GROUPS)[group] for path, (group, _) in VIDEOS.items()}
    found = real_probe.cross_validated(features, folds)
    assert sum(right for right, _ in found["by_group"].values()) == len(VIDEOS) / CLASSES


def test_the_strength_is_chosen_without_the_test_list(folds: Path) -> None:
    drawn = np.random.default_rng(0)
    features = {path: np.eye(CLASSES)[y] + drawn.normal(size=3) for path, (_, y) in VIDEOS.items()}
    lists = real_probe.read_lists(folds / "fold1")
    best, right = real_probe.probed(features, lists)
    turned = [(path, (label + 1) % CLASSES) for path, label in lists["test"]]
    assert real_probe.probed(features, {**lists, "test": turned})[0] == best
    assert right.keys() == {path for path, _ in lists["test"]}
