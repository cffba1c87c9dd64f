"""Decode the views of single videos in processes that are replaced where they die."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vidadapt import data
from vidadapt.data import DataPlan, EvalViews, join_views, views_of
from vidadapt.lists import CountJob, Sample, Videos, count_file
from vidadapt.processes import Lost, LostProcess, Pool, Work
from vidadapt.video import ReadError, VideoFacts

TRIES = 3  # processes may be killed by others: the video that one was on has more chances
PAUSE = 0.5  # seconds after processes have ended again and again while they started


class Video(NamedTuple):
    """A file to look at: its absolute path, and how each group of adapters reads and cuts it."""

    file: str
    cuts: tuple[tuple[str, DataPlan], ...]


@dataclass(frozen=True)
class Decoded:
    """The views of one video.

    Attributes:
        items: of `data.EvalViews`, one for each of its cuts.
        remarks: what is odd about the file, e.g. that its end is missing.
    """

    items: list[dict[str, Any]]
    remarks: list[str]


class Decoders:
    """Processes that decode videos; any number of threads may call `decode` at once.

    Args:
        number: of processes.
        time_limit: seconds for one video, counting its frames included.
    """

    def __init__(self, number: int, time_limit: float) -> None:
        self._time_limit = time_limit
        self._free: queue.SimpleQueue[Pool] = queue.SimpleQueue()
        self._pools = [
            Pool(
                Work(_load, _join, data.one_thread),
                num_workers=1,
                limit=time_limit,
                limit_key="--time_limit",
                tries=TRIES,
                unpack=_split,
            )
            for _ in range(number)
        ]
        for pool in self._pools:
            self._free.put(pool)
        self._seen: set[int] = set()

    @property
    def replaced(self) -> int:
        """Processes that had died or hung, and were replaced."""
        return max(0, len(self._seen) - len(self._pools))

    def decode(self, video: Video) -> Decoded:
        """Decode a video; waits for a free process.

        Raises:
            ReadError: it cannot be read, hangs, or kills the process that decodes it.
            LostProcess: for as long as one video may take, no process has started.
        """
        pool = self._free.get()
        try:
            deadline = time.monotonic() + self._time_limit
            while True:
                try:
                    return self._decoded(pool, video)
                except LostProcess:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(PAUSE)
        finally:
            self._free.put(pool)

    def start(self) -> None:
        """Start all processes, which import torch first: seconds of a core for each."""
        with ThreadPoolExecutor(len(self._pools)) as threads:
            list(threads.map(lambda pool: self._decoded(pool, Video("", ())), self._pools))

    def close(self) -> None:
        """End the processes."""
        for pool in self._pools:
            pool.close()

    def _decoded(self, pool: Pool, video: Video) -> Decoded:
        result, reason = None, ""
        for found in pool.results([[video]]):
            if isinstance(found, Lost):
                reason = found.reason
            else:
                result = found.result
        if result is None:
            raise ReadError(reason)
        process, decoded = result
        self._seen.add(process)
        if isinstance(decoded, ReadError):
            raise decoded
        return decoded


def _load(video: Video) -> Decoded | ReadError:
    """Count the frames of a video, and decode those of its views."""
    items, remarks = [], dict[str, None]()
    facts: dict[tuple[str, bool], VideoFacts] = {}
    for reader, plan in video.cuts:
        timed = plan.sampling.fps is not None
        if (reader, timed) not in facts:
            facts[reader, timed] = count_file(
                CountJob(video.file, video.file, reader, -1, 0, timed)
            )
        known = facts[reader, timed]
        if known.error:
            return ReadError(known.error)
        samples = Videos.of("/", [Sample(video.file, 0)], {video.file: known})
        try:
            data.refuse_untimed(samples, plan.sampling)
        except ReadError as error:
            return error
        remarks |= dict.fromkeys(filter(None, [known.truncated, known.remark]))
        item = EvalViews.of(samples, plan)[0]
        if item["error"]:
            return ReadError(item["error"])
        items.append(item)
    return Decoded(items, list(remarks))


def _join(found: list[Decoded | ReadError]) -> tuple[Any, Sequence[np.ndarray]]:
    [decoded] = found
    if isinstance(decoded, ReadError):
        return (os.getpid(), decoded), []
    joined = [join_views([item]) for item in decoded.items]
    items = [item for item, _ in joined]
    arrays = [array for _, arrays in joined for array in arrays]
    return (os.getpid(), Decoded(items, decoded.remarks)), arrays


def _split(result: Any, memory: np.ndarray) -> Any:
    process, decoded = result
    if isinstance(decoded, ReadError):
        return result
    items, start = [], 0
    for item in decoded.items:
        end = start + int(np.prod(item["frames"]))
        items.append(views_of(item, memory[start:end]))
        start = end
    return process, Decoded(items, decoded.remarks)
