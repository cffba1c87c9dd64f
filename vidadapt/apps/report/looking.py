"""A few videos of each class as a training run would see them, for a person to look at.

`look` chooses them and runs them through the datasets of training and validation; `page` and
`sheet` show what it found.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from vidadapt import data
from vidadapt.apps.report.views import Clip, Looks
from vidadapt.config import BrowseOptions, DataConfig
from vidadapt.console import track
from vidadapt.data import DataPlan, VideoList, cores, one_thread
from vidadapt.files import absolute, joined
from vidadapt.lists import Sample, Videos, barred_files, barring, frame_counts
from vidadapt.processes import run_isolated
from vidadapt.video import VideoFacts

LARGEST, SMALLEST = 160, 48  # side of a frame in pixels, by default
PIXELS = 64_000_000  # of a page; about 0.23 bytes each, and a third more in base64: 20 MB
ROUNDS = 5  # how often broken videos are passed over for others of their class
WIDEST = 16_383  # pixels of a WebP file


@dataclass(frozen=True)
class Shelf:
    """All that is shown of one class.

    Attributes:
        name: None: no label names are known.
        num_videos: lines of the list.
        clips: the readable ones that were chosen.
        broken: (file, cause) of every video of the class that is known to be unreadable, missing
            files included, whether it was chosen or not.
    """

    label: int
    name: str | None
    num_videos: int
    clips: tuple[Clip, ...] = ()
    broken: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """The name of the class; without label names its number.

        >>> Shelf(3, None, 0).title, Shelf(3, "pour", 0).title
        ('class 3', 'pour')
        """
        return f"class {self.label}" if self.name is None else self.name

    @property
    def files(self) -> list[str]:
        return [clip.facts.path for clip in self.clips] + [path for path, _ in self.broken]

    @property
    def faulty(self) -> bool:
        return bool(self.broken) or not self.num_videos


@dataclass(frozen=True)
class Found:
    """Result of a look at a list.

    Attributes:
        shelves: the classes that are shown.
        elsewhere: number of broken videos in the classes that are not.
        num_quarantined: how many of the broken videos the quarantine names.
        unchecked: how many videos of the list no one has decoded yet: they may be broken, too.
    """

    shelves: tuple[Shelf, ...]
    elsewhere: int
    num_quarantined: int
    unchecked: int

    @property
    def num_broken(self) -> int:
        return self.elsewhere + sum(len(shelf.broken) for shelf in self.shelves)


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
    settings: DataConfig,
    plan: DataPlan,
    samples: Sequence[Sample],
    options: BrowseOptions,
    seed: int,
) -> Found:
    """Run a few videos of the first classes through the data pipeline.

    Only these are decoded. A training clip is what `data.train_loader` gives for the same seed and
    key (epoch, place, copy), with `data.repeated_augmentation` copies; places are counted without
    the videos that are known to be unreadable or quarantined, as training leaves them out.

    Args:
        samples: of the whole list.
        options: `clips_per_class` videos of each class are chosen at random by the seed. For one
            that turns out to be broken, which the class's shelf says, another is drawn.

    Raises:
        OSError, ValueError: the video index cannot be read or written, or the quarantine.
    """
    quarantined = barred_files(settings)
    labels = range(min(plan.num_classes, options.classes or plan.num_classes))
    chosen, facts = _chosen(settings, samples, labels, options, seed, quarantined)
    clips = _looked_at(settings, plan, samples, chosen, facts, options, seed)
    errors = {path: one.error for path, one in facts.items() if one.error}
    errors |= {clip.facts.path: clip.error for clip in clips if clip.error}
    sizes = Counter(sample.label for sample in samples)
    shown, broken = defaultdict(list), defaultdict(list)
    for sample, clip in zip(chosen, clips, strict=True):
        if not clip.error:
            shown[sample.label].append(clip)
    for sample in samples:
        if cause := errors.get(sample.path):
            file = joined(settings.root, sample.path)
            broken[sample.label].append((sample.path, _without_file(cause, file)))
    shelves = []
    for label in labels:
        name = plan.label_names[label] if plan.label_names else None
        clips_here, broken_here = tuple(shown[label]), tuple(broken.pop(label, ()))
        shelves.append(Shelf(label, name, sizes[label], clips_here, broken_here))
    return Found(
        tuple(shelves),
        elsewhere=sum(map(len, broken.values())),
        num_quarantined=sum(
            bool(barring(quarantined, sample.path, settings.root)) for sample in samples
        ),
        unchecked=sum(sample.path not in facts for sample in samples),
    )


def _chosen(
    settings: DataConfig,
    samples: Sequence[Sample],
    labels: Sequence[int],
    options: BrowseOptions,
    seed: int,
    quarantined: Mapping[str, str],
) -> tuple[list[Sample], dict[str, VideoFacts]]:
    """The readable videos to show, and what is known by path: of them, and by the video index."""
    counted = partial(
        frame_counts,
        options.list_path,
        settings.root,
        reader=settings.reader,
        index_dir=settings.index_dir,
        num_workers=_processes(settings),
        progress=True,
        time_limit=settings.count_timeout,
        timed=settings.sampling_fps is not None,
    )
    facts = counted([sample.path for sample in samples], barred=quarantined, decode=False)
    chosen: list[Sample] = []
    for _ in range(ROUNDS):
        broken = {path for path, one in facts.items() if one.error}
        chosen = choose(samples, labels, options.clips_per_class, seed, broken)
        new = [sample.path for sample in chosen if sample.path not in facts]
        if not new:
            break
        facts |= counted(new)
    return [sample for sample in chosen if not facts[sample.path].error], facts


def _looked_at(
    settings: DataConfig,
    plan: DataPlan,
    samples: Sequence[Sample],
    chosen: Sequence[Sample],
    facts: Mapping[str, VideoFacts],
    options: BrowseOptions,
    seed: int,
) -> list[Clip]:
    """All that is shown of each chosen video, decoded by several processes."""
    if not chosen:
        return []
    keys = [(e, c) for e in range(options.epochs) for c in range(settings.repeated_augmentation)]
    num_views, num_frames = len(chosen) * (len(keys) + options.evaluation), plan.sampling.num_frames
    side = options.thumb or thumb_side(num_views, num_frames, plan.crop_size)
    side = min(side, plan.crop_size, WIDEST // num_frames)
    kept = [
        sample for sample in samples if sample.path not in facts or not facts[sample.path].error
    ]
    unknown = {s.path: VideoFacts(s.path, settings.reader, error="not counted") for s in kept}
    listed = VideoList(options.list_path, Videos.of(settings.root, kept, {**unknown, **facts}))
    alone = replace(settings, num_workers=0)  # of these loaders only the datasets are wanted
    trained = data.train_loader(alone, plan, listed, batch_size=1, seed=seed).dataset
    seen = data.eval_loader(alone, plan, listed, num_clips=1, num_crops=1).dataset
    place = {sample.path: index for index, sample in enumerate(kept)}
    looks = Looks(trained, seen if options.evaluation else None, keys, side)
    places = [place[sample.path] for sample in chosen]
    found = run_isolated(
        looks.__getitem__, places, max(1, _processes(settings)), None, start=one_thread
    )
    shown = track(found, total=len(places), label="looking at videos", unit="videos")
    clips = {number: clip or looks.broken(number, why) for number, clip, why in shown}
    return [clips[number] for number in places]


def _processes(settings: DataConfig) -> int:
    """Processes that decode: all cores, since no model computes beside them."""
    return cores() if settings.num_workers is None else min(settings.num_workers, cores())


def _without_file(cause: str, file: str) -> str:
    """The cause without the file, which is named beside it, as given or absolute."""
    whole = absolute(file)
    return cause.removeprefix(f"{file}: ").removeprefix(f"{whole}: ")
