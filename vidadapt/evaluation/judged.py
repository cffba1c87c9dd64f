"""A list's videos judged, and one metric of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Fusion = Literal["softmax", "logits"]


@dataclass(frozen=True)
class Judged:
    """Scores of a list's videos, as the metrics take them.

    Unreadable videos stay in the list: their scores are NaN, their rank is -1.

    Attributes:
        scores: (N, K) float64, see `metrics.fuse`.
        log_shares: (N, K) float64, log of the probabilities that the views' fusion gives.
        ranks: (N,) int64, see `metrics.label_ranks`; 0 is a top-1 hit.
        labels: (N,) int64 in [0, K), N >= 1; of a multi-label list (N, K) bool.
        readable: (N,) bool; at least one is.
        log_others: (N, K) float64, log of 1 - the probabilities; of a multi-label list, else None.
        thresholds: (K,) float64: a class is predicted from this probability on; likewise.
    """

    scores: np.ndarray
    log_shares: np.ndarray
    ranks: np.ndarray
    labels: np.ndarray
    readable: np.ndarray
    log_others: np.ndarray | None = None
    thresholds: np.ndarray | None = None


@dataclass(frozen=True)
class Metric:
    """One number for a list of videos.

    Attributes:
        title: for people, e.g. "top-1".
        unit: "%" for what tables show and evaluations compare; other units are logged and printed.
        better: "up" or "down".
    """

    title: str
    unit: str
    better: Literal["up", "down"]
    of: Callable[[Judged], float]
