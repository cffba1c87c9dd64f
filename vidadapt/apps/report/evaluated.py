"""Results of an evaluation: classes, confusions, calibration, mistakes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidadapt.console import class_name
from vidadapt.evaluation import (
    Judged,
    Reliability,
    Scores,
    confusion_matrix,
    judge,
    load_scores,
    measure,
    metrics_in,
    predicted_classes,
    probabilities,
    reliability,
)

METRICS_FILE, SCORES_FILE = "metrics.json", "scores.npz"
MOST_PAIRS = 12  # of classes that are confused, named on the page


@dataclass(frozen=True)
class ClassResult:
    """Results of one class.

    Attributes:
        num_videos: of this label.
        accuracy: share of right predictions in per cent; of a multi-label list the average
            precision; None: the list has none of its videos.
        taken_for: the class that most of the wrong ones were taken for; empty: none or not known.
        times: how many were.
    """

    label: int
    name: str
    num_videos: int
    accuracy: float | None
    taken_for: str = ""
    times: int = 0


@dataclass(frozen=True)
class Pair:
    """Videos of one class that were taken for another.

    Attributes:
        count: such videos.
        share: of all readable ones of the class, in per cent.
    """

    name: str
    taken_for: str
    count: int
    share: float


@dataclass(frozen=True)
class Mistake:
    """A video with a wrong prediction.

    Attributes:
        path: list path.
        confidence: probability of the predicted class.
        label_probability: that of the label.
    """

    path: str
    name: str
    predicted: str
    confidence: float
    label_probability: float


@dataclass(frozen=True)
class Details:
    """Facts from the scores of single videos.

    Attributes:
        matrix: (K, K) int64, see `confusion_matrix`.
        pairs: the most frequent confusions, at most `MOST_PAIRS`.
        num_pairs: how many there are.
        mistakes: all videos with a wrong prediction, the most confident first.
    """

    matrix: np.ndarray
    pairs: tuple[Pair, ...]
    num_pairs: int
    calibration: Reliability
    mistakes: tuple[Mistake, ...]


@dataclass(frozen=True)
class Evaluated:
    """An evaluation of a checkpoint on a list.

    Attributes:
        folder: of the results.
        results: content of metrics.json, with figures computed anew where there are scores.
        root: folder of the videos, where that is known.
        classes: one each, in the order of the labels.
        details: None: there are no scores, or they are of a multi-label list.
    """

    folder: Path
    results: Mapping[str, Any]
    root: Path | str | None
    classes: tuple[ClassResult, ...]
    details: Details | None


def read_evaluation(folder: Path, root: Path | str | None) -> Evaluated:
    """Read the results of an evaluation.

    Args:
        root: folder of the videos, where the results, of an older version, do not name it.

    Raises:
        ValueError: metrics.json or scores.npz cannot be used; names the file.
    """
    path = folder / METRICS_FILE
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        source = Path(results.get("from_scores", folder / SCORES_FILE))
        known = {key: float(results[key]) for key in metrics_in(results)}
        main = "map" if "map" in known else "top1"
        if main not in known or results["fusion"] not in ("softmax", "logits"):
            raise ValueError("top1 or fusion is missing")
        named = results.get("root")
        root = named if isinstance(named, str) else root
        scores = load_scores(source)[0] if source.is_file() else None
        names = names_of(results, len(results["per_class"]))
        if scores is not None:
            thresholds = results.get("thresholds")
            results = {**results, **measure(scores, results["fusion"], thresholds)}
        if scores is None or main == "map":
            key = "ap" if main == "map" else "top1"
            classes = tuple(
                ClassResult(number, class_name(number, names), one["num_videos"], one[key])
                for number, one in enumerate(results["per_class"])
            )
            return Evaluated(folder, results, root, classes, None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path}: not the results of an evaluation ({error!r}); evaluate again, or give "
            "another folder"
        ) from error
    judged = judge(scores, results["fusion"])
    details = _details(scores, judged, names)
    return Evaluated(folder, results, root, _classes(details.matrix, results, names), details)


def names_of(results: Mapping[str, Any], num_classes: int) -> list[str] | None:
    """Return the class names that results hold; None: they have numbers alone.

    Raises:
        ValueError: they are not one name for each class.
    """
    names = results.get("label_names")
    if names is None:
        return None
    if not isinstance(names, list) or len(names) != num_classes:
        raise ValueError(f"label_names: expected {num_classes} names")
    return [str(name) for name in names]


def _classes(
    matrix: np.ndarray, results: Mapping[str, Any], names: Sequence[str] | None
) -> tuple[ClassResult, ...]:
    """Results of each class, with the class that it is most often taken for."""
    wrong = matrix - np.diag(np.diag(matrix))
    other, times = wrong.argmax(axis=1).tolist(), wrong.max(axis=1).tolist()
    return tuple(
        ClassResult(
            one["label"],
            class_name(one["label"], names),
            one["num_videos"],
            one["top1"],
            class_name(other[one["label"]], names) if times[one["label"]] else "",
            times[one["label"]],
        )
        for one in results["per_class"]
    )


def _details(scores: Scores, judged: Judged, names: Sequence[str] | None) -> Details:
    matrix = confusion_matrix(judged)
    wrong = matrix - np.diag(np.diag(matrix))
    totals = matrix.sum(axis=1)
    rows, columns = np.nonzero(wrong)
    counts = wrong[rows, columns]
    shares = 100.0 * counts / totals[rows]
    # The most videos first, then the largest share; of equal ones the first classes.
    order = np.lexsort((columns, rows, -shares, -counts))[:MOST_PAIRS]
    pairs = tuple(
        Pair(
            class_name(int(rows[place]), names),
            class_name(int(columns[place]), names),
            int(counts[place]),
            float(shares[place]),
        )
        for place in order
    )
    found = reliability(judged)
    return Details(matrix, pairs, len(rows), found, _mistakes(scores, judged, names))


def _mistakes(scores: Scores, judged: Judged, names: Sequence[str] | None) -> tuple[Mistake, ...]:
    predicted = predicted_classes(judged)
    confidence = probabilities(judged, predicted)
    of_label = probabilities(judged, judged.labels)
    wrong = np.flatnonzero(judged.readable & (predicted != judged.labels))
    order = wrong[np.argsort(-confidence[wrong], kind="stable")]
    return tuple(
        Mistake(
            scores.paths[place],
            class_name(int(judged.labels[place]), names),
            class_name(int(predicted[place]), names),
            float(confidence[place]),
            float(of_label[place]),
        )
        for place in order.tolist()
    )
