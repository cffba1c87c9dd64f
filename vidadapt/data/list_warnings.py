"""Warnings about the lists of a run, said before it trains."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vidadapt.console import printable
from vidadapt.data.by_time import lengths
from vidadapt.data.loading import VideoList
from vidadapt.data.plan import DataPlan
from vidadapt.data.sampling import shortest_video
from vidadapt.lists import counts_of, shared_films

FEW_VIDEOS = 30  # of a development list: one of fewer moves its accuracy by more than 3 %
UNBALANCED = 10  # times as many videos in the largest class as in the smallest
MOST_NAMED = 5


def list_warnings(
    lists: Mapping[str, VideoList], plan: DataPlan, *, balanced: bool
) -> tuple[str, ...]:
    """Return a line for each thing in the lists from which a small or uneven set suffers.

    Args:
        lists: by split, with "train".
        balanced: whether the run makes up for classes of different sizes.
    """
    labels = lists["train"].samples.labels
    several = labels.ndim == 2
    counts = np.array(counts_of(labels, plan.num_classes))
    found = [*_missing_classes(counts, plan)]
    if not balanced and not several:
        found += _uneven_classes(counts, plan)
    if "dev" in lists:
        found += _few_videos(len(lists["dev"].samples), "dev_map" if several else "dev_top1")
    for split, videos in lists.items():
        found += _short_videos(split, videos, plan)
    for one, other in itertools.combinations(lists, 2):
        if films := shared_films(lists[one].samples, lists[other].samples):
            found.append(
                f"data.{one}_list and data.{other}_list have segments of {films} films in common: "
                "no frame is in both, but people and places of a film may be"
            )
    return tuple(found)


def _missing_classes(counts: np.ndarray, plan: DataPlan) -> Iterator[str]:
    if missing := np.flatnonzero(counts == 0).tolist():
        yield (
            f"data.train_list: {len(missing)} of {plan.num_classes} classes have no video, and "
            f"will not be learned: {_named(missing, plan.label_names)}"
        )


def _uneven_classes(counts: np.ndarray, plan: DataPlan) -> Iterator[str]:
    largest = int(counts.argmax())
    smallest = int(np.where(counts > 0, counts, counts.max()).argmin())
    if counts[largest] >= UNBALANCED * counts[smallest]:
        most, least = (
            f"{_named([label], plan.label_names)} has {counts[label]}"
            for label in (largest, smallest)
        )
        yield (
            f"data.train_list: classes are unbalanced: {most} videos, {least}; consider "
            "data.class_sampling, train.logit_adjustment or train.class_weights"
        )


def _few_videos(count: int, judged_by: str) -> Iterator[str]:
    if count < FEW_VIDEOS:
        yield (
            f"data.dev_list holds {count} videos, so that one video is {100 / count:.3g} % of "
            f"{judged_by}: `best` is an epoch chosen largely by chance"
        )


def _short_videos(split: str, videos: VideoList, plan: DataPlan) -> Iterator[str]:
    frames = lengths(videos.samples, plan.sampling)
    readable = frames[frames > 0]
    needed = shortest_video(plan.sampling)
    keys = "data.num_frames" + " or data.stride" * (plan.sampling.policy != "uniform")
    if short := int((readable < needed).sum()):
        yield (
            f"data.{split}_list: {short} of {len(frames)} videos have fewer frames than the "
            f"{needed} that a clip needs (the shortest has {readable.min()}), so that their clips "
            f"repeat some; consider a lower {keys}"
        )


def _named(labels: Sequence[int], names: Sequence[str] | None) -> str:
    """Name the first of some classes.

    >>> _named([1, 2], None), _named(list(range(7)), list("abcdefg"))
    ('1, 2', 'a, b, c, d, e and 2 more')
    """
    shown = [str(label) if names is None else printable(names[label]) for label in labels]
    more = f" and {len(shown) - MOST_NAMED} more" if len(shown) > MOST_NAMED else ""
    return ", ".join(shown[:MOST_NAMED]) + more
