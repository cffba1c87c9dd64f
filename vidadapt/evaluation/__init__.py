"""Evaluation of a model: views, scores, metrics."""

from vidadapt.evaluation.metrics import (
    METRICS,
    Fusion,
    Judged,
    Metric,
    fuse,
    in_percent,
    label_ranks,
    measure,
    top,
)
from vidadapt.evaluation.parts import Parts, PartsError, Scoring, take_up
from vidadapt.evaluation.scores import Scores, in_each_order, load_scores, save_scores
from vidadapt.evaluation.views import collected, score_views

__all__ = [
    "METRICS",
    "Fusion",
    "Judged",
    "Metric",
    "Parts",
    "PartsError",
    "Scores",
    "Scoring",
    "collected",
    "fuse",
    "in_each_order",
    "in_percent",
    "label_ranks",
    "load_scores",
    "measure",
    "save_scores",
    "score_views",
    "take_up",
    "top",
]
