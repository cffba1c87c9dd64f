"""Test whether a model uses time: its accuracy with the frames of clips in other orders.

What the four orders tell, after `in_order`: `one_frame` takes away all that other frames hold,
`shuffled` the order but not the frames, `reversed` only the direction. Frames are reordered
before the model sees them, within tubelets, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vidadapt.console import class_name
from vidadapt.evaluation import Fusion, Scores, fuse, in_each_order, in_percent, measure

ORDERS = ("in_order", "reversed", "shuffled", "one_frame")
CHANGED = ORDERS[1:]
ALPHA = 0.05


def frame_orders(paths: Sequence[str], num_frames: int, seed: int) -> torch.Tensor:
    """The orders of a clip's frames for each video, as `evaluation.score_views` takes them.

    The shuffled one is drawn from the seed and the video's list path alone, for all views of the
    video, and is never 0, 1, ..., T - 1 (so with two frames it is the reversed one; with one
    frame, there is only one order). The one frame is the middle one, T // 2 counted from 0.

    Args:
        paths: list paths of N videos.
        num_frames: T.
        seed: 0 or more.

    Returns:
        (N, 4, T) int64 in the order of `ORDERS`.

    >>> frame_orders(["a.mp4"], 4, seed=0).tolist()
    [[[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 2, 3], [2, 2, 2, 2]]]
    """
    found = torch.empty(len(paths), len(ORDERS), num_frames, dtype=torch.int64)
    found[:, 0] = torch.arange(num_frames)
    found[:, 1] = torch.arange(num_frames).flip(0)
    for row, path in enumerate(paths):
        found[row, 2] = torch.from_numpy(shuffle(path, num_frames, seed))
    found[:, 3] = num_frames // 2
    return found


def shuffle(path: str, num_frames: int, seed: int) -> np.ndarray:
    """(T,) int64: a permutation, all but the identity equally likely."""
    rng = np.random.default_rng([seed, *path.encode()])
    while True:
        drawn = rng.permutation(num_frames)
        if num_frames < 2 or (drawn != np.arange(num_frames)).any():
            return drawn


def sign_test(one: int, other: int) -> float:
    """Two-sided exact p value of the sign test, which on paired hits is McNemar's.

    How often so uneven a split, or a more uneven one, comes up where each of `one + other` changes
    goes either way with probability 1/2.

    >>> sign_test(5, 0), sign_test(3, 1), sign_test(2, 2), sign_test(0, 0)
    (0.0625, 0.625, 1.0, 1.0)
    """
    number, term, tail = one + other, 1, 0
    for successes in range(min(one, other) + 1):
        tail += term
        term = term * (number - successes) // (successes + 1)
    return min(1.0, 2 * tail / 2**number)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values: below 0.05 a result is no chance, whatever the number of tests.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    ranked = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(ranked):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def sensitivity(
    scores: Scores, fusion: Fusion, label_names: Sequence[str] | None
) -> dict[str, Any]:
    """Find what one model loses in other orders of the frames, from its scores in all four.

    Args:
        scores: of the orders of `frame_orders`.
        label_names: in label order; None: classes are called by their number.

    Returns:
        orders: by order those of `evaluation.METRICS` that are in per cent, and per_class, see
            there; a video that cannot be read counts as wrong in every order.
        differences: by changed order, those metrics less those in order, in points.
        paired: by changed order, see `_paired`, with p_holm over the three.
        classes: of every class with videos: label, name, num_videos, top1 by order, paired by
            changed order (p_holm over all classes: for one_frame alone, for reversed and shuffled
            together), lost (points, in order less the worse of reversed and shuffled), and
            reversed_as, see `_taken_for`; most lost first.
        uses_time, uses_order, classes_using_time, classes_using_order: the verdicts, see `RULES`.
        unreadable, num_videos, views, fusion: as in `evaluation.measure`.
    """
    apart = dict(zip(ORDERS, in_each_order(scores, len(ORDERS)), strict=True))
    found = {order: measure(one, fusion) for order, one in apart.items()}
    guesses = {order: _guesses(one, fusion) for order, one in apart.items()}
    first = found["in_order"]
    everything = np.ones(len(scores.paths), bool)
    paired = {order: _paired(guesses, scores.labels, order, everything) for order in CHANGED}
    _adjust([paired[order] for order in CHANGED])
    classes = [
        _of_class(label, scores.labels, found, guesses, label_names)
        for label in np.unique(scores.labels).tolist()
    ]
    _adjust([one["paired"]["one_frame"] for one in classes])
    _adjust([one["paired"][order] for one in classes for order in ("reversed", "shuffled")])
    classes.sort(key=lambda one: (-one["lost"], one["label"]))
    return {
        **{key: first[key] for key in ("num_videos", "views", "fusion", "unreadable")},
        "uses_time": lost(paired["one_frame"]),
        "uses_order": lost(paired["reversed"], paired["shuffled"]),
        "classes_using_time": [c["name"] for c in classes if lost(c["paired"]["one_frame"])],
        "classes_using_order": [
            c["name"] for c in classes if lost(c["paired"]["reversed"], c["paired"]["shuffled"])
        ],
        "orders": {
            order: {key: one[key] for key in (*in_percent(), "per_class")}
            for order, one in found.items()
        },
        "differences": {
            order: {key: found[order][key] - first[key] for key in in_percent()}
            for order in CHANGED
        },
        "paired": paired,
        "classes": classes,
    }


def _of_class(
    label: int,
    labels: np.ndarray,
    found: dict[str, dict[str, Any]],
    guesses: dict[str, np.ndarray],
    label_names: Sequence[str] | None,
) -> dict[str, Any]:
    """One of the classes of `sensitivity`, without `p_holm`."""
    own = labels == label
    top1 = {order: found[order]["per_class"][label]["top1"] for order in ORDERS}
    return {
        "label": label,
        "name": class_name(label, label_names),
        "num_videos": int(own.sum()),
        "top1": top1,
        "lost": top1["in_order"] - min(top1["reversed"], top1["shuffled"]),
        "paired": {order: _paired(guesses, labels, order, own) for order in CHANGED},
        "reversed_as": _taken_for(guesses, label, own, label_names),
    }


def lost(*paired: dict[str, Any]) -> bool:
    """Check whether, in one order, more videos went wrong than right, by more than chance."""
    return any(
        one["p_holm"] < ALPHA and one["right_to_wrong"] > one["wrong_to_right"] for one in paired
    )


def _guesses(scores: Scores, fusion: Fusion) -> np.ndarray:
    """(N,) int64: the class ranked first, the lower of equals; -1 where a video is unreadable."""
    readable = np.array([path not in scores.errors for path in scores.paths])
    found = np.full(len(scores.paths), -1)
    found[readable] = fuse(scores.logits[readable], fusion).argmax(axis=1)
    return found


def _paired(
    guesses: dict[str, np.ndarray], labels: np.ndarray, order: str, chosen: np.ndarray
) -> dict[str, Any]:
    """Of the chosen videos, how many change from right to wrong and back, and the sign test's p.

    `other_prediction` counts those whose first class changes at all, also from wrong to wrong.
    """
    before, after = guesses["in_order"][chosen], guesses[order][chosen]
    was, now = before == labels[chosen], after == labels[chosen]
    to_wrong, to_right = int((was & ~now).sum()), int((~was & now).sum())
    return {
        "right_to_wrong": to_wrong,
        "wrong_to_right": to_right,
        "other_prediction": int((before != after).sum()),
        "p": sign_test(to_wrong, to_right),
    }


def _adjust(tests: list[dict[str, Any]]) -> None:
    for test, p_holm in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = p_holm


def _taken_for(
    guesses: dict[str, np.ndarray],
    label: int,
    own: np.ndarray,
    label_names: Sequence[str] | None,
) -> dict[str, Any] | None:
    """The other class that the class's videos are most often taken for when reversed.

    Returns:
        label, name and share (per cent of the class's videos), the lower label of equals; None
        where none is taken for another.
    """
    others = Counter(g for g in guesses["reversed"][own].tolist() if g not in (label, -1))
    if not others:
        return None
    other, count = min(others.items(), key=lambda pair: (-pair[1], pair[0]))
    name = class_name(other, label_names)
    return {"label": other, "name": name, "share": 100 * count / int(own.sum())}


RULES = (
    "A model uses time where its top-1 is higher in order than with one frame repeated, and the "
    "order where it is higher in order than reversed or than shuffled: by more than chance, that "
    "is with p < 0.05 in the exact two-sided sign test (McNemar's) on the videos that change from "
    "right to wrong and back, after Holm's correction for the three comparisons of a model. A "
    "class does by the same test on its own videos, corrected for all classes. What is not "
    "measurable on these videos may still be there.",
    "One frame repeated is the middle one of each clip (number T // 2 of T, from 0), a still clip: "
    "what is lost is the worth of the other frames and of motion together. Of this, what is lost "
    "from in order to shuffled is the worth of their order. Shuffled frames are one permutation "
    "for all views of a video, never the identity; with two frames they are the reversed ones. "
    "Frames are reordered before the model, so within tubelets, too.",
    "If a model does not use the order, that may be the model's doing or the data set's: compare "
    "a model that can, e.g. a full fine-tuning. And what is lost is what this model draws from the "
    "order (clips in another order are also unlike those it was trained on), not what a model "
    "trained without it would lack: that, the data set's own need, is the difference in order "
    "between models trained on many frames and on few.",
    "Unreadable videos count as wrong in every order.",
)


def verdicts(models: Sequence[dict[str, Any]]) -> list[str]:
    """Say the results in plain words: a line a model, and one on what several have in common.

    Args:
        models: of `sensitivity`, each with its `name` and `num_frames`.
    """
    lines = [_verdict(model) for model in models]
    if len(models) == 1:
        return lines
    timely = [model["name"] for model in models if model["uses_time"]]
    ordered = [model["name"] for model in models if model["uses_order"]]
    lines.append(
        f"The data set: time is used by {_named(timely, len(models))} of these models, the order "
        f"by {_named(ordered, len(models))}; "
        + (
            "so the order of its frames tells its classes apart."
            if ordered
            else "nothing here shows that its classes need the order, or that they do not: compare "
            "a model that can use it."
        )
    )
    return lines


def _verdict(model: dict[str, Any]) -> str:
    if model["num_frames"] == 1:
        return f"{model['name']}: clips of one frame have no order."
    top1 = {order: model["orders"][order]["top1"] for order in ORDERS}
    time = "uses time" if model["uses_time"] else "no measurable use of time"
    order = "uses the order" if model["uses_order"] else "no measurable use of the order"
    count = len(model["classes"])
    return (
        f"{model['name']}: {time} (top-1 {top1['in_order']:.1f} in order, "
        f"{_against(model, 'one_frame', 'with one frame repeated')}); {order} "
        f"({_against(model, 'reversed', 'reversed')}; {_against(model, 'shuffled', 'shuffled')}). "
        f"Classes that measurably use time: {_named(model['classes_using_time'], count)}; the "
        f"order: {_named(model['classes_using_order'], count)}.{_too_few(model)}"
    )


def _too_few(model: dict[str, Any]) -> str:
    """Said where a class may lose every one of its videos and still not pass the test."""
    tests = 2 * len(model["classes"])
    least = next(number for number in range(1, 99) if tests * sign_test(number, 0) < ALPHA)
    small = sum(one["num_videos"] < least for one in model["classes"])
    if not small:
        return ""
    return (
        f" Fewer than {least} videos, with which the order of a class can hardly be measured: "
        f"{small} of {len(model['classes'])} classes."
    )


def _against(model: dict[str, Any], order: str, words: str) -> str:
    paired, top1 = model["paired"][order], model["orders"][order]["top1"]
    share = 100 * paired["other_prediction"] / model["num_videos"]
    return f"{top1:.1f} {words}, {p_words(paired['p_holm'])}, {share:.0f} % predicted otherwise"


def p_words(p: float) -> str:
    """A p value for people.

    >>> p_words(0.0312), p_words(1e-9), p_words(1.0)
    ('p = 0.031', 'p < 0.0001', 'p = 1')
    """
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def _named(names: list[str], count: int) -> str:
    """All, none, or which.

    >>> _named(["up, left", "down"], 3), _named([], 3), _named(["a"], 1)
    ('2 of 3 (up, left; down)', 'none of 3', 'all 1')
    """
    if len(names) == count:
        return f"all {count}"
    shown = "; ".join(names[:5]) + ("; ..." if len(names) > 5 else "")
    return f"{len(names)} of {count} ({shown})" if names else f"none of {count}"
