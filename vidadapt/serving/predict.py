"""Predict labels and probabilities of video files by adapters, with the evaluation's views.

Adapters of one backbone with the same cut of clips share the decoded views, and the backbone's pass
where their methods allow it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidadapt import data
from vidadapt.config import Config, DataConfig
from vidadapt.console import printable
from vidadapt.data import DataPlan, Sampling, VideoList, clip_frames, cut_views, view_chunks
from vidadapt.evaluation import fuse
from vidadapt.evaluation.multi_label import log_shares
from vidadapt.files import absolute
from vidadapt.lists import Sample, Videos, label_named, remarks_on
from vidadapt.models import NonFinite, autocast, resolved_precision
from vidadapt.runs import NOT_OF_THE_BACKBONE, SavedAdapter, adapters
from vidadapt.runs.adapter_json import thresholds_of
from vidadapt.serving.bank import AdapterBank
from vidadapt.serving.given import GivenVideo
from vidadapt.serving.published import Published, PublishedBank
from vidadapt.video import VideoFacts, times_at


@dataclass(frozen=True)
class Guess:
    """One label, with its name and the probability that an adapter gives it.

    Attributes:
        predicted: by a multi-label adapter: whether the probability reaches the class's threshold;
            None: there is one label a video.
    """

    label: int
    name: str
    probability: float
    predicted: bool | None = None


@dataclass(frozen=True)
class Shown:
    """The clip of a prediction that a picture shows: the middle one, centre crop.

    Attributes:
        frames: (T, S, S, 3) uint8, as the model saw them.
        times: seconds of each frame; None if the file has none.
    """

    frames: np.ndarray
    times: list[float] | None


@dataclass(frozen=True)
class Prediction:
    """Predictions of all adapters for a video.

    Attributes:
        error: why the video cannot be read; empty: it can.
        guesses: adapter -> its most probable labels, best first.
        views: adapter -> e.g. "4 clips x 3 crops".
        shown: for pictures; None unless asked for.
        given: name of the label that a list gives; empty: none does.
    """

    video: GivenVideo
    error: str
    guesses: dict[str, list[Guess]]
    views: dict[str, str]
    shown: Shown | None
    given: str = ""

    def is_right(self, adapter: str) -> bool:
        """Return whether its best guess is the list's label, or its predicted ones are the labels.

        The latter of a multi-label list: all of them, and no other.
        """
        guesses, label = self.guesses[adapter], self.video.label
        if not isinstance(label, tuple):
            return guesses[0].label == label
        return {guess.label for guess in guesses if guess.predicted} == set(label)


@dataclass(frozen=True)
class Group:
    """Adapters that share decoding and a backbone.

    Attributes:
        config: of the first of them; what it says of the backbone, the reader and the chunks of
            views is that of all.
        plan: how clips are cut.
        bank: the adapters.
        precision: that they compute in.
    """

    config: Config
    plan: DataPlan
    bank: AdapterBank | PublishedBank
    precision: str


class Predictor:
    """Adapters, ready to predict videos.

    Args:
        folders: name -> adapter folder.
        weights: the backbone's weights; default: see `load_adapter`.
        num_clips, num_crops: views; default: those of each adapter's evaluation.
        device: where to compute.

    Attributes:
        names: of the adapters, in their order.
        groups: the adapters that share decoding and a backbone.

    Raises:
        ValueError, FileNotFoundError: a damaged adapter, another backbone, missing weights; see
            `AdapterBank`.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        *,
        weights: str | None = None,
        num_clips: int | None = None,
        num_crops: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.names = list(folders)
        groups: dict[Any, Group] = {}
        banks: dict[Any, AdapterBank] = {}
        for name, folder in folders.items():
            adapter = adapters.read_adapter(folder)
            plan = adapters.with_views(adapter.plan, num_clips, num_crops)
            key = _key(adapter, plan)
            if key in groups:
                bank = banks[key]
            else:
                config = adapters.with_weights(adapter, weights)
                bank = AdapterBank(
                    config.model,
                    num_frames=plan.sampling.num_frames,
                    crop_size=plan.crop_size,
                    segments=plan.sampling.segments,
                    device=self.device,
                )
                precision = resolved_precision(self.device, config.train.precision)
                banks[key] = bank
                groups[key] = Group(config, plan, bank, precision)
            bank.add(name, folder)
        self.groups = list(groups.values())

    @classmethod
    def of_published(
        cls, found: Published, device: torch.device | str = "cpu"
    ) -> tuple[Predictor, str]:
        """Make one of a published classifier; also what was loaded, in words.

        Raises:
            ValueError, FileNotFoundError: weights that do not fit.
        """
        made = cls({}, device=device)
        bank = PublishedBank(found, made.device)
        precision = resolved_precision(made.device, found.config.train.precision)
        made.groups = [Group(found.config, found.plan, bank, precision)]
        made.names = list(bank.names)
        return made, bank.report

    @property
    def views(self) -> dict[str, str]:
        """Name -> e.g. "4 clips x 3 crops"."""
        return {
            name: f"{group.plan.num_clips} clips x {group.plan.num_crops} crops"
            for group in self.groups
            for name in group.bank.names
        }

    def adapter(self, name: str) -> SavedAdapter:
        """Contents of an adapter's file."""
        return next(g.bank.adapter(name) for g in self.groups if name in g.bank.names)

    def __call__(
        self,
        videos: Sequence[GivenVideo],
        *,
        top: int = 5,
        num_workers: int = 0,
        shown: bool = False,
        time_limit: float | None = 300.0,
    ) -> Iterator[Prediction]:
        """Yield one prediction for each video, in order; unreadable ones carry their `error`.

        Args:
            top: how many labels.
            num_workers: decoding processes.
            shown: keep a clip of each video for a picture.
            time_limit: seconds that counting one video may take; None: no limit.
        """
        samplings = [group.plan.sampling for group in self.groups]
        count = partial(counted, num_workers=num_workers, time_limit=time_limit)
        lists = {
            reader: count(videos, reader, samplings)
            for reader in {group.config.data.reader for group in self.groups}
        }
        options = DataConfig(root="/", num_workers=num_workers)
        of_groups = [lists[group.config.data.reader] for group in self.groups]
        loaders = [
            data.eval_loader(options, group.plan, listed)
            for group, listed in zip(self.groups, of_groups, strict=True)
        ]
        names = self.adapter(self.names[0]).labels
        for video, *items in zip(videos, *loaders, strict=True):
            error = next((item["error"] for item in items if item["error"]), "")
            if error:
                error = error.removeprefix(f"{_absolute(video)}: ")  # the video is named beside it
                yield Prediction(video, error, {}, {}, None)
                continue
            found: dict[str, list[Guess]] = {}
            for group, item in zip(self.groups, items, strict=True):
                found |= self._guesses(group, item, video, top)
            clip = None
            if shown:
                facts = of_groups[0].samples.facts(int(items[0]["index"]))
                clip = _middle(self.groups[0].plan, items[0], facts, video)
            guesses = {name: found[name] for name in self.names}
            given = "" if video.label is None else label_named(video.label, names)
            yield Prediction(video, "", guesses, self.views, clip, given)

    def _guesses(
        self, group: Group, item: Mapping[str, Any], video: GivenVideo, top: int
    ) -> dict[str, list[Guess]]:
        """The labels of a group's adapters for one video, from its item of `EvalViews`."""
        parts = []
        for chunk in view_chunks(item, group.config.eval.views_per_forward, self.device):
            with autocast(self.device, group.precision):
                parts.append(group.bank.all_logits(chunk))
        found = {}
        for name in group.bank.names:
            distinct = torch.cat([part[name] for part in parts]).cpu()
            logits = distinct[item["view_of"]].numpy()
            if not np.isfinite(logits).all():
                raise NonFinite(f"{video.path}: the scores of {name} are not finite")
            found[name] = most_probable(group.bank.adapter(name), logits, top)
        return found


