"""Evaluation of a model: views, scores, metrics."""
