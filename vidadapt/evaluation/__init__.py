"""Evaluation of a model: views, scores, metrics."""

from vidadapt.evaluation.metrics import (
    IN_PERCENT,
    METRICS,
    Fusion,
    Metric,
    fuse,
    label_ranks,
    measure,
)
from vidadapt.evaluation.parts import Parts, PartsError, Scoring, take_up
from vidadapt.evaluation.scores import Scores, in_each_order, load_scores, save_scores
from vidadapt.evaluation.views import collected, score_views

__all__ = [
    "IN_PERCENT",
    "METRICS",
    "Fusion",
    "Metric",
    "Parts",
    "PartsError",
    "Scores",
    "Scoring",
    "collected",
    "fuse",
    "in_each_order",
    "label_ranks",
    "load_scores",
    "measure",
    "save_scores",
    "score_views",
    "take_up",
]
