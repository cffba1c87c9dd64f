"""Lists with any number of labels a video: from the list to predictions."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TinySet, launch, make_tiny_set
from sklearn.metrics import average_precision_score, f1_score
from test_resuming import assert_same_run, finished, interrupted, resumed
from test_training import log_of
from torchmetrics.functional.classification import multilabel_average_precision

import vidadapt
from vidadapt.apps.synthetic import write_video
from vidadapt.evaluation import MULTI_LABEL_METRICS, Scores, load_scores, measure
from vidadapt.evaluation.multi_label import (
    average_precision,
    best_thresholds,
    log_shares,
    mean_average_precision,
    micro_average_precision,
)
from vidadapt.lists import Sample, read_list, write_list
from vidadapt.runs.adapters import read_adapter
from vidadapt.serving import AdapterBank
from vidadapt.training.log import SUMMARY


@pytest.fixture(scope="module")
def colours(tmp_path_factory) -> TinySet:
    """Videos that are red, green, blue, any mixture of them, or dark."""
    tiny = make_tiny_set(tmp_path_factory.mktemp("colours"))
    rng = np.random.default_rng(1)
    for split, count in {"train": 24, "dev": 16, "test": 16}.items():
        samples = []
        for number in range(count):
            labels = tuple(k for k in range(3) if (number % 8) >> k & 1)
            frames = rng.integers(0, 60, (12, 48, 64, 3), dtype=np.uint8)
            frames[..., list(labels)] += 150
            name = f"{split} {number}, several.mp4"
            write_video(tiny.root / name, frames, 12)
            samples.append(Sample(name, labels))
        write_list(tiny.lists[split], samples)
    return tiny


def options_of(tiny: TinySet, **changes: object) -> list[str]:
    wanted = {
        "data__multi_label": "true", "train__select": "map",
        "train__epochs": 6, "train__base_lr": 2.0,
        "data__train_crop": "random_resized", "train__optimizer": "adamw",
    }  # fmt: skip
    return tiny.options(**{**wanted, **changes})


@pytest.fixture(scope="module")
def run(colours, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    launch("train", *options_of(colours), "--run_dir", folder)
    launch("evaluate", "--run_dir", folder, "--checkpoint", "best")
    return folder


def test_a_run_learns_and_its_figures_are_those_of_scikit_learn(run, colours):
    [folder] = run.glob("eval_test_*")
    found = json.loads((folder / "metrics.json").read_text())
    scores, about = load_scores(folder / "scores.npz")
    expected = read_list(colours.lists["test"], colours.root, 3, multi_label=True)
    assert list(scores.paths) == list(expected.paths())
    assert (scores.labels == expected.labels).all()
    shares = (1 / (1 + np.exp(-scores.logits.astype(np.float64)))).mean(1)
    assert found["map"] > 90
    assert found["map"] == pytest.approx(
        100 * average_precision_score(scores.labels, shares, average="macro"), abs=1e-9
    )
    assert found["micro_map"] == pytest.approx(
        100 * average_precision_score(scores.labels, shares, average="micro"), abs=1e-9
    )
    at = json.loads((run / "best/adapter.json").read_text())["metrics"]["dev_thresholds"]
    assert found["thresholds"] == at == about["thresholds"]
    chosen = shares >= np.array(at)
    for name, average in (("f1", "macro"), ("micro_f1", "micro")):
        assert found[name] == pytest.approx(
            100 * f1_score(scores.labels, chosen, average=average), abs=1e-9
        )
    wanted = torch.nn.functional.binary_cross_entropy(
        torch.from_numpy(shares), torch.from_numpy(scores.labels).double()
    )
    assert found["loss"] == pytest.approx(float(wanted), abs=1e-9)
    rows = list(csv.DictReader((folder / "predictions.csv").open()))
    assert [row["labels"] for row in rows[:4]] == ["-", "0", "1", "0,1"]
    sets = [",".join(map(str, np.flatnonzero(row))) or "-" for row in chosen]
    assert [row["predicted"] for row in rows] == sets
    assert (run / "report.html").is_file()


def test_the_best_epoch_is_that_of_the_highest_map(run):
    log = [json.loads(line) for line in (run / "log.jsonl").open()]
    best = json.loads((run / SUMMARY).read_text())["best"]
    assert best["dev_map"] == max(line["dev_map"] for line in log)
    assert "train_top1" not in log[0]


def test_predictions_are_sets_of_labels(run, colours):
    model = vidadapt.load(run / "best")
    video = colours.root / "test 3, several.mp4"
    [said] = model.predict([video])
    at = model.adapter.about["metrics"]["dev_thresholds"]
    for guess in said.guesses:
        assert guess.predicted == (guess.probability >= at[guess.label])
    words = [colours.lists["test"], "--root", colours.root, "--adapter", run / "best", "--json"]
    lines = launch("predict", *words).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert found[3]["given"] == [0, 1]
    [of_adapter] = found[3]["predictions"].values()
    assert {one["label"]: one["predicted"] for one in of_adapter["top"]} == {
        guess.label: guess.predicted for guess in said.guesses
    }
    assert model.evaluate(colours.lists["test"])["map"] > 90


def test_a_bank_compares_by_each_class_alone(run):
    about = read_adapter(run / "best")
    plan = about.plan
    shape = {"num_frames": plan.sampling.num_frames, "crop_size": plan.crop_size}
    bank = AdapterBank(about.config.model, **shape)
    bank.add("task", run / "best")
    clips = torch.randint(0, 255, (2, 3, plan.sampling.num_frames, 32, 32), dtype=torch.uint8)
    wanted = bank.logits(clips, "task").sigmoid()
    for said, shares in zip(bank.compare(clips), wanted, strict=True):
        expected = dict(zip(plan.label_names, shares.tolist(), strict=True))
        assert dict(said["task"]) == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train__mixup": 0.5, "train__ema": 0.9},
        {"cache__dir": "cache", "method__name": "linear"},
    ],
)
def test_two_processes_and_interrupted_runs_give_the_same(colours, tmp_path, changes):
    changes = {"model__head": "linear", "train__base_lr": 0.5, **changes}
    if "cache__dir" in changes:
        changes["cache__dir"] = tmp_path / "cache"
    options = options_of(colours, **changes)
    alone, broken = tmp_path / "alone", tmp_path / "broken"
    finished(options, alone, 1)
    interrupted([*options, "--train.checkpoint_steps", "1"], broken, signal.SIGKILL)
    resumed(options, broken)
    assert_same_run(broken, alone)
    if "train__mixup" not in changes:  # partners are drawn within a process's batch
        finished(options_of(colours, **changes, train__batch_size=2), tmp_path / "both", 2)
        for one, other in zip(log_of(alone), log_of(tmp_path / "both"), strict=True):
            assert one["train_loss"] == pytest.approx(other["train_loss"], abs=1e-5)
            assert one["dev_loss"] == pytest.approx(other["dev_loss"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_give_the_figures_of_one(run, colours, tmp_path, processes):
    out = tmp_path / "eval"
    words = ["--run_dir", run, "--checkpoint", "best", "--out", out]
    launch("evaluate", *words, processes=processes)
    [alone] = run.glob("eval_test_*")
    found, expected = (json.loads((f / "metrics.json").read_text()) for f in (out, alone))
    for name in (*MULTI_LABEL_METRICS, "per_class", "thresholds", "num_videos"):
        assert found[name] == expected[name]


def test_average_precision_with_ties_and_classes_without_videos():
    rng = np.random.default_rng(0)
    for _ in range(300):
        shares = rng.integers(0, 6, 40) / 5
        labels = rng.random(40) < rng.random()
        if labels.any():
            assert average_precision(shares, labels) == pytest.approx(
                average_precision_score(labels, shares), abs=1e-12
            )
    shares, labels = rng.random((50, 4)), rng.random((50, 4)) < 0.3
    labels[:, 3] = False
    at = best_thresholds(shares, labels)
    assert at[3] == 0.5
    for k in range(3):
        best = f1_score(labels[:, k], shares[:, k] >= at[k])
        assert best == max(f1_score(labels[:, k], shares[:, k] >= t) for t in [*shares[:, k], 2.0])


def test_unreadable_videos_are_missed_and_not_left_out():
    logits = np.array([[[3.0, -3.0]], [[np.nan, np.nan]], [[-3.0, 3.0]]], np.float32)
    labels = np.array([[True, False], [True, True], [False, True]])
    scores = Scores(["a", "b", "c"], labels, np.array([0]), np.array([0]), logits, {"b": "broken"})
    found = measure(scores, "softmax")
    assert found["map"] == 50.0  # each class: one of two videos found, at the top
    assert found["f1"] == pytest.approx(100 * 2 / 3)
    assert found["num_videos"] == 3


def test_probabilities_far_out_keep_their_logarithms():
    values = np.array([[[60.0, -60.0, 0.0]]], np.float32)
    assert np.isfinite(log_shares(values, "softmax")).all()
    assert log_shares(-values, "logits")[0, 0] == pytest.approx(-60.0, rel=1e-12)


def test_average_precisions_agree_with_torchmetrics():
    """Where every class has a video: of one without, torchmetrics counts 0 or more in its mean."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        shares, labels = rng.integers(0, 8, (40, 6)) / 7, rng.random((40, 6)) < 0.3
        labels[0] = True
        for average, own in (("macro", mean_average_precision), ("micro", micro_average_precision)):
            its = multilabel_average_precision(
                torch.from_numpy(shares), torch.from_numpy(labels).long(), 6, average=average
            )
            assert own(shares, labels, np.full(6, 0.5)) == pytest.approx(100 * float(its), abs=1e-4)
