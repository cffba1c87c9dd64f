"""A trained run or adapter as a thing to use: predictions, scores, export, publishing, a bank."""

from vidadapt.serving import (
    evaluate_command,
    feature_files,
    features_command,
    film_command,
    live_command,
    predict_command,
    trained,
)
from vidadapt.serving.bank import AdapterBank
from vidadapt.serving.explaining import Explanation, explain
from vidadapt.serving.exporting import export
from vidadapt.serving.extracting import extract
from vidadapt.serving.given import GivenVideo, find_videos, names_of
from vidadapt.serving.head_inputs import score_with_features
from vidadapt.serving.joined import join_scores
from vidadapt.serving.model import Model, load
from vidadapt.serving.predict import Guess, Prediction, Predictor, Shown
from vidadapt.serving.program_files import description_of, export_program
from vidadapt.serving.programs import FORMATS
from vidadapt.serving.pushing import Pushed, push, write_published
from vidadapt.serving.recognition import Recognition
from vidadapt.serving.trained import Loaded, Trained

__all__ = [
    "FORMATS",
    "AdapterBank",
    "Explanation",
    "GivenVideo",
    "Guess",
    "Loaded",
    "Model",
    "Prediction",
    "Predictor",
    "Pushed",
    "Recognition",
    "Shown",
    "Trained",
    "description_of",
    "evaluate_command",
    "explain",
    "export",
    "export_program",
    "extract",
    "feature_files",
    "features_command",
    "film_command",
    "find_videos",
    "join_scores",
    "live_command",
    "load",
    "names_of",
    "predict_command",
    "push",
    "score_with_features",
    "trained",
    "write_published",
]
