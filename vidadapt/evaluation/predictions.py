"""Predictions for each video: classes, probabilities, confusions, calibration, tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidadapt.console import class_name
from vidadapt.evaluation.judged import Fusion, Judged
from vidadapt.evaluation.metrics import judge, per_class
from vidadapt.evaluation.multi_label import predicted as predicted_sets
from vidadapt.evaluation.scores import Scores
from vidadapt.files import replaced
from vidadapt.lists import label_text

PREDICTIONS, CONFUSION, CLASSES = "predictions.csv", "confusion.csv", "classes.csv"
if TYPE_CHECKING:
    import pandas as pd

BINS = 15  # of confidence, as in Guo et al. 2017


@dataclass(frozen=True)
class Reliability:
    """Accuracy of the predictions by their confidence, in `BINS` bins of equal width.

    Attributes:
        counts: (B,) int64, predictions in each bin.
        confidence, accuracy: (B,) float64, their means in [0, 1]; NaN for an empty bin.
        ece: expected calibration error in [0, 1]: the mean distance of the two over all
            predictions, each taken with its bin's.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    ece: float


def predicted_classes(judged: Judged) -> np.ndarray:
    """Return the class with the highest score of each video, (N,) int64; -1: unreadable.

    Of equal scores the lower class number counts, as in `label_ranks`.
    """
    found = np.full(len(judged.labels), -1)
    found[judged.readable] = judged.scores[judged.readable].argmax(axis=1)
    return found


def probabilities(judged: Judged, classes: np.ndarray) -> np.ndarray:
    """Return the probability that each video has for a class, (N,) float64; NaN: unreadable.

    Args:
        classes: (N,) int64, one for each video; those of unreadable videos do not matter.
    """
    return np.exp(np.take_along_axis(judged.log_shares, classes[:, None], axis=1)[:, 0])


def confusion_matrix(judged: Judged) -> np.ndarray:
    """Count the readable videos by label (rows) and predicted class (columns): (K, K) int64."""
    num_classes = judged.scores.shape[1]
    labels = judged.labels[judged.readable]
    predicted = predicted_classes(judged)[judged.readable]
    pairs = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def reliability(judged: Judged) -> Reliability:
    """Compare the confidence of the predictions with their accuracy."""
    confidence = probabilities(judged, predicted_classes(judged))[judged.readable]
    right = judged.ranks[judged.readable] == 0
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        means = np.bincount(bins, confidence, BINS) / counts
        accuracy = np.bincount(bins, right, BINS) / counts
    gaps = np.where(counts > 0, abs(means - accuracy), 0.0)
    return Reliability(counts, means, accuracy, float((gaps * counts).sum() / counts.sum()))


def write_tables(
    folder: Path,
    scores: Scores,
    fusion: Fusion,
    label_names: Sequence[str] | None,
    thresholds: Sequence[float] | None = None,
) -> None:
    """Write the predictions and confusions of an evaluation as CSV files into its folder.

    predictions.csv has a line a video, in list order: path; label and label_name; predicted and
    predicted_name; confidence, the probability of the predicted class; label_probability, that of
    the label; rank of the label, 1 is a hit; error, why the video is unreadable, where the columns
    from predicted to rank are empty.
    confusion.csv has a line a class of the label: label, name, counts of videos by predicted class
    under its name, and unreadable ones.

    Of a multi-label list predictions.csv has path; labels and predicted, as lists have them;
    label_names and predicted_names; error; and a column with the probability of each class. In the
    place of confusion.csv, classes.csv has a line a class: label, name and what `per_class` gives,
    with its threshold.

    Args:
        thresholds: see `measure`.

    Raises:
        WriteError: the disk refused a file.
    """
    import pandas as pd  # half a second, for the main process alone

    judged = judge(scores, fusion, thresholds)
    num_classes = judged.scores.shape[1]
    names = np.array([class_name(label, label_names) for label in range(num_classes)], object)
    if judged.labels.ndim == 2:
        tables = {
            PREDICTIONS: _predicted_sets(scores, judged, names),
            CLASSES: pd.DataFrame(per_class(judged)),
        }
        tables[CLASSES].insert(1, "name", names)
        tables[CLASSES]["threshold"] = judged.thresholds
        _write(folder, tables)
        return
    predicted, readable = predicted_classes(judged), judged.readable
    predictions = pd.DataFrame(
        {
            "path": scores.paths,
            "label": judged.labels,
            "label_name": names[judged.labels],
            "predicted": pd.array(_known(predicted, readable), "Int64"),
            "predicted_name": _known(names[predicted], readable),
            "confidence": probabilities(judged, predicted),
            "label_probability": probabilities(judged, judged.labels),
            "rank": pd.array(_known(judged.ranks + 1, readable), "Int64"),
            "error": [scores.errors.get(path) for path in scores.paths],
        }
    )
    confusion = pd.DataFrame(confusion_matrix(judged), columns=list(names))
    confusion.insert(0, "label", range(num_classes), allow_duplicates=True)
    confusion.insert(1, "name", names, allow_duplicates=True)
    unreadable = np.bincount(judged.labels[~readable], minlength=num_classes)
    confusion.insert(num_classes + 2, "unreadable", unreadable, allow_duplicates=True)
    _write(folder, {PREDICTIONS: predictions, CONFUSION: confusion})


def _predicted_sets(scores: Scores, judged: Judged, names: np.ndarray) -> pd.DataFrame:
    """The table of predictions of a multi-label list."""
    import pandas as pd

    assert judged.thresholds is not None
    shares = np.exp(judged.log_shares)
    found: dict[str, Any] = {"path": scores.paths}
    for title, sets in (
        ("label", judged.labels),
        ("predicted", predicted_sets(shares, judged.thresholds)),
    ):
        each = [tuple(np.flatnonzero(row).tolist()) for row in sets]
        plural = "labels" if title == "label" else title
        found[plural] = [label_text(labels) for labels in each]
        found[f"{title}_names"] = ["; ".join(names[list(labels)]) for labels in each]
    found["error"] = [scores.errors.get(path) for path in scores.paths]
    for title in ("predicted", "predicted_names"):
        found[title] = _known(np.array(found[title], object), judged.readable)
    table = pd.DataFrame(found)
    return pd.concat([table, pd.DataFrame(shares, columns=list(names))], axis=1)


def _write(folder: Path, tables: dict[str, pd.DataFrame]) -> None:
    for name, table in tables.items():
        with replaced(folder / name) as partial:
            table.to_csv(partial, index=False, float_format="%.6g", errors="surrogateescape")


def _known(values: np.ndarray, readable: np.ndarray) -> np.ndarray:
    """The values (N,) as objects, None for unreadable videos."""
    found = values.astype(object)
    found[~readable] = None
    return found
