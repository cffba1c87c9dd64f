"""Fuse the views of each video to one score, and compute exact metrics from the scores.

`METRICS`, or `MULTI_LABEL_METRICS`, says all that others need: a new metric is one entry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from vidadapt.evaluation import multi_label
from vidadapt.evaluation.judged import Fusion, Judged, Metric
from vidadapt.evaluation.multi_label import MULTI_LABEL_METRICS
from vidadapt.evaluation.scores import Scores


def top(k: int, judged: Judged) -> float:
    """Share of all videos, in per cent, whose label is among the k best classes.

    Unreadable videos are no hits. With k classes or fewer all others are.
    """
    hits = (judged.ranks >= 0) & (judged.ranks < k)
    return 100.0 * int(hits.sum()) / len(hits)


def mean_class_accuracy(judged: Judged) -> float:
    """Mean of the top-1 shares, in per cent, of the classes that the list has.

    A class whose videos are all unreadable counts as 0.
    """
    return float(np.mean([one["top1"] for one in per_class(judged) if one["top1"] is not None]))


def mean_loss(judged: Judged) -> float:
    """Mean cross-entropy of the readable videos: of -log p(label), in nats."""
    log_shares, labels = judged.log_shares[judged.readable], judged.labels[judged.readable]
    return float(functional.nll_loss(torch.from_numpy(log_shares), torch.from_numpy(labels)))


METRICS = {
    "top1": Metric("top-1", "%", "up", lambda judged: top(1, judged)),
    "top5": Metric("top-5", "%", "up", lambda judged: top(5, judged)),
    "mean_class_accuracy": Metric("mean class", "%", "up", mean_class_accuracy),
    "loss": Metric("loss", "nats", "down", mean_loss),
}


def metrics_of(labels: np.ndarray) -> dict[str, Metric]:
    """Return the metrics for labels (N,), or (N, K) of a multi-label list."""
    return METRICS if labels.ndim == 1 else MULTI_LABEL_METRICS


def metrics_in(results: Mapping[str, Any]) -> dict[str, Metric]:
    """Return the metrics that results of an evaluation hold."""
    known = MULTI_LABEL_METRICS if "map" in results else METRICS
    return {name: metric for name, metric in known.items() if name in results}


def in_percent() -> dict[str, Metric]:
    """Return the metrics that tables show and that evaluations are compared by."""
    return {name: metric for name, metric in METRICS.items() if metric.unit == "%"}


def measure(
    scores: Scores, fusion: Fusion, thresholds: Sequence[float] | None = None
) -> dict[str, Any]:
    """Compute what an evaluation reports.

    Args:
        thresholds: K probabilities from which on a class is predicted, of a multi-label list;
            default: 0.5.

    Returns:
        Each of `metrics_of` the labels by its name; num_videos; views; fusion; unreadable, a list
        of path and error; per_class, see there; of a multi-label list thresholds.
    """
    judged = judge(scores, fusion, thresholds)
    num_clips, num_crops = int(scores.clips.max()) + 1, int(scores.crops.max()) + 1
    return {
        **{name: metric.of(judged) for name, metric in metrics_of(judged.labels).items()},
        "num_videos": len(scores.paths),
        "views": f"{num_clips} clips x {num_crops} crops",
        "fusion": fusion,
        "unreadable": [{"path": path, "error": why} for path, why in scores.errors.items()],
        "per_class": per_class(judged),
        **({} if judged.thresholds is None else {"thresholds": judged.thresholds.tolist()}),
    }


def judge(scores: Scores, fusion: Fusion, thresholds: Sequence[float] | None = None) -> Judged:
    """Fuse the views of each video, and rank its label.

    Args:
        thresholds: see `measure`.
    """
    readable = np.array([path not in scores.errors for path in scores.paths])
    if scores.labels.ndim == 2:
        return multi_label.judge(scores, readable, fusion, thresholds)
    logits, labels = scores.logits[readable], scores.labels[readable]
    fused = np.full((len(readable), logits.shape[2]), np.nan)
    log_shares, ranks = fused.copy(), np.full(len(readable), -1)
    fused[readable] = fuse(logits, fusion)
    log_shares[readable] = _log_shares(logits, fusion)
    ranks[readable] = label_ranks(fused[readable], labels)
    return Judged(fused, log_shares, ranks, scores.labels, readable)


def fuse(logits: np.ndarray, fusion: Fusion) -> np.ndarray:
    """(N, V, K) per-view logits -> (N, K) float64 scores: mean over the views.

    `softmax` averages probabilities (VideoMAE), `logits` averages logits (AdaptFormer's release).
    """
    values = logits.astype(np.float64)
    if fusion == "softmax":
        values = np.exp(values - values.max(axis=2, keepdims=True))
        values /= values.sum(axis=2, keepdims=True)
    elif fusion != "logits":
        raise ValueError(f"eval.fusion: {fusion!r} is unknown; use softmax or logits")
    return values.mean(axis=1)


def _log_shares(logits: np.ndarray, fusion: Fusion) -> np.ndarray:
    """(N, V, K) per-view logits -> (N, K) float64 log of the fused probabilities."""
    values = torch.from_numpy(logits).double()
    if fusion == "softmax":  # the log of their mean, without its underflow
        return (values.log_softmax(2).logsumexp(1) - math.log(logits.shape[1])).numpy()
    return values.mean(1).log_softmax(1).numpy()


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


def per_class(judged: Judged) -> list[dict[str, Any]]:
    """Label, num_videos and top1 (per cent) of every class.

    top1 is 0 where all videos are unreadable, and None for a class that does not occur. Of a
    multi-label list see `multi_label.per_class`.
    """
    if judged.thresholds is not None:
        shares = np.exp(judged.log_shares)
        return multi_label.per_class(shares, judged.labels, judged.thresholds)
    totals, correct = (
        np.bincount(labels, minlength=judged.scores.shape[1]).tolist()
        for labels in (judged.labels, judged.labels[judged.ranks == 0])
    )
    return [
        {"label": label, "num_videos": total, "top1": 100.0 * right / total if total else None}
        for label, (total, right) in enumerate(zip(totals, correct, strict=True))
    ]
