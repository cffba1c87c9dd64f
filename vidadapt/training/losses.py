"""Losses of a batch's logits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


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


def classification_loss(
    logits: Tensor, targets: Tensor, label_smoothing: float, class_weights: Tensor | None = None
) -> Tensor:
    """Return the mean cross-entropy of logits (B, K).

    With `class_weights` the loss of each clip is multiplied by the mean of the weights under its
    target, w = sum over classes of t_c w_c, and the sum divided by B: so it does not depend on how
    clips are put into batches, and a clip's loss is still least at its target. Differs from
    `functional.cross_entropy` with `weight`: there the sum is divided by the weights of the batch,
    and of soft targets each class's term is multiplied, which moves what is predicted for a
    smoothed or mixed clip towards the classes of large weights.

    Args:
        targets: class numbers (B,), which are smoothed here, or distributions (B, K) as mixing
            gives them, which are taken as they are.
        class_weights: (K,) on the logits' device; None: every clip counts the same.
    """
    smoothing = label_smoothing if targets.ndim == 1 else 0.0
    if class_weights is None:
        return functional.cross_entropy(logits, targets, label_smoothing=smoothing)
    losses = functional.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
    if targets.ndim == 1:
        of_clips = (1 - smoothing) * class_weights[targets] + smoothing * class_weights.mean()
    else:
        of_clips = targets @ class_weights
    return (losses * of_clips).mean()


def multi_label_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over clips and classes of the binary cross-entropy of logits (B, K).

    Args:
        targets: (B, K) bool, or presence of each class in [0, 1] as mixing gives it.
    """
    return functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))
