"""Losses of a batch's logits."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from vidadapt.training.class_terms import ClassTerms


def classification_loss(
    logits: Tensor, targets: Tensor, label_smoothing: float, terms: ClassTerms
) -> Tensor:
    """Return the mean cross-entropy of logits (B, K), to which `terms.shifts` are added.

    With `terms.weights` the loss of each clip is multiplied by the mean of the weights under its
    target, w = sum over classes of t_c w_c, and the sum divided by B: so it does not depend on how
    clips are put into batches, and a clip's loss is still least at its target. Differs from
    `functional.cross_entropy` with `weight`: there the sum is divided by the weights of the batch,
    and of soft targets each class's term is multiplied, which moves what is predicted for a
    smoothed or mixed clip towards the classes of large weights.

    Args:
        targets: class numbers (B,), which are smoothed here, or distributions (B, K) as mixing
            gives them, which are taken as they are.
    """
    smoothing = label_smoothing if targets.ndim == 1 else 0.0
    logits = logits if terms.shifts is None else logits + terms.shifts
    if terms.weights is None:
        return functional.cross_entropy(logits, targets, label_smoothing=smoothing)
    losses = functional.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
    if targets.ndim == 1:
        of_clips = (1 - smoothing) * terms.weights[targets] + smoothing * terms.weights.mean()
    else:
        of_clips = targets @ terms.weights
    return (losses * of_clips).mean()


def multi_label_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over clips and classes of the binary cross-entropy of logits (B, K).

    Args:
        targets: (B, K) bool, or presence of each class in [0, 1] as mixing gives it.
    """
    return functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))
