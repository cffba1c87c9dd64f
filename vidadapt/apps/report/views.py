"""Everything that is shown of one video: its facts, and its clips as strips of frames."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from vidadapt.data import (
    EvalViews,
    TrainClips,
    clip_frames,
    cut_views,
    read_frames,
    seeded,
    train_frames,
)
from vidadapt.video import ReadError, VideoFacts, times_at


@dataclass(frozen=True)
class View:
    """One clip of a video.

    Attributes:
        epoch, copy: of a training clip; None: the centre view of validation.
        indices: T frame indices.
        times: their seconds from the first frame; None where the file does not tell.
        strip: its T frames side by side, a WebP file.
    """

    epoch: int | None
    copy: int | None
    indices: list[int]
    times: list[float] | None
    strip: bytes


@dataclass(frozen=True)
class Clip:
    """One video that was looked at.

    Attributes:
        width, height: pixels of a frame, upright.
        views: those of training first.
        error: why it cannot be read; empty: it can. Then there are no views.
    """

    facts: VideoFacts
    width: int
    height: int
    views: tuple[View, ...]
    error: str = ""


class Looks:
    """All that is shown of the video at a place of the training list."""

    def __init__(
        self,
        trained: TrainClips,
        validated: EvalViews | None,
        keys: Sequence[tuple[int, int]],
        side: int,
    ) -> None:
        """Take the datasets of training and validation.

        Args:
            keys: (epoch, copy) of the training clips.
            side: of a shown frame, in pixels.
        """
        self.trained, self.validated, self.keys, self.side = trained, validated, keys, side

    def __getitem__(self, place: int) -> Clip:
        videos = self.trained.samples
        facts = videos.facts(place)
        try:
            frames, _ = read_frames(videos.file(place), facts, np.zeros(1, int))
            height, width = frames[0].shape[:2]
            return Clip(facts, width, height, tuple(self._views(place, facts)))
        except ReadError as error:
            return self.broken(place, str(error))

    def broken(self, place: int, error: str) -> Clip:
        """Return what is shown of a video that cannot be read."""
        return Clip(self.trained.samples.facts(place), 0, 0, (), error)

    def _views(self, place: int, facts: VideoFacts) -> Iterator[View]:
        sampling, file = self.trained.sampling, self.trained.samples.file(place)
        for epoch, copy in self.keys:
            clip = self.trained[epoch, place, copy]["clip"]
            with seeded(self.trained.seed, epoch, place, copy) as rng:
                # TrainClips' first draw, too
                indices = train_frames(sampling, facts, rng)
            shown = _shown(file, indices, facts)
            yield View(epoch, copy, *shown, strip_of(clip, self.side))
        if self.validated is not None:
            item = self.validated[place]
            if item["error"]:
                raise ReadError(item["error"])
            [clip] = cut_views(item["frames"], item["clips"], item["corners"])
            shown = _shown(file, clip_frames(sampling, facts, 1)[0], facts)
            yield View(None, None, *shown, strip_of(clip, self.side))


def _shown(
    file: str, indices: np.ndarray, facts: VideoFacts
) -> tuple[list[int], list[float] | None]:
    """Frame indices and their times."""
    places = indices.tolist()
    return places, times_at(file, facts, places)


def strip_of(clip: torch.Tensor, side: int) -> bytes:
    """Frames of a clip (3, T, S, S) uint8 side by side, each `side` pixels wide: a WebP file."""
    frames = clip.permute(1, 2, 3, 0).numpy()
    strip = Image.new("RGB", (side * len(frames), side))
    for number, frame in enumerate(frames):
        image = Image.fromarray(np.ascontiguousarray(frame))
        if image.width != side:
            image = image.resize((side, side), Image.Resampling.LANCZOS)
        strip.paste(image, (number * side, 0))
    file = io.BytesIO()
    strip.save(file, format="WEBP", quality=80, method=3)
    return file.getvalue()
