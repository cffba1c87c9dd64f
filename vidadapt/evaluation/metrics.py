"""Top-1, top-5, mean-class and per-class accuracy from integer counts of hits."""

from __future__ import annotations

from typing import Any

import numpy as np


def label_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Number of classes before the right one in each video's ranking.

    A tie is broken by class number, so that the result never depends on the sorting algorithm.

    Args:
        scores: (N, K) float.
        labels: (N,) int, in [0, K).

    Returns:
        (N,) int64; 0 is a top-1 hit.

    >>> label_ranks(np.array([[.1, .7, .2], [.5, .5, 0.]]), np.array([2, 1])).tolist()
    [1, 1]
    """
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    before = np.arange(scores.shape[1])[None] < labels[:, None]
    return ((scores > own) | ((scores == own) & before)).sum(axis=1)


def accuracies(ranks: np.ndarray, labels: np.ndarray, num_classes: int) -> dict[str, Any]:
    """Accuracies in per cent of videos from `label_ranks`.

    A rank of -1 marks a video without a score (unreadable). It stays in every denominator, and is
    never a hit:
        top1, top5: shares of all videos of the list. With five classes or fewer `top5` counts all
            videos as hits, except those without a score.
        mean_class_accuracy: mean of the top-1 shares of the classes that the list has. A class
            whose videos are all unreadable counts as 0; one without videos in the list is left out.
        per_class: top-1 share of the videos of a class; 0 where all are unreadable.

    Args:
        ranks: (N,) int; labels: (N,) int in [0, K), N >= 1.

    Returns:
        dict with top1, top5, mean_class_accuracy, num_videos, and per_class, a list over the
        classes of {label, num_videos, top1} where top1 is None for a class that does not occur.

    >>> accuracies(np.array([0, 3, -1, 0]), np.array([0, 0, 1, 1]), 3)["mean_class_accuracy"]
    50.0
    """
    hits = ranks == 0
    totals = np.bincount(labels, minlength=num_classes)
    correct = np.bincount(labels[hits], minlength=num_classes)
    per_class = [
        {
            "label": label,
            "num_videos": int(total),
            "top1": 100.0 * int(right) / int(total) if total else None,
        }
        for label, (total, right) in enumerate(zip(totals, correct, strict=True))
    ]
    shares = [entry["top1"] for entry in per_class if entry["top1"] is not None]
    count = len(labels)
    return {
        "top1": 100.0 * int(hits.sum()) / count,
        "top5": 100.0 * int(((ranks >= 0) & (ranks < 5)).sum()) / count,
        "mean_class_accuracy": float(np.mean(shares)),
        "num_videos": count,
        "per_class": per_class,
    }
