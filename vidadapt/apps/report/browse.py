"""A few videos of each class as a training would see them, for a person to look at.

`look` chooses them and runs them through the datasets of training and validation; `page` and
`sheet` show what it found.
"""

from __future__ import annotations

import functools
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from vidadapt import data
from vidadapt.apps.report.views import Clip, Looks
from vidadapt.config import DataConfig
from vidadapt.console.progress import track
from vidadapt.data import DataPlan, VideoList
from vidadapt.data.clips import EvalViews, TrainClips
from vidadapt.data.workers import cores, worker_options
from vidadapt.lists.counting import frame_counts
from vidadapt.lists.index import VideoFacts
from vidadapt.lists.quarantine import barred
from vidadapt.lists.reading import Sample
from vidadapt.lists.videos import Videos

LARGEST, SMALLEST = 160, 48  # side of a frame in pixels, unless told
PIXELS = 64_000_000  # of a page; about 0.23 bytes each, and a third more in base64: 20 MB
ROUNDS = 5  # how often broken videos are passed over for others of their class
WIDEST = 16_383  # what a WebP file can hold


@dataclass(frozen=True)
class Shelf:
    """What is shown of one class.

    Attributes:
        name: None: no label names are known.
        num_videos: lines of the list.
        clips: the readable ones that were chosen.
        broken: "file: cause" of every video of the class that is known to be unreadable, missing
            files included, whether it was chosen or not.
    """

    label: int
    name: str | None
    num_videos: int
    clips: tuple[Clip, ...]
    broken: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Found:
    """What a look at a list came to.

    Attributes:
        shelves: the classes that are shown.
        elsewhere: "file: cause" of the broken videos of the classes that are not.
        num_quarantined: how many of the broken videos the quarantine names.
        unchecked: how many videos of the list no one has decoded yet: they may be broken, too.
    """

    shelves: tuple[Shelf, ...]
    elsewhere: tuple[tuple[str, str], ...]
    num_quarantined: int
    unchecked: int

    @property
    def num_broken(self) -> int:
        return len(self.elsewhere) + sum(len(shelf.broken) for shelf in self.shelves)


def choose(
    samples: Sequence[Sample],
    labels: Iterable[int],
    per_class: int,
    seed: int,
    broken: Collection[str] = (),
) -> list[Sample]:
    """Up to `per_class` samples of each label at random, in the order of labels and list.

    Neighbours in a list are often cut from one source video, so not the first ones. Samples whose
    path is `broken` are passed over; the others chosen stay the same.

    >>> samples = [Sample(f"{place}.mp4", place % 2) for place in range(100)]
    >>> [(s.path, s.label) for s in choose(samples, [1, 2], 2, seed=0)]
    [('19.mp4', 1), ('43.mp4', 1)]
    >>> [s.path for s in choose(samples, [1, 2], 2, seed=0, broken={"19.mp4"})]
    ['43.mp4', '63.mp4']
    """
    of_label = defaultdict(list)
    for sample in samples:
        of_label[sample.label].append(sample)
    chosen = []
    for label in labels:
        mine = of_label[label]
        order = np.random.default_rng([seed, label]).permutation(len(mine))
        places = [place for place in order if mine[place].path not in broken]
        chosen += [mine[place] for place in sorted(places[:per_class])]
    return chosen


def thumb_side(num_views: int, num_frames: int, crop_size: int) -> int:
    """Side of a frame in pixels that keeps a page of so many clips near 20 MB.

    >>> thumb_side(36 * 2, 8, 224), thumb_side(174 * 3 * 2, 8, 224), thumb_side(36, 8, 64)
    (160, 87, 64)
    """
    fitting = int((PIXELS / max(1, num_views * num_frames)) ** 0.5)
    return min(crop_size, LARGEST, max(SMALLEST, fitting))


