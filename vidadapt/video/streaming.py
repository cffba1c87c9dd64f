"""Frames of a film at given times, in one sequential decode that keeps one frame in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter

from vidadapt.video.orientation import shown_size
from vidadapt.video.sequential import (
    ReadError,
    best_stream,
    cause_of,
    converted,
    data_packets,
    decode,
    open_container,
    refuse_count,
)

ROUNDING = Fraction(1, 1000)  # seconds by which a container may round a timestamp up (Matroska)


@dataclass
class Film:
    """What is known of a film while it is read.

    Attributes:
        path: of its file.
        promised: seconds that its header promises; None: it does not say.
        offset: seconds that players show before the first frame, where sound begins earlier.
        seconds: from the first frame to the end of the last one that was read.
        num_frames: that were decoded.
        without_time: frames without a timestamp, or with one that does not ascend; each is shown
            for the mean duration of a frame.
        longest: seconds for which a frame is shown, the longest.
        faults: decoding errors, in their order.
        changes: for each frame that was looked at but the first, its time and the mean difference
            of its pixels from those of the one before.
    """

    path: str
    promised: float | None = None
    offset: float = 0.0
    seconds: Fraction = Fraction(0)
    num_frames: int = 0
    without_time: int = 0
    longest: Fraction = Fraction(0)
    faults: list[Exception] = field(default_factory=list)
    changes: list[tuple[Fraction, float]] = field(default_factory=list)


def open_film(path: str) -> Film:
    """Read a film's header.

    Raises:
        ReadError, TransientReadError: it is no readable video.
    """
    with open_container(path) as container:
        stream = best_stream(container, path)
        length, tick, seconds = stream.duration, stream.time_base, None
        if length and tick:
            seconds = float(length * tick)
        elif container.duration and len(container.streams) == 1:  # else it may be the sound's
            seconds = container.duration / 1e6
        offset = 0.0
        if stream.start_time is not None and container.start_time is not None and tick:
            offset = max(0.0, float(stream.start_time * tick) - container.start_time / 1e6)
        return Film(path, seconds, offset)


def frames_at(film: Film, times: Iterable[Fraction]) -> Iterator[tuple[Fraction, int, np.ndarray]]:
    """Yield (time, number of the frame, frame) for each time, until the film ends.

    The frame at a time is the one shown then: the last one whose timestamp is not later by more
    than `ROUNDING`. A frame is converted once, however many times it is shown at.

    Args:
        film: from `open_film`; it is filled while frames are read.
        times: ascending, in seconds from the first frame.

    Yields:
        Frames (H, W, 3) uint8 RGB, turned as the metadata says, of the first frame's size.

    Raises:
        ReadError: the film cannot be opened, has too many frames, or one cannot be converted.
    """
    yield from shown_at(film.path, _shown(film), times)


def shown_at(
    path: str, shown: Iterable[tuple[int, Any, Fraction]], times: Iterable[Fraction]
) -> Iterator[tuple[Fraction, int, np.ndarray]]:
    """Yield what `frames_at` does, of decoded frames.

    Args:
        path: of their video, for messages.
        shown: number, decoded frame, and the time until which it is shown, in their order.
        times: ascending, in seconds from the first frame.

    Raises:
        ReadError: one cannot be converted.
    """
    convert, wanted = VideoReformatter(), iter(times)
    at = next(wanted, None)
    size: tuple[int, int] | None = None
    for number, frame, end in shown:
        size = size or shown_size(frame)
        rgb: np.ndarray | None = None
        while at is not None and at + ROUNDING < end:
            if rgb is None:
                rgb = converted(path, convert, frame, number, size)
            yield at, number, rgb
            at = next(wanted, None)
        if at is None:
            return


def _shown(film: Film) -> Iterator[tuple[int, Any, Fraction]]:
    """Yield the number of each frame, the frame, and the time until which it is shown."""
    waiting: tuple[int, Any] | None = None
    with open_container(film.path) as container:
        stream = best_stream(container, film.path)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        # AVI numbers its packets in the order of decoding: its frames are shown at a constant rate.
        by_count = container.format.name == "avi"
        first: Fraction | None = None
        last = Fraction(0)
        for packet in itertools.chain(data_packets(container, stream, film.faults), [None]):
            for frame in decode(stream.codec_context, packet, film.faults):
                stamp = None if frame.pts is None else frame.pts * stream.time_base
                if first is None:
                    first = stamp or Fraction(0)
                time = None if stamp is None else stamp - first
                if waiting is not None:
                    if by_count:
                        time = film.num_frames / rate
                    elif time is None or time <= last:
                        film.without_time += 1
                        time = last + 1 / rate
                    film.seconds, film.longest = time, max(film.longest, time - last)
                    yield *waiting, time
                    last = time
                refuse_count(film.path, film.num_frames + 1)
                waiting = film.num_frames, frame
                film.num_frames += 1
    if waiting is None:
        cause = cause_of(film.faults[0]) if film.faults else "the stream is empty"
        raise ReadError(f"{film.path}: no frame decodes ({cause})")
    film.seconds = last + 1 / rate
    yield *waiting, film.seconds
