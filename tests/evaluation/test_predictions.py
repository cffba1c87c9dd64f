"""Predictions, confusions and calibration agree with slow and with other people's references."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multiclass_confusion_matrix,
)

from vidadapt.evaluation import (
    Scores,
    confusion_matrix,
    judge,
    load_scores,
    predicted_classes,
    probabilities,
    reliability,
    save_scores,
    write_tables,
)

NAMES = ["pour, slowly", 'say "hi"', "naïve 走る", "never seen", "=1+1", "last"]


def scores_of(num_videos: int = 200, num_views: int = 3, seed: int = 0) -> Scores:
    """Random scores of 6 classes, of which 3 has no video; video 7 is unreadable."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 4, 5], num_videos)
    logits = rng.normal(size=(num_videos, num_views, 6)).astype(np.float32)
    logits[np.arange(num_videos), :, labels] += 1.5
    logits[7] = np.nan
    paths = [f"videos/{number}, a.mp4" for number in range(num_videos)]
    views = np.arange(num_views)
    return Scores(paths, labels, views, 0 * views, logits, {paths[7]: "no such\nfile"})


@pytest.mark.parametrize("fusion", ["softmax", "logits"])
def test_confusions_and_calibration_are_those_of_torchmetrics(fusion):
    scores = scores_of()
    judged = judge(scores, fusion)
    readable = np.arange(200) != 7
    logits = torch.from_numpy(scores.logits[readable]).double()
    shares = logits.softmax(2).mean(1) if fusion == "softmax" else logits.mean(1).softmax(1)
    labels = torch.from_numpy(scores.labels[readable])

    matrix = confusion_matrix(judged)
    assert (matrix == multiclass_confusion_matrix(shares, labels, 6).numpy()).all()
    assert matrix.sum() == 199 and matrix[3].sum() == 0
    predicted = predicted_classes(judged)
    assert (predicted[readable] == shares.argmax(1).numpy()).all() and predicted[7] == -1
    confidence = probabilities(judged, predicted)
    assert np.allclose(confidence[readable], shares.max(1).values) and np.isnan(confidence[7])
    found = reliability(judged)
    error = multiclass_calibration_error(shares, labels, 6, n_bins=15, norm="l1")
    assert found.ece == pytest.approx(float(error), abs=1e-6)
    assert found.counts.sum() == 199


def test_bins_hold_the_predictions_of_their_confidence():
    judged = judge(scores_of(seed=1), "softmax")
    found = reliability(judged)
    confidence = probabilities(judged, predicted_classes(judged))
    for number in range(15):
        mine = (confidence >= number / 15) & (confidence < (number + 1) / 15)
        assert found.counts[number] == mine.sum()
        if mine.any():
            assert found.accuracy[number] == pytest.approx((judged.ranks[mine] == 0).mean())
            assert found.confidence[number] == pytest.approx(confidence[mine].mean())
        else:
            assert np.isnan(found.accuracy[number])


def test_a_certain_prediction_is_in_the_last_bin():
    logits = np.zeros((2, 1, 2), np.float32)
    logits[:, 0, 0] = 1000.0
    judged = judge(
        Scores(["a", "b"], np.array([0, 1]), *np.zeros((2, 1), int), logits, {}), "softmax"
    )
    found = reliability(judged)
    assert found.counts.tolist() == [0] * 14 + [2]
    assert found.ece == pytest.approx(0.5)


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_the_tables_hold_every_video_and_every_confusion(tmp_path):
    scores = scores_of()
    judged = judge(scores, "softmax")
    write_tables(tmp_path, scores, "softmax", NAMES)
    header, *rows = rows_of(tmp_path / "predictions.csv")
    assert [row[0] for row in rows] == scores.paths
    for place, row in enumerate(rows):
        found = dict(zip(header, row, strict=True))
        label = scores.labels[place]
        assert (found["label"], found["label_name"]) == (str(label), NAMES[label])
        if place == 7:
            empty = ("predicted", "predicted_name", "confidence", "label_probability", "rank")
            assert all(found[name] == "" for name in empty)
            assert found["error"] == "no such\nfile"
            continue
        order = np.argsort(-judged.scores[place], kind="stable").tolist()
        assert (found["predicted"], found["predicted_name"]) == (str(order[0]), NAMES[order[0]])
        assert int(found["rank"]) == order.index(label) + 1
        assert float(found["confidence"]) == pytest.approx(judged.scores[place].max(), rel=1e-5)
        own = judged.scores[place, label]
        assert float(found["label_probability"]) == pytest.approx(own, rel=1e-5)
        assert found["error"] == ""

    header, *rows = rows_of(tmp_path / "confusion.csv")
    assert header == ["label", "name", *NAMES, "unreadable"]
    assert [row[:2] for row in rows] == [[str(n), name] for n, name in enumerate(NAMES)]
    counts = np.array([row[2:] for row in rows], int)
    assert (counts[:, :-1] == confusion_matrix(judged)).all()
    assert counts[:, -1].tolist() == [int(n == scores.labels[7]) for n in range(6)]


def test_classes_without_names_have_their_numbers(tmp_path):
    write_tables(tmp_path, scores_of(9), "logits", None)
    assert rows_of(tmp_path / "confusion.csv")[0][2:-1] == [f"class {n}" for n in range(6)]


@pytest.mark.parametrize("names", [7, ["too", "few"], [1, 2, 3, 4, 5, 6]])
def test_names_that_are_none_are_refused_before_a_table_is_written(tmp_path, names):
    save_scores(tmp_path / "scores.npz", scores_of(9), {"label_names": names})
    with pytest.raises(ValueError, match="label_names"):
        load_scores(tmp_path / "scores.npz")
