"""Evaluation of a model: views, scores, metrics, predictions."""

from vidadapt.evaluation.folds import (
    Difference,
    cross_validated,
    difference,
    interval,
    join_folds,
    pooled,
)
from vidadapt.evaluation.judged import Fusion, Judged, Metric
from vidadapt.evaluation.metrics import (
    METRICS,
    fuse,
    in_percent,
    judge,
    label_ranks,
    measure,
    metrics_in,
    metrics_of,
    top,
)
from vidadapt.evaluation.multi_label import MULTI_LABEL_METRICS, thresholds_of
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
    "MULTI_LABEL_METRICS",
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
    "metrics_in",
    "metrics_of",
    "pooled",
    "predicted_classes",
    "probabilities",
    "reliability",
    "save_scores",
    "score_views",
    "take_up",
    "thresholds_of",
    "top",
    "write_tables",
]
