"""Everything that is shown of one video: its facts, and its clips as strips of frames."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from vidadapt.data.clips import EvalViews, TrainClips, read_frames
from vidadapt.data.sampling import eval_indices, train_indices
from vidadapt.data.seeding import seeded
from vidadapt.data.transforms import cut_views
from vidadapt.lists.index import VideoFacts
from vidadapt.video.readers import ReadError
from vidadapt.video.times import frame_times


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
    indices: tuple[int, ...]
    times: tuple[float, ...] | None
    strip: bytes


@dataclass(frozen=True)
class Clip:
    """One video that was looked at.

    Attributes:
        path: as in the list.
        count: its frames, codec and reader.
        width, height: pixels of a frame, upright.
        views: those of training first.
        error: why it cannot be read; empty: it can. Then there are no views.
    """

    path: str
    count: VideoFacts
    width: int
    height: int
    views: tuple[View, ...]
    error: str

    @property
    def truncated(self) -> bool:
        return bool(self.count.truncated)


class Looks(Dataset[Clip]):
    """All that is shown of the video at a place of the training list."""

    def __init__(
        self,
        trained: TrainClips,
        validated: EvalViews | None,
        keys: Sequence[tuple[int, int]],
        side: int,
    ) -> None:
        self.trained, self.validated, self.keys, self.side = trained, validated, keys, side

    def __getitem__(self, place: int) -> Clip:
        videos = self.trained.samples
        facts, file = videos.facts(place), videos.file(place)
        try:
            frames, _ = read_frames(videos.reading(place), np.zeros(1, int))
            height, width = frames.shape[1:3]
            views = tuple(self._views(place, file, facts.num_frames))
        except ReadError as error:
            return Clip(facts.path, facts, 0, 0, (), str(error))
        return Clip(facts.path, facts, width, height, views, "")

    def _views(self, place: int, file: str, num_frames: int) -> Iterator[View]:
        sampling = self.trained.sampling
        for epoch, copy in self.keys:
            clip = self.trained[epoch, place, copy]["clip"]
            with seeded(self.trained.seed, epoch, place, copy) as rng:
                indices = train_indices(sampling, num_frames, rng)  # TrainClips' first draw, too
            yield self._view(epoch, copy, clip, indices, file, num_frames)
        if self.validated is not None:
            item = self.validated[place]
            if item["error"]:
                raise ReadError(item["error"])
            [clip] = cut_views(item["frames"], item["clips"], item["corners"])
            indices = eval_indices(sampling, num_frames, 1)[0]
            yield self._view(None, None, clip, indices, file, num_frames)

    def _view(
        self,
        epoch: int | None,
        copy: int | None,
        clip: torch.Tensor,
        indices: np.ndarray,
        file: str,
        num_frames: int,
    ) -> View:
        places = tuple(indices.tolist())
        times = frame_times(file, places, num_frames)
        strip = strip_of(clip.permute(1, 2, 3, 0).numpy(), self.side)
        return View(epoch, copy, places, None if times is None else tuple(times), strip)


def strip_of(frames: np.ndarray, side: int) -> bytes:
    """(T, S, S, 3) uint8 frames side by side, each `side` pixels wide, as a WebP file."""
    strip = Image.new("RGB", (side * len(frames), side))
    for number, frame in enumerate(frames):
        image = Image.fromarray(np.ascontiguousarray(frame))
        if image.width != side:
            image = image.resize((side, side), Image.Resampling.LANCZOS)
        strip.paste(image, (number * side, 0))
    file = io.BytesIO()
    strip.save(file, format="WEBP", quality=80, method=3)
    return file.getvalue()
