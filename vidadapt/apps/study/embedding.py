"""The input of a model's last layer, how well classes part in it, and its places by t-SNE.

After AdaptFormer's Figure 8 (Chen et al., 2022, https://arxiv.org/abs/2205.13535), which shows the
features of linear probing, VPT, full fine-tuning and AdaptFormer side by side. t-SNE keeps near
neighbours and little else: the figures beside it are taken from the features themselves.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidadapt.console import class_name, require_known
from vidadapt.distributed import World
from vidadapt.lists import Sample, labels_of
from vidadapt.serving import Loaded, score_with_features

LEAST_VIDEOS = 4  # below, no perplexity of 1 or more is left
ROWS_AT_ONCE = 1024  # of the table of similarities


@dataclass(frozen=True)
class Features:
    """One feature of each readable video of a list.

    Attributes:
        values: (N, D) float32.
        labels: (N,) int64.
        paths: N list paths.
        predicted: (N,) int64, what the model makes of these very features.
        errors: path -> why it could not be read; such videos are in none of the above.
    """

    values: np.ndarray
    labels: np.ndarray
    paths: list[str]
    predicted: np.ndarray
    errors: dict[str, str]

    def of(self, paths: Iterable[str]) -> Features:
        """The features of some of the videos, in their old order."""
        wanted = set(paths)
        rows = np.array([row for row, path in enumerate(self.paths) if path in wanted], np.int64)
        return Features(
            self.values[rows],
            self.labels[rows],
            [self.paths[row] for row in rows],
            self.predicted[rows],
            self.errors,
        )


def features_of(loaded: Loaded, world: World, label: str) -> Features:
    """The feature of every video of the list, in eval mode, each video alone.

    Args:
        loaded: with a plan of one view.
        world: must be alone.
        label: of the progress.

    Raises:
        NonFinite: scores that are not finite.
        ReadError: no video can be read.
    """
    scores, values = score_with_features(loaded, world, label)
    rows = [row for row, path in enumerate(scores.paths) if path not in scores.errors]
    return Features(
        values.numpy(),
        scores.labels[rows],
        [scores.paths[row] for row in rows],
        scores.logits[rows, 0].argmax(axis=1),
        scores.errors,
    )


def chosen_classes(
    samples: Sequence[Sample],
    label_names: Sequence[str] | None,
    wanted: Sequence[str] | None,
    most: int,
) -> tuple[list[int], str]:
    """The labels to show, ascending, and how they were chosen, in words; empty where all are.

    Args:
        label_names: None: classes are named by their numbers.
        wanted: one number N for the first N classes, or names; None: all, or the `most` largest
            (of equally large ones the first).
        most: classes that a picture can tell apart.

    Raises:
        ValueError: more classes than `most` or than have a video, or an unknown name.

    >>> videos = [Sample(f"{place}.mp4", place % 4 // 2) for place in range(7)] + [Sample("x", 2)]
    >>> chosen_classes(videos, ["run", "walk", "fall"], None, 20)
    ([0, 1, 2], '')
    >>> chosen_classes(videos, ["run", "walk", "fall"], None, 2)
    ([0, 1], 'the 2 largest of 3 classes')
    >>> chosen_classes(videos, ["run", "walk", "fall"], ["fall", "run"], 2)
    ([0, 2], '2 of 3 classes')
    >>> chosen_classes(videos, None, ["1"], 2)
    ([0], 'the first of 3 classes')
    """
    sizes = Counter(labels_of(samples).tolist())
    there = sorted(sizes)
    if wanted is None:
        if len(there) <= most:
            return there, ""
        largest = sorted(there, key=lambda label: (-sizes[label], label))[:most]
        return sorted(largest), f"the {most} largest of {len(there)} classes"
    if len(wanted) == 1 and wanted[0].isdigit():
        if int(wanted[0]) > len(there):
            raise ValueError(f"--classes: the list has {len(there)} classes, not {wanted[0]}")
        labels = there[: int(wanted[0])]
        first = "the first" if len(labels) == 1 else f"the first {len(labels)}"
        said = f"{first} of {len(there)} classes"
    else:
        names = {class_name(label, label_names): label for label in there}
        labels = sorted({names[require_known("--classes", name, names)] for name in wanted})
        said = f"{len(labels)} of {len(there)} classes"
    if not 1 <= len(labels) <= most:
        raise ValueError(f"--classes: a picture shows 1 to {most} classes, not {len(labels)}")
    return labels, "" if len(labels) == len(there) else said


def unit_length(values: np.ndarray) -> np.ndarray:
    """Rows (N, D) divided by their length, float64; a row of zeros stays one."""
    rows = values.astype(np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)


def knn_top1(values: np.ndarray, labels: np.ndarray, k: int = 5) -> float:
    """Per cent of rows that the majority of their `k` nearest other rows gives the right label.

    Nearest by the cosine of the angle between features (N, D), of equally near ones the first; of
    labels (N,) with equally many votes, the one whose nearest row is nearer. With fewer than k
    other rows all of them vote.
    """
    rows = unit_length(values)
    predicted = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        block = np.arange(start, min(start + ROWS_AT_ONCE, len(rows)))
        similar = rows[block] @ rows.T
        similar[np.arange(len(block)), block] = -np.inf
        nearest = np.argsort(-similar, axis=1, kind="stable")[:, : min(k, len(rows) - 1)]
        voted = labels[nearest]
        # (rows, voters): how many vote alike; argmax takes the first, and so the nearest.
        alike = (voted[:, :, None] == voted[:, None, :]).sum(axis=2)
        predicted[block] = voted[np.arange(len(block)), alike.argmax(axis=1)]
    return float(100 * np.mean(predicted == labels))


def silhouette(values: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean silhouette of features (N, D), cosine distance, -1 to 1; None with too few of a class.

    Above 0: a video is nearer to its own class than to the next one.

    Raises:
        ImportError: see `load_sklearn`.
    """
    if not 2 <= len(set(labels.tolist())) <= len(labels) - 1:
        return None
    metrics = load_sklearn("metrics")
    return float(metrics.silhouette_score(values, labels, metric="cosine"))


def default_perplexity(num_videos: int) -> float:
    """30, or a third of what there is beside a video.

    >>> default_perplexity(480), default_perplexity(31)
    (30.0, 10.0)
    """
    return min(30.0, (num_videos - 1) / 3)


def check_size(num_videos: int, perplexity: float) -> None:
    """Refuse what t-SNE cannot place.

    Raises:
        ValueError: too few videos, or a perplexity that is not below their number.
    """
    if num_videos < LEAST_VIDEOS:
        raise ValueError(f"t-SNE needs {LEAST_VIDEOS} readable videos or more, not {num_videos}")
    if not 0 < perplexity < num_videos:
        raise ValueError(
            f"--perplexity: expected a number above 0 and below that of the videos "
            f"({num_videos}), got {perplexity:g}"
        )


def coordinates(values: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """Features (N, D) to places in the plane (N, 2) float32, by scikit-learn's t-SNE.

    Features are brought to unit length, so that near means what it does in `knn_top1`. The start is
    their first two principal components; the same features and seed give the same places. Features
    that all point the same way, those of a training run that collapsed, are in one place.

    Raises:
        ValueError: see `check_size`.
        ImportError: see `load_sklearn`.
    """
    check_size(len(values), perplexity)
    manifold = load_sklearn("manifold")
    rows = unit_length(values)
    if (rows == rows[0]).all():  # without a principal component scikit-learn 1.9 crashes
        return np.zeros((len(rows), 2), np.float32)
    method = manifold.TSNE(init="pca", perplexity=perplexity, random_state=seed)
    return method.fit_transform(rows).astype(np.float32)


def load_sklearn(module: str) -> Any:
    """A module of scikit-learn, which only this part needs.

    Raises:
        ImportError: it is not installed; says how to.
    """
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise ImportError(
            f"t-SNE needs scikit-learn ({error}); install it with: pip install 'vidadapt[analysis]'"
        ) from error