def look(
    options: DataConfig,
    plan: DataPlan,
    list_path: str | Path,
    samples: Sequence[Sample],
    *,
    num_classes: int,
    clips_per_class: int,
    epochs: int,
    seed: int,
    evaluation: bool = True,
    thumb: int | None = None,
    progress: bool = True,
) -> Found:
    """The first `num_classes` classes, each with a few videos run through the data pipeline.

    Only the chosen videos are decoded. A training clip is what `data.train_loader` gives for the
    same seed and key (epoch, place, copy), with `data.repeated_augmentation` copies; places are
    counted without the videos that are known to be unreadable or quarantined, as training leaves
    them out.

    Args:
        samples: of the whole list.
        clips_per_class: videos of each class, chosen at random by the seed. For one that turns out
            to be broken, which the class's shelf says, another is drawn.
        epochs: the training clips of epochs 0 to epochs - 1.
        evaluation: also the centre view of validation.
        thumb: side of a frame in pixels, at most the crop's; default: see `thumb_side`.

    Raises:
        OSError, ValueError: the video index cannot be read or written, or the quarantine.
    """
    # No model computes beside them.
    num_workers = cores() if options.num_workers is None else min(options.num_workers, cores())
    counted = functools.partial(
        frame_counts,
        list_path,
        options.root,
        reader=options.reader,
        index_dir=options.index_dir,
        num_workers=num_workers,
        progress=progress,
        time_limit=options.count_timeout,
    )
    quarantined = barred(options)
    counts = counted([sample.path for sample in samples], barred=quarantined, decode=False)
    num_quarantined = sum(os.path.normpath(sample.path) in quarantined for sample in samples)
    chosen: list[Sample] = []
    for _ in range(ROUNDS):
        broken = {path for path, count in counts.items() if count.error}
        chosen = choose(samples, range(num_classes), clips_per_class, seed, broken)
        new = [sample.path for sample in chosen if sample.path not in counts]
        if not new:
            break
        counts |= counted(new)
    keys = [(e, c) for e in range(epochs) for c in range(options.repeated_augmentation)]
    num_views = len(chosen) * (len(keys) + evaluation)
    num_frames, crop_size = plan.sampling.num_frames, plan.crop_size
    side = thumb or thumb_side(num_views, num_frames, crop_size)
    side = min(side, crop_size, WIDEST // num_frames)
    clips = []
    readable = [sample for sample in chosen if not _error(counts, sample)]
    if readable:
        kept = [sample for sample in samples if not _error(counts, sample)]
        unknown = {s.path: VideoFacts(s.path, options.reader, error="not counted") for s in kept}
        listed = VideoList(str(list_path), Videos.of(options.root, kept, unknown | counts))
        alone = replace(options, num_workers=0)  # of these loaders only the datasets are wanted
        trained = data.train_loader(alone, plan, listed, batch_size=1, seed=seed).dataset
        seen = data.eval_loader(alone, plan, listed, num_clips=1, num_crops=1).dataset
        assert isinstance(trained, TrainClips) and isinstance(seen, EvalViews)
        place = {sample.path: index for index, sample in enumerate(kept)}
        todo = Looks(trained, seen if evaluation else None, keys, side)
        loader = DataLoader(
            todo,
            batch_size=None,
            sampler=[place[sample.path] for sample in readable],
            **worker_options(num_workers),
        )
        shown = track(
            loader, total=len(readable), label="looking at videos", unit="videos", shown=progress
        )
        clips = list(shown)
    return _found(options.root, plan, samples, num_classes, clips, counts, num_quarantined)


def _error(counts: Mapping[str, VideoFacts], sample: Sample) -> str:
    return counts[sample.path].error if sample.path in counts else ""


def _without_file(cause: str, file: Path) -> str:
    """The cause without the file, which is named beside it, as given or absolute."""
    whole = os.path.abspath(file)  # noqa: PTH100 (as the readers name it)
    return cause.removeprefix(f"{file}: ").removeprefix(f"{whole}: ")


def _found(
    root: str,
    plan: DataPlan,
    samples: Sequence[Sample],
    num_classes: int,
    clips: Sequence[Clip],
    counts: Mapping[str, VideoFacts],
    num_quarantined: int,
) -> Found:
    label_of = {sample.path: sample.label for sample in samples}
    sizes = Counter(label_of.values())
    found, broken = defaultdict(list), defaultdict(list)
    failed = {clip.path: clip.error for clip in clips if clip.error}
    for clip in clips:
        if not clip.error:
            found[label_of[clip.path]].append(clip)
    for sample in samples:
        if cause := _error(counts, sample) or failed.get(sample.path, ""):
            broken[sample.label].append(
                (sample.path, _without_file(cause, Path(root, sample.path)))
            )
    names = plan.label_names
    shelves = tuple(
        Shelf(
            label,
            names[label] if names else None,
            sizes[label],
            tuple(found[label]),
            tuple(broken[label]),
        )
        for label in range(num_classes)
    )
    elsewhere = [pair for label in range(num_classes, plan.num_classes) for pair in broken[label]]
    unchecked = sum(sample.path not in counts for sample in samples)
    return Found(shelves, tuple(elsewhere), num_quarantined, unchecked)
