"""How evenly the videos of a list are divided among the classes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

UNEVEN = 2  # times as many videos in the largest class as in the smallest: above it, it is said
FEWEST = 3  # classes that are named


def counts_of(labels: np.ndarray, num_classes: int) -> list[int]:
    """Count the videos of each class in labels (N,) int, or (N, K) bool of a multi-label list."""
    if labels.ndim == 2:
        return labels.sum(0).tolist()
    return np.bincount(labels, minlength=num_classes).tolist()


def class_sizes(counts: Mapping[str, int]) -> str:
    """Say how many videos the classes have; where they differ much, how much, and the smallest.

    The ratio is that of classes with videos.

    Args:
        counts: by class name; at least one class.

    >>> class_sizes({"walk": 5, "run": 5})
    '5 of each class'
    >>> class_sizes({"walk": 6, "run": 5})
    '5 (run) to 6 (walk) a class'
    >>> class_sizes({"a": 500, "b": 40, "c": 5})
    '5 (c) to 500 (a) a class, largest : smallest 100 : 1, fewest: 5 (c), 40 (b), 500 (a)'
    """
    ordered = sorted(counts, key=counts.__getitem__)
    least, most = ordered[0], max(counts, key=counts.__getitem__)
    if counts[least] == counts[most]:
        return f"{counts[least]} of each class"
    spread = f"{counts[least]} ({least}) to {counts[most]} ({most}) a class"
    smallest = min(count for count in counts.values() if count > 0)
    ratio = counts[most] / smallest
    if ratio <= UNEVEN and counts[least] > 0:
        return spread
    title = "largest : smallest" + (" with videos" if counts[least] == 0 else "")
    fewest = ", ".join(f"{counts[name]} ({name})" for name in ordered[:FEWEST])
    return f"{spread}, {title} {ratio:.3g} : 1, fewest: {fewest}"
