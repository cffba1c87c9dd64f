"""Evaluation of a model: views, scores, metrics, predictions."""

from vidadapt.evaluation.folds import (
    Difference,
    cross_validated,
    difference,
    interval,
    join_folds,
    pooled,
)
from vidadapt.evaluation.metrics import (
    METRICS,
    Fusion,
    Judged,
    Metric,
    fuse,
    in_percent,
    judge,
    label_ranks,
    measure,
    top,
)
from vidadapt.evaluation.parts import Parts, PartsError, Scoring, take_up
from vidadapt.evaluation.predictions import (
    CONFUSION,
    PREDICTIONS,
    Reliability,
    confusion_matrix,
    predicted_classes,
    probabilities,
    reliability,
    write_tables,
)
from vidadapt.evaluation.scores import Scores, in_each_order, load_scores, save_scores
from vidadapt.evaluation.views import collected, score_views

__all__ = [
    "CONFUSION",
    "METRICS",
    "PREDICTIONS",
    "Difference",
    "Fusion",
    "Judged",
    "Metric",
    "Parts",
    "PartsError",
    "Reliability",
    "Scores",
    "Scoring",
    "collected",
    "confusion_matrix",
    "cross_validated",
    "difference",
    "fuse",
    "in_each_order",
    "in_percent",
    "interval",
    "join_folds",
    "judge",
    "label_ranks",
    "load_scores",
    "measure",
    "pooled",
    "predicted_classes",
    "probabilities",
    "reliability",
    "save_scores",
    "score_views",
    "take_up",
    "top",
    "write_tables",
]
