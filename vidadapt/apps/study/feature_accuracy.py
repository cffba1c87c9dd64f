"""How well the classes of a list part in features that vidadapt features has written."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidadapt.apps.study.embedding import knn_top1, load_sklearn
from vidadapt.serving import GivenVideo, feature_files

NEIGHBOURS, FOLDS = 5, 5
MOST_PROBED = 20_000  # videos; above, the linear probe would take longer than the features


def with_accuracy(
    folder: Path, videos: Sequence[GivenVideo], about: dict[str, Any]
) -> dict[str, Any]:
    """Add `accuracy` to features.json of a folder: of the readable videos with one label.

    Views and tokens are averaged. `knn_top1`: leaving one out, see `embedding.knn_top1`.
    `linear_top1`: see `probe_top1`; None: not computed, `linear_left_out` says why.

    Args:
        videos: those of videos.csv.
        about: content of features.json.

    Raises:
        ValueError: fewer than two such videos.
    """
    unreadable = {one["path"] for one in about["unreadable"]}
    there = [video for video in videos if video.name not in unreadable]
    values = feature_files.pooled(folder, there, about["key"]["format"])
    rows = [row for row, video in enumerate(there) if isinstance(video.label, int)]
    if len(rows) < 2:
        raise ValueError(f"--knn: needs two readable videos with labels, and there are {len(rows)}")
    values, names = values[rows], [there[row].name for row in rows]
    labels = np.array([there[row].label for row in rows])
    probed, why = None, ""
    if len(rows) > MOST_PROBED:
        why = f"more than {MOST_PROBED:,} videos"
    elif len(set(labels.tolist())) < 2:
        why = "one class"
    else:
        try:
            probed = probe_top1(values, labels, folds_of(names, labels))
        except ImportError:
            why = "scikit-learn is not installed"
    accuracy = {
        "num_videos": len(rows),
        "num_classes": len(set(labels.tolist())),
        "neighbours": NEIGHBOURS,
        "knn_top1": knn_top1(values, labels, NEIGHBOURS),
        "folds": f"{FOLDS}, stratified, in the order of SHA-256 of the path",
        "linear_top1": probed,
        "linear_left_out": why,
    }
    about = {**about, "accuracy": accuracy}
    feature_files.write_about(folder, about)
    return about


def folds_of(names: Sequence[str], labels: np.ndarray) -> np.ndarray:
    """Fold (N,) int64 of each video: those of a class in turns, in the order of their names' hash.

    >>> folds_of(["a", "b", "c", "d"], np.array([0, 0, 1, 0])).tolist()
    [2, 1, 0, 0]
    """
    hashes = np.array([hashlib.sha256(name.encode()).hexdigest() for name in names])
    folds = np.empty(len(names), np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        folds[rows[np.argsort(hashes[rows])]] = np.arange(len(rows)) % FOLDS
    return folds


def probe_top1(values: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> float | None:
    """Per cent of rows (N, D) that a linear probe trained on the other folds labels right.

    Logistic regression (scikit-learn's, L2 with C = 1) on features that are standardised by the
    other folds. None: in some fold the others have one class.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    linear, scaling = load_sklearn("linear_model"), load_sklearn("preprocessing")
    right = 0
    for fold in np.unique(folds):
        held = folds == fold
        if len(set(labels[~held].tolist())) < 2:
            return None
        scaler = scaling.StandardScaler().fit(values[~held])
        probe = linear.LogisticRegression(max_iter=1000)
        probe.fit(scaler.transform(values[~held]), labels[~held])
        right += int((probe.predict(scaler.transform(values[held])) == labels[held]).sum())
    return 100 * right / len(labels)


def accuracy_line(about: dict[str, Any]) -> str:
    """Say the accuracies of `with_accuracy`."""
    found = about["accuracy"]
    linear = found["linear_top1"]
    said = f"left out ({found['linear_left_out'] or 'too few videos'})"
    return (
        f"{found['num_videos']} labelled videos of {found['num_classes']} classes: "
        f"{found['neighbours']} nearest neighbours, leaving one out, {found['knn_top1']:.2f} %; "
        f"linear probe, {FOLDS} folds, " + (said if linear is None else f"{linear:.2f} %")
    )
