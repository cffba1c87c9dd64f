"""Weights and shifts that a loss takes from the sizes of the classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidadapt.config import TrainConfig


def balanced_weights(labels: np.ndarray, num_classes: int) -> Tensor:
    """Return the weight of each class (K,) float32 with which all classes count the same.

    It is N / (C n) for a class with n of the N samples, of which C classes have some: over the
    samples it is 1 on average. A class without a sample has 1.

    Args:
        labels: (N,) int in [0, K).

    >>> balanced_weights(np.array([0, 0, 0, 2]), 3).tolist()
    [0.6666666865348816, 1.0, 2.0]
    """
    counts = np.bincount(labels, minlength=num_classes)
    found = np.ones(num_classes)
    there = counts > 0
    found[there] = len(labels) / (there.sum() * counts[there])
    return torch.from_numpy(found).float()


def logit_shifts(labels: np.ndarray, num_classes: int, tau: float) -> Tensor:
    """Return what is added to the logits in training, (K,) float32: tau x log of the class's prior.

    Menon et al., "Long-tail learning via logit adjustment", ICLR 2021: its logit
    adjusted loss. The prior is n / N for a class with n of the N samples. A class without a sample
    is taken as one with a single sample, since log 0 is not finite, and smoothed labels have a part
    of every class.

    Args:
        labels: (N,) int in [0, K).

    >>> logit_shifts(np.array([0, 0, 0, 2]), 3, 1.0).exp().tolist()
    [0.75, 0.25, 0.25]
    """
    counts = np.bincount(labels, minlength=num_classes).clip(min=1)
    return torch.from_numpy(tau * np.log(counts / len(labels))).float()


@dataclass(frozen=True)
class ClassTerms:
    """Weights and shifts from the sizes of the classes; see `losses.classification_loss`.

    Attributes:
        weights: (K,) float32, on the device of the logits; None: every clip counts the same.
        shifts: (K,) float32, likewise; None: the logits are taken as they are.
    """

    weights: Tensor | None = None
    shifts: Tensor | None = None


def class_terms(
    recipe: TrainConfig, labels: np.ndarray, num_classes: int, device: torch.device
) -> ClassTerms:
    """Return what the loss takes of the sizes of the classes in the training list.

    Args:
        labels: (N,) int in [0, num_classes), of the training videos.
    """
    weights, shifts = None, None
    if recipe.class_weights == "balanced":
        weights = balanced_weights(labels, num_classes).to(device)
    if recipe.logit_adjustment > 0:
        shifts = logit_shifts(labels, num_classes, recipe.logit_adjustment).to(device)
    return ClassTerms(weights, shifts)
