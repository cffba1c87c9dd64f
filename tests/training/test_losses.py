"""The loss with class weights or shifted logits, against sums that are written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from vidadapt.training.class_terms import ClassTerms, balanced_weights, logit_shifts
from vidadapt.training.losses import classification_loss

LABELS = np.repeat([0, 1, 3], [30, 6, 4])
WEIGHTS = balanced_weights(LABELS, 5)
WEIGHTED = ClassTerms(weights=WEIGHTS)


def slow_loss(logits: torch.Tensor, targets: list[list[float]], weights: list[float]) -> float:
    """Mean over the clips of the target's weight times its cross-entropy, in plain numbers."""
    total = 0.0
    for scores, target in zip(logits.tolist(), targets, strict=True):
        log_sum = math.log(sum(math.exp(score) for score in scores))
        entropy = -sum(t * (score - log_sum) for t, score in zip(target, scores, strict=True))
        total += entropy * sum(t * w for t, w in zip(target, weights, strict=True))
    return total / len(targets)


def smoothed(labels: list[int], smoothing: float) -> list[list[float]]:
    return [[(1 - smoothing) * (k == label) + smoothing / 5 for k in range(5)] for label in labels]


def test_balanced_weights_are_scikit_learns_and_1_for_a_class_without_a_sample():
    theirs = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=LABELS)
    assert WEIGHTS[[0, 1, 3]].tolist() == pytest.approx(theirs.tolist())
    assert WEIGHTS[[2, 4]].tolist() == [1, 1]
    assert WEIGHTS[LABELS].mean().item() == pytest.approx(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighted_losses_are_those_of_a_slow_reference(smoothing):
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 5), [0, 1, 3, 3, 0, 2]
    soft = torch.tensor(smoothed(labels, smoothing))
    mixed = 0.3 * soft + 0.7 * soft.flip(0)
    # Soft targets are taken as they are: what mixed them has smoothed them, too.
    for targets, wanted in [(torch.tensor(labels), soft), (soft, soft), (mixed, mixed)]:
        found = classification_loss(logits, targets, smoothing, WEIGHTED).item()
        slow = slow_loss(logits, wanted.tolist(), WEIGHTS.tolist())
        assert found == pytest.approx(slow, rel=1e-5)


def test_without_smoothing_it_is_torchs_weighted_sum_over_the_number_of_clips():
    logits, labels = torch.randn(6, 5), torch.tensor([0, 1, 3, 3, 0, 2])
    summed = torch.nn.functional.cross_entropy(logits, labels, weight=WEIGHTS, reduction="sum")
    torch.testing.assert_close(classification_loss(logits, labels, 0.0, WEIGHTED), summed / 6)


def test_a_weighted_loss_does_not_depend_on_how_clips_are_put_into_batches():
    logits, labels = torch.randn(8, 5), torch.tensor([0, 1, 3, 3, 0, 2, 0, 0])
    parts = [
        classification_loss(logits[half], labels[half], 0.1, WEIGHTED)
        for half in (slice(0, 4), slice(4, 8))
    ]
    whole = classification_loss(logits, labels, 0.1, WEIGHTED)
    torch.testing.assert_close(sum(parts) / 2, whole)


def test_the_least_weighted_loss_of_a_clip_is_at_its_target():
    """Also of a mixed one, between a class of large and one of small weight."""
    target = torch.tensor([[0.5, 0.0, 0.0, 0.5, 0.0]])
    target = 0.9 * target + 0.1 / 5
    logits = target.log().requires_grad_()
    classification_loss(logits, target, 0.0, WEIGHTED).backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


def test_equal_weights_change_nothing():
    logits, labels = torch.randn(6, 5), torch.tensor([0, 1, 3, 3, 0, 2])
    torch.testing.assert_close(
        classification_loss(logits, labels, 0.1, ClassTerms(weights=torch.ones(5))),
        classification_loss(logits, labels, 0.1, ClassTerms()),
    )


# --- logit adjustment -----------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_adjusted_loss_is_that_of_a_slow_reference(smoothing, tau):
    """Of class numbers, and of smoothed and mixed labels."""
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 5), [0, 1, 3, 3, 0, 2]
    counts = {0: 30, 1: 6, 2: 1, 3: 4, 4: 1}  # 2 and 4 have no sample, and are taken as if one
    shifted = [
        [score + tau * math.log(counts[k] / 40) for k, score in enumerate(scores)]
        for scores in logits.tolist()
    ]
    terms = ClassTerms(shifts=logit_shifts(LABELS, 5, tau))
    soft = torch.tensor(smoothed(labels, smoothing))
    mixed = 0.3 * soft + 0.7 * soft.flip(0)
    for targets, wanted in [(torch.tensor(labels), soft), (soft, soft), (mixed, mixed)]:
        found = classification_loss(logits, targets, smoothing, terms).item()
        slow = slow_loss(torch.tensor(shifted), wanted.tolist(), [1.0] * 5)
        assert found == pytest.approx(slow, rel=1e-5)


def test_the_least_adjusted_loss_of_clips_that_tell_nothing_scores_all_classes_the_same():
    """The least plain loss gives the classes' shares in the list."""
    labels = torch.from_numpy(np.repeat([0, 1, 2], [30, 6, 4]))
    shifts = logit_shifts(labels.numpy(), 3, 1.0)
    for terms, wanted in [
        (ClassTerms(), [0.75, 0.15, 0.1]),
        (ClassTerms(shifts=shifts), [1 / 3, 1 / 3, 1 / 3]),
    ]:
        logits = torch.tensor(wanted).log().requires_grad_()
        classification_loss(logits.expand(40, 3), labels, 0.0, terms).backward()
        assert logits.grad is not None
        assert logits.grad.abs().max() < 1e-6
