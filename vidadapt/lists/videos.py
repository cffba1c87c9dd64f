"""The videos of a list with what is known of each: small, and quick to send to other processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import overload

import numpy as np

from vidadapt.files import joined
from vidadapt.lists.index import Index
from vidadapt.lists.reading import ListError, Sample, label_at, labels_of
from vidadapt.video import IMAGE_READER, VideoFacts


class Videos(Sequence[Sample]):
    """The videos of a list, or some of them; each becomes a `Sample` only when it is looked up.

    Paths and facts are read from the mapped index; only what it does not keep is held here.

    Attributes:
        root: folder, or its URL in a store, that the paths are relative to.
        labels: (N,) int32 or int64; of a multi-label list (N, K) bool.
        rows: (N,) int32, row in the index; -1: the video is in `loose`.
        loose: facts, by place, of videos that the index does not keep.
        known: the index; None: all are loose.
        decoded: how many of them this count decoded and stored in the index.
        has_segments: whether some may be segments of films, see `video.segments`.
        timed: whether the times of all frames are kept, as far as files tell them.
    """

    decoded = 0
    has_segments = False
    timed = False

    def __init__(
        self,
        root: str,
        labels: np.ndarray,
        rows: np.ndarray,
        loose: Mapping[int, VideoFacts],
        known: Index | None,
    ) -> None:
        if labels.ndim == 1:
            small = len(labels) == 0 or labels.max() < 2**31
            labels = labels.astype(np.int32 if small else np.int64)
        self.root, self.labels = root, labels
        self.rows, self.loose, self.known = rows.astype(np.int32), dict(loose), known

    @classmethod
    def of(cls, root: str, samples: Iterable[Sample], facts: Mapping[str, VideoFacts]) -> Videos:
        """Make `Videos` that are in no index.

        Args:
            facts: by list path, of all of them; their errors name the file.
        """
        listed = list(samples)
        labels = labels_of(listed)
        loose = {place: facts[sample.path] for place, sample in enumerate(listed)}
        videos = cls(root, labels, np.full(len(listed), -1), loose, None)
        videos.has_segments = any("#" in sample.path for sample in listed)
        return videos

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Sample: ...
    @overload
    def __getitem__(self, place: slice) -> list[Sample]: ...
    def __getitem__(self, place: int | slice) -> Sample | list[Sample]:
        if isinstance(place, slice):
            return [self[one] for one in range(len(self))[place]]
        place = range(len(self))[place]
        return Sample(self.path(place), label_at(self.labels, place))

    def path(self, place: int) -> str:
        """List path of a video."""
        row = int(self.rows[place])
        if row < 0 or self.known is None:
            return self.loose[place].path
        return self.known.path_of(row)

    @property
    def paths(self) -> list[str]:
        """List paths of all videos."""
        return [self.path(place) for place in range(len(self))]

    def file(self, place: int) -> str:
        """Path of a video's file, or the URL of its object; of a segment with its fragment."""
        return joined(self.root, self.path(place))

    def facts(self, place: int) -> VideoFacts:
        """Return all that is known of a video; its error names the file."""
        row = int(self.rows[place])
        if row < 0 or self.known is None:
            return self.loose[place]
        facts = self.known[row]
        return replace(facts, error=f"{self.file(place)}: {facts.error}") if facts.error else facts

    def part(self, place: int) -> tuple[int, str]:
        """First frame of a video in its file, and its remark, see `VideoFacts`."""
        row = int(self.rows[place])
        if row < 0 or self.known is None:
            return self.loose[place].first_frame, self.loose[place].remark
        return self.known.part_of(row)

    def column(self, name: str) -> np.ndarray:
        """One number per video (N,): num_frames, header_frames (-1: unknown), size or digest."""
        found = np.zeros(len(self), np.uint64 if name == "digest" else np.int64)
        kept = self.rows >= 0
        if self.known is not None:
            found[kept] = self.known.take(name, self.rows[kept])
        for place, facts in self.loose.items():
            value = getattr(facts, name)
            found[place] = -1 if value is None else value
        return found

    def digest(self) -> str:
        """SHA-256 over the videos' frame counts (0: unreadable), digests of checks and readers."""
        found = hashlib.sha256()
        for name in ("num_frames", "digest"):
            found.update(self.column(name).tobytes())
        for reader in self.readers():
            found.update(reader.encode() + b"\0")
        return found.hexdigest()

    def readers(self) -> Iterator[str]:
        """Name of the reader that serves each video, in their order."""
        for place, row in enumerate(self.rows.tolist()):
            if row < 0 or self.known is None:
                yield self.loose[place].reader
            else:
                yield self.known.reader_of(row)

    def at(self, places: np.ndarray) -> Videos:
        """The videos at `places` (M,), in that order."""
        new = {old: place for place, old in enumerate(places.tolist()) if old in self.loose}
        loose = {place: self.loose[old] for old, place in new.items()}
        chosen = Videos(self.root, self.labels[places], self.rows[places], loose, self.known)
        chosen.has_segments, chosen.timed = self.has_segments, self.timed
        return chosen


def refuse_mixture(lists: Mapping[str, Videos]) -> None:
    """Refuse lists that hold images and videos, which one run never means.

    Args:
        lists: by the names of their files.

    Raises:
        ListError: with the numbers of both in each list, and the first of each.
    """
    counts: list[str] = []
    first: dict[str, str] = {}
    for name, videos in lists.items():
        readers = np.array([*videos.readers()])
        readable = videos.column("num_frames") > 0
        images = readable & (readers == IMAGE_READER)
        kinds = {"image(s)": images, "video(s)": readable & ~images}
        counts.append(f"{name} holds " + " and ".join(f"{k.sum()} {of}" for of, k in kinds.items()))
        for of, places in kinds.items():
            if places.any():
                first.setdefault(of, videos.file(int(places.argmax())))
    if len(first) > 1:
        raise ListError(
            f"{'; '.join(counts)} (the first: {', '.join(first.values())}); a run takes images or "
            "videos: make separate lists. A moving GIF is a video"
        )
