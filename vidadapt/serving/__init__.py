"""A trained run or adapter as a thing to use: predictions, scores, export, many on one backbone."""

from vidadapt.serving import evaluate_command, predict_command, trained
from vidadapt.serving.bank import AdapterBank
from vidadapt.serving.exporting import export
from vidadapt.serving.given import GivenVideo, find_videos, names_of
from vidadapt.serving.predict import Guess, Prediction, Predictor, Shown
from vidadapt.serving.trained import Loaded, Trained

__all__ = [
    "AdapterBank",
    "GivenVideo",
    "Guess",
    "Loaded",
    "Prediction",
    "Predictor",
    "Shown",
    "Trained",
    "evaluate_command",
    "export",
    "find_videos",
    "names_of",
    "predict_command",
    "trained",
]
