"""Clips of one video that are loaded one after another share one pass through its file."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from vidadapt.data.epochs import SampleKey
from vidadapt.video import Frames, ReadError, TransientReadError, VideoFacts

MOST_BYTES = 1 << 28  # of the frames that are kept for the clips of one video
LARGE = 1920 * 1080  # pixels of a frame whose size is not known

Group = Mapping[SampleKey, np.ndarray]  # the frames (T,) int64 that each clip of a video wants


@dataclass(frozen=True)
class Found:
    """Frames of a clip.

    Attributes:
        frames: T of them, (H, W, 3) uint8, maybe those of other clips, too; or one array.
        changed: why the file may not be the one that was counted, see `clips.read_frames`.
        again: error of the first try to read them, if they were tried again; else empty.
    """

    frames: Frames
    changed: str
    again: str


def groups_within(wanted: Group, facts: VideoFacts) -> Iterator[Group]:
    """Split clips of one video, in their order, so that no group has more than `MOST_BYTES`.

    A clip that is larger than that is alone.
    """
    most = MOST_BYTES // (3 * (facts.width * facts.height or LARGE))
    group: dict[SampleKey, np.ndarray] = {}
    for key, indices in wanted.items():
        if group and len(_union([*group.values(), indices])) > most:
            yield group
            group = {}
        group[key] = indices
    if group:
        yield group


class SharedReads:
    """What each clip of a group needs of the frames that were read for all; of one process.

    The frames of one group are held at a time, until the last of its clips is read.
    """

    def __init__(self) -> None:
        self._expected: dict[SampleKey, Group] = {}
        self._frames: Frames = ()
        self._places: dict[SampleKey, np.ndarray] = {}

    def expect(self, groups: Iterable[Group]) -> None:
        """Share the reads of these groups; what was kept for others is let go."""
        self._expected = {next(iter(group)): group for group in groups if len(group) > 1}
        self._keep((), {})

    def read(
        self,
        key: SampleKey,
        indices: np.ndarray,
        read: Callable[[Iterable[SampleKey], np.ndarray], Found],
    ) -> Found:
        """Return a clip's frames: those that it has when it is read alone.

        A clip is read alone, too, where the group's frames cannot be read or may have changed:
        the fault may be in a frame that it does not want.

        Args:
            read: clips and the frames that they want -> these frames.

        Raises:
            ReadError: what `read` raises for this clip.
        """
        group, failed = self._expected.pop(key, None), ""
        if group is not None:
            union = _union(group.values())
            try:
                found = read(group, union)
            except ReadError as error:
                failed = str(error) if isinstance(error, TransientReadError) else ""
            else:
                failed = found.again
                if not found.changed:
                    places = {one: np.searchsorted(union, of) for one, of in group.items()}
                    self._keep(found.frames, places)
        own = self._places.pop(key, None)
        if own is None:
            alone = read((key,), indices)
            return replace(alone, again=failed or alone.again)
        frames = [self._frames[place] for place in own]
        if not self._places:
            self._keep((), {})
        return Found(frames, "", failed)

    def _keep(self, frames: Frames, places: dict[SampleKey, np.ndarray]) -> None:
        self._frames, self._places = frames, places


def by_video(keys: Iterable[SampleKey]) -> list[list[SampleKey]]:
    """Keys in their order, with neighbours of the same video in one list.

    >>> by_video([(0, 5, 0), (0, 5, 1), (0, 3, 0), (0, 5, 2)])
    [[(0, 5, 0), (0, 5, 1)], [(0, 3, 0)], [(0, 5, 2)]]
    """
    of = operator.itemgetter(1)
    return [list(copies) for _, copies in itertools.groupby(keys, of)]


def _union(wanted: Iterable[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate(list(wanted)))