def workers_for(num_videos: int) -> int:
    """Decoding processes for so many videos; of a few, starting them takes longer than they save.

    >>> workers_for(7)
    0
    """
    return 0 if num_videos < 8 else min(4, os.cpu_count() or 1)


def counted(
    videos: Sequence[GivenVideo],
    reader: str,
    samplings: Sequence[Sampling],
    *,
    num_workers: int,
    time_limit: float | None,
) -> VideoList:
    """Count the frames of videos, and list them with all that is known of them, in their order.

    Args:
        reader: key of `READERS`.
        samplings: by which clips will be cut from them.
        time_limit: seconds that counting one video may take; None: no limit.

    Raises:
        ReadError: clips are to be taken by time, and a video does not tell the times of its frames.
    """
    samples = [Sample(_absolute(video), 0) for video in videos]
    counts = data.count_files(
        [sample.path for sample in samples],
        reader,
        num_workers=num_workers,
        progress=True,
        time_limit=time_limit,
        limit_key="--time_limit",
        timed=any(sampling.fps for sampling in samplings),
    )
    found = Videos.of("/", samples, counts)
    for sampling in samplings:
        data.refuse_untimed(found, sampling)
    for line in remarks_on(found):
        print(printable(f"warning: {line}"), file=sys.stderr, flush=True)
    return VideoList("", found)


