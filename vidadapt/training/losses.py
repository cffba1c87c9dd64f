"""Losses of a batch's logits."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def classification_loss(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Return the mean cross-entropy of logits (B, K).

    Args:
        targets: class numbers (B,), which are smoothed here, or distributions (B, K) as mixing
            gives them, which are taken as they are.
    """
    smoothing = label_smoothing if targets.ndim == 1 else 0.0
    return functional.cross_entropy(logits, targets, label_smoothing=smoothing)
