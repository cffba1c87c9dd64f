"""Segments of films, named by a media fragment (W3C, Media Fragments URI 1.0) behind the path.

    film.mp4#t=12.4,15.8      frames shown from 12.4 s on, and before 15.8 s
    film.mp4#t=12.4           to the end; #t=,15.8: from the beginning
    film.mp4#frames=120,180   frames 120 to 179, as a Python slice

Seconds count from the first frame that is shown, by the container's timestamps of the frames that
decode: what an edit list hides is not there, and the rate may vary. Only such a fragment at the
very end of a path counts, and only one; any other `#` belongs to the file's name. A local file
that really has such a name is not read but refused, see `lists.counting`.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from vidadapt.video.bounds import from_root
from vidadapt.video.facts import VideoFacts

_SECONDS, _FRAME = r"[0-9]{1,9}(?:\.[0-9]{0,30})?", "[0-9]{1,9}"
_FRAGMENT = re.compile(
    rf"(?P<film>.*[^/])#(?:t=(?=[0-9,])(?P<t>{_SECONDS})?(?:,(?P<t_end>{_SECONDS}))?"
    rf"|frames=(?=[0-9,])(?P<frames>{_FRAME})?(?:,(?P<frames_end>{_FRAME}))?)",
    re.DOTALL,
)


class Span(NamedTuple):
    """A part of a film, from `start` up to but without `end`, in seconds or frames.

    `end` is None where the part goes to the end of the film.
    """

    unit: Literal["t", "frames"]
    start: Fraction
    end: Fraction | None

    @property
    def is_empty(self) -> bool:
        """Whether it ends where it begins, or before."""
        return self.end is not None and self.end <= self.start


def film_and_span(path: str) -> tuple[str, Span | None]:
    """Path of the file, and the part of it that a path names; None: the whole file.

    >>> film_and_span("a/b.mp4#t=1.5,2"), film_and_span("a/b.mp4#frames=,30")[1].end
    (('a/b.mp4', Span(unit='t', start=Fraction(3, 2), end=Fraction(2, 1))), Fraction(30, 1))
    >>> film_and_span("a #1.mp4"), film_and_span("a.mp4#t="), film_and_span("a#t=1.mp4")
    (('a #1.mp4', None), ('a.mp4#t=', None), ('a#t=1.mp4', None))
    """
    return _parsed(path) if "#" in path else (path, None)


@functools.lru_cache(maxsize=1 << 12)
def _parsed(path: str) -> tuple[str, Span | None]:
    match = _FRAGMENT.fullmatch(path)
    if match is None or path.endswith((",", "=")):
        return path, None
    if film_and_span(match["film"])[1] is not None:
        return path, None  # a segment has no segments: their numbers would be counted from its own
    unit: Literal["t", "frames"] = "t" if match["t"] or match["t_end"] else "frames"
    start, end = match[unit], match[f"{unit}_end"]
    return match["film"], Span(unit, Fraction(start or 0), None if end is None else Fraction(end))


def film_of(path: str) -> str:
    """Path of the file that a path names, or a part of which it names.

    >>> film_of("a.mp4#t=1,2"), film_of("a.mp4")
    ('a.mp4', 'a.mp4')
    """
    return film_and_span(path)[0]


def same_name(path: str, root: str | Path = "") -> str:
    """A path in one spelling, for comparisons: `a//b#t=1,2.0` and `a/b#t=1.0,2` are the same.

    Args:
        root: folder, or its URL, that the path is relative to: what is below it is the same as a
            relative and as an absolute path. Default: the working folder.

    >>> same_name("a//b.mp4#t=1,2.50") == same_name("a/b.mp4#t=01.0,2.5")
    True
    >>> same_name("/data/a/b.mp4", "/data") == same_name("./a/b.mp4", "/data")
    True
    """
    film, span = film_and_span(path)
    spelt = os.path.normpath(from_root(film, root))
    return spelt + (f"#{span.unit}={span.start},{span.end}" if span else "")


def cut(film: VideoFacts, path: str) -> VideoFacts:
    """Facts of the segment that a path names, from those of its whole film.

    Its error says why it has no frame, its `remark` what its times rest on, and where it is shorter
    than its name says. Only its own checks and times are kept.

    Args:
        film: with times, unless it cannot be read.
    """
    film = replace(film, path=path)
    span = film_and_span(path)[1]
    if span is None or film.error:
        return film
    if problem := _problem(film, span):
        return _without_frames(film, problem)
    first, stop = _places(film, span)
    if stop <= first:
        return _without_frames(film, _why_empty(film, span, first))
    count, times, whole = film.num_frames, film.times, _length(film)
    length = None
    if whole is not None and len(times):
        length = (whole if stop == count else float(times[stop])) - float(times[first])
    promised = film.header_frames if stop == count else None
    return replace(
        film,
        num_frames=stop - first,
        header_frames=None if promised is None else max(0, promised - first),
        duration=length,
        checks=film.checks[first:stop],
        times=times[first:stop],
        first_frame=first,
        remark="; ".join(_remarks(film, span, stop - first)),
    )


def _problem(film: VideoFacts, span: Span) -> str:
    """Reason why a film has no such part, whatever its length; empty: it may have."""
    if film.reader in ("image", "packed"):
        kind = {"image": "an image", "packed": "a video of packed frames"}[film.reader]
        return f"{kind} has no segments; list segments of the films themselves"
    if span.is_empty:
        return "the segment ends where it begins, or before"
    if span.unit == "t" and not len(film.times):
        return (
            "neither timestamps nor the header say when its frames are shown; name the segment by "
            "#frames=FIRST,STOP"
        )
    return ""


def _places(film: VideoFacts, span: Span) -> tuple[int, int]:
    """First frame of a part, and the one after its last."""
    if span.unit == "frames":
        ends = (int(span.start), film.num_frames if span.end is None else int(span.end))
        return min(ends[0], film.num_frames), min(ends[1], film.num_frames)
    first = int(np.searchsorted(film.times, float(span.start)))
    if span.end is None:
        return first, film.num_frames
    return first, int(np.searchsorted(film.times, float(span.end)))


def _length(film: VideoFacts) -> float | None:
    """Seconds from the first frame to the end of the last, which is shown as long as the mean."""
    times = film.times
    if len(times) > 1:
        return float(times[-1]) * len(times) / (len(times) - 1)
    return 1 / film.frame_rate if film.frame_rate else None


def _why_empty(film: VideoFacts, span: Span, first: int) -> str:
    if first == film.num_frames:
        end = (
            f"film of {film.num_frames} frames"
            if span.unit == "frames"
            else f"film whose last frame is shown at {film.times[-1]:.7g} s"
        )
        return f"the segment begins behind the end of a {end}"
    around = [f"{film.times[place]:.7g}" for place in (first - 1, first) if place >= 0]
    return f"the segment holds no frame: the nearest is shown at {' and '.join(around)} s"


def _remarks(film: VideoFacts, span: Span, count: int) -> Iterator[str]:
    if film.remark and (span.unit == "t" or not len(film.times)):
        yield film.remark
    if span.end is None:
        return
    if span.unit == "frames":
        end, length, frame, unit = float(span.end), float(film.num_frames), 1.0, "frames"
    else:
        end, length, unit = float(span.end), _length(film) or 0.0, "seconds"
        frame = length / film.num_frames
    if end > length + frame:
        yield (
            f"the segment ends at {end:.7g}, but the film after {length:.7g} {unit}: it has "
            f"{count} frames"
        )


def _without_frames(film: VideoFacts, error: str) -> VideoFacts:
    nothing = film.checks[:0]
    return replace(
        film, num_frames=0, reader="", error=error, checks=nothing, times=film.times[:0], remark=""
    )