def most_probable(adapter: SavedAdapter, logits: np.ndarray, top: int) -> list[Guess]:
    """The `top` most probable labels, best first, from logits (V, K) of a video's views.

    Of a multi-label adapter all predicted ones, too, if they are more.
    """
    several = adapter.plan.multi_label
    shares = probabilities(logits, adapter.config.eval.fusion, several)
    order = np.argsort(-shares, kind="stable")
    if not several:
        return [Guess(int(k), adapter.label(int(k)), float(shares[k])) for k in order[:top]]
    chosen = shares >= np.array(thresholds_of(adapter.about) or 0.5)
    return [
        Guess(int(k), adapter.label(int(k)), float(shares[k]), bool(chosen[k]))
        for place, k in enumerate(order)
        if place < top or chosen[k]
    ]


def probabilities(logits: np.ndarray, fusion: Any, multi_label: bool = False) -> np.ndarray:
    """Logits (V, K) of a video's views to probabilities (K,), fused as in the evaluation."""
    if multi_label:
        return np.exp(log_shares(logits[None], fusion)[0])
    scores = fuse(logits[None], fusion)[0]
    return scores if fusion == "softmax" else fuse(scores[None, None], "softmax")[0]


def _key(adapter: SavedAdapter, plan: DataPlan) -> Any:
    """SampleKey that is equal where decoding and backbone are shared."""
    config = adapter.config
    model = {k: repr(v) for k, v in vars(config.model).items()}
    built = tuple(model[k] for k in sorted(model) if k not in NOT_OF_THE_BACKBONE)
    facts = (config.data.reader, config.train.precision, config.eval.views_per_forward)
    clip = plan.sampling, plan.crop_size, plan.framing, plan.num_crops
    return (adapter.about["model"]["fingerprint"], built, *clip, *facts)


def _middle(plan: DataPlan, item: Mapping[str, Any], facts: VideoFacts, video: GivenVideo) -> Shown:
    clip, crop = plan.num_clips // 2, plan.num_crops // 2
    chosen = int(item["view_of"][clip * plan.num_crops + crop])
    [view] = cut_views(item["frames"], item["clips"], item["corners"], [chosen])
    indices = clip_frames(plan.sampling, facts, plan.num_clips)[clip].tolist()
    return Shown(view.permute(1, 2, 3, 0).numpy(), times_at(_absolute(video), facts, indices))


def _absolute(video: GivenVideo) -> str:
    return absolute(video.path)
