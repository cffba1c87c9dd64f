"""Metrics of lists whose videos have any number of labels, and thresholds for predictions.

Each function takes probabilities (N, K) float64, NaN in the rows of unreadable videos; labels
(N, K) bool; and thresholds (K,) float64: a class is predicted for a video from this probability
on. Of an unreadable video nothing is predicted: its labels count as missed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from vidadapt.evaluation.judged import Judged, Metric
from vidadapt.evaluation.scores import Scores


def log_shares(logits: np.ndarray, fusion: str) -> np.ndarray:
    """Return the log of the fused probabilities (N, K) float64 of per-view logits (N, V, K).

    Classes are judged one by one, by the sigmoid. `softmax` averages the views' probabilities,
    `logits` their logits, as for single labels. Of negated logits: the log of 1 - them.
    """
    values = torch.from_numpy(logits).double()
    if fusion == "softmax":
        of_views = torch.nn.functional.logsigmoid(values)
        return (of_views.logsumexp(1) - math.log(values.shape[1])).numpy()
    return torch.nn.functional.logsigmoid(values.mean(1)).numpy()


def judge(
    scores: Scores, readable: np.ndarray, fusion: str, thresholds: Sequence[float] | None
) -> Judged:
    """Fuse the views of each video; nothing is ranked. See `metrics.judge`."""
    logits = scores.logits[readable]
    log_of, log_others = (np.full((len(readable), logits.shape[2]), np.nan) for _ in range(2))
    log_of[readable] = log_shares(logits, fusion)
    log_others[readable] = log_shares(-logits, fusion)
    at = np.full(logits.shape[2], 0.5) if thresholds is None else np.array(thresholds)
    unranked = np.full(len(readable), -1)
    return Judged(np.exp(log_of), log_of, unranked, scores.labels, readable, log_others, at)


def average_precision(shares: np.ndarray, labels: np.ndarray) -> float:
    """Return the average precision in [0, 1] of one ranking: sum of (R_i - R_(i-1)) P_i.

    P_i and R_i are precision and recall of all that are at least as probable as the i-th distinct
    value, so that the order of equal ones does not matter. As scikit-learn's
    `average_precision_score`.

    Args:
        shares: (M,) float64; NaN is never found.
        labels: (M,) bool, at least one of them true.
    """
    found = np.isfinite(shares)
    order = np.argsort(-shares[found], kind="stable")
    ranked, hits = shares[found][order], np.cumsum(labels[found][order])
    last = _ends(ranked)
    hits_at = hits[last]
    precision = hits_at / (last + 1)
    return float((np.diff(hits_at, prepend=0) / labels.sum() * precision).sum())


def _ends(ranked: np.ndarray) -> np.ndarray:
    """Return the last place of each distinct value of a descending array."""
    return np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)])


def mean_average_precision(shares: np.ndarray, labels: np.ndarray, thresholds: np.ndarray) -> float:
    """Mean of the average precisions, in per cent, of the classes that some video has (macro)."""
    there = np.flatnonzero(labels.any(0))
    if not len(there):
        return 0.0
    return 100 * float(np.mean([average_precision(shares[:, k], labels[:, k]) for k in there]))


def micro_average_precision(
    shares: np.ndarray, labels: np.ndarray, thresholds: np.ndarray
) -> float:
    """Average precision, in per cent, of one ranking of all pairs of video and class."""
    return 100 * average_precision(shares.ravel(), labels.ravel()) if labels.any() else 0.0


def predicted(shares: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the classes predicted for each video, (N, K) bool; none for an unreadable one."""
    with np.errstate(invalid="ignore"):
        return shares >= thresholds


def f1_of(hits: Any, predictions: Any, positives: Any) -> Any:
    """F1 in [0, 1]: 2 hits / (predictions + positives); 0 where there are neither."""
    return 2 * hits / np.maximum(predictions + positives, 1)


def mean_f1(shares: np.ndarray, labels: np.ndarray, thresholds: np.ndarray) -> float:
    """Mean of the F1 scores, in per cent, of the classes that some video has (macro)."""
    chosen, there = predicted(shares, thresholds), labels.any(0)
    scores = f1_of((chosen & labels).sum(0), chosen.sum(0), labels.sum(0))
    return 100 * float(scores[there].mean()) if there.any() else 0.0


def micro_f1(shares: np.ndarray, labels: np.ndarray, thresholds: np.ndarray) -> float:
    """F1, in per cent, of all pairs of video and class together."""
    chosen = predicted(shares, thresholds)
    return 100 * float(f1_of((chosen & labels).sum(), chosen.sum(), labels.sum()))


def best_thresholds(shares: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the threshold (K,) of each class with the highest F1.

    It lies in the middle between the lowest probability that is predicted with it and the highest
    that is not (0 if all are); of equal F1 the highest threshold is taken. A class that no video
    has gets 0.5.
    """
    found = np.full(labels.shape[1], 0.5)
    for k in np.flatnonzero(labels.any(0)).tolist():
        known = np.isfinite(shares[:, k])
        order = np.argsort(-shares[known, k], kind="stable")
        ranked, hits = shares[known, k][order], np.cumsum(labels[known, k][order])
        last = _ends(ranked)
        if len(last) and hits[-1] > 0:
            best = last[int(np.argmax(f1_of(hits[last], last + 1, labels[:, k].sum())))]
            below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
            found[k] = (ranked[best] + below) / 2
    return found


def per_class(
    shares: np.ndarray, labels: np.ndarray, thresholds: np.ndarray
) -> list[dict[str, Any]]:
    """Label, num_videos, predicted and, in per cent, ap, precision, recall and f1 of every class.

    ap, recall and f1 are None for a class that no video has, precision for one never predicted.
    """
    chosen = predicted(shares, thresholds)
    counts = zip(
        labels.sum(0).tolist(),
        chosen.sum(0).tolist(),
        (chosen & labels).sum(0).tolist(),
        strict=True,
    )
    return [
        {
            "label": k,
            "num_videos": total,
            "predicted": guessed,
            "ap": 100 * average_precision(shares[:, k], labels[:, k]) if total else None,
            "precision": 100 * hits / guessed if guessed else None,
            "recall": 100 * hits / total if total else None,
            "f1": 100 * float(f1_of(hits, guessed, total)) if total else None,
        }
        for k, (total, guessed, hits) in enumerate(counts)
    ]


def _several(found: Callable[..., float]) -> Callable[[Judged], float]:
    """Give one of the functions above what it takes of `Judged`."""

    def of(judged: Judged) -> float:
        return found(np.exp(judged.log_shares), judged.labels, judged.thresholds)

    return of


def multi_label_loss(judged: Judged) -> float:
    """Mean over readable videos and classes of the binary cross-entropy, in nats."""
    assert judged.log_others is not None
    right = np.where(judged.labels, judged.log_shares, judged.log_others)
    return float(-right[judged.readable].mean())


MULTI_LABEL_METRICS = {
    "map": Metric("mAP", "%", "up", _several(mean_average_precision)),
    "micro_map": Metric("micro mAP", "%", "up", _several(micro_average_precision)),
    "f1": Metric("F1", "%", "up", _several(mean_f1)),
    "micro_f1": Metric("micro F1", "%", "up", _several(micro_f1)),
    "loss": Metric("loss", "nats", "down", multi_label_loss),
}


def thresholds_of(judged: Judged) -> list[float]:
    """Return the K thresholds with the highest F1 of each class, see `best_thresholds`."""
    return best_thresholds(np.exp(judged.log_shares), judged.labels).tolist()
