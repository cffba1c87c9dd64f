"""Segments in lists (see `video.segments`): one decode a film, and no frame in two splits."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from vidadapt.lists.file_counting import CountJob, facts_in
from vidadapt.lists.index import add_to_index
from vidadapt.lists.reading import ListError, Samples, listing
from vidadapt.lists.videos import Videos
from vidadapt.video import Span, VideoFacts, cut, film_and_span, film_of, same_name

Count = Callable[[Mapping[int, CountJob]], tuple[dict[int, VideoFacts], int]]
UNITS = ("#t=", "#frames=")
Part = tuple[str, Span | None]  # film, in one spelling, and what of it; None: all


def count_with_films(
    index: Path, jobs: Mapping[int, CountJob], count: Count
) -> tuple[dict[int, VideoFacts], int]:
    """Decode each film once, whatever number of its segments is listed; store a row for each.

    The film has a row, too, with the times of its frames: other segments of it, in this list or one
    that knows this index, need no decode.

    Args:
        jobs: by place in the list.
        count: decodes files and stores their rows, see `counting.count_unknown`.

    Returns:
        Facts that do not hold, by place in the list; and how many videos and segments were decoded
        and stored.
    """
    whole = {place: job for place, job in jobs.items() if film_of(job.path) == job.path}
    parts = {place: job for place, job in jobs.items() if place not in whole}
    if not parts:
        return count(jobs)
    films: dict[str, tuple[int, CountJob]] = {}
    for place, job in parts.items():
        film = film_of(job.path)
        films.setdefault(film, (place, job._replace(file=film_of(job.file), path=film, timed=True)))
    for place, job in whole.items():  # a film may be listed as such, too
        films[job.path] = (place, job._replace(timed=job.timed or job.path in films))
    known = facts_in([index], [job for _, job in films.values() if job.timed])
    left = {place: job for path, (place, job) in films.items() if path not in known}
    found, decoded = count(left)
    facts_of = {facts.path: facts for facts in found.values()}
    facts_of |= facts_in([index], [job for _, job in films.values() if job.timed])
    made = {
        place: cut(facts_of[film_of(job.path)], job.path)
        for place, job in parts.items()
        if film_of(job.path) in facts_of  # another process may have changed its row
    }
    held = [facts for facts in made.values() if facts.holds]
    add_to_index(index, held)
    loose = {place: facts for place, facts in found.items() if place in whole}
    loose |= {place: facts for place, facts in made.items() if not facts.holds}
    return loose, decoded + len(held) - sum(place in parts for place in left)


def shared_paths(one: Samples, other: Samples, root: str | Path) -> list[str]:
    """Paths of `other` that name a file which is also in `one`, or a part of it that overlaps one.

    Both are relative to `root`, where they are not absolute.

    Whether parts overlap that are named in frames here and in seconds there is not known yet, see
    `refuse_shared_frames`.
    """
    known = {hash(same_name(film_of(path), root)) for path in one.paths()}
    maybe = [path for path in other.paths() if hash(same_name(film_of(path), root)) in known]
    if not maybe:
        return []
    wanted = [_part(path, root) for path in maybe]
    films = {film for film, _ in wanted}
    there = [part for path in one.paths() if (part := _part(path, root))[0] in films]
    return list(itertools.compress(maybe, _meet(there, wanted)))


def refuse_shared_frames(lists: Mapping[str, Videos]) -> None:
    """Refuse counted lists, by split, of which two have frames of one film in common.

    Raises:
        ListError: with the segments.
    """
    every = itertools.chain.from_iterable(v.paths for v in lists.values() if v.has_segments)
    if len({unit for path in every for unit in UNITS if unit in path}) < 2:
        return  # `shared_paths` has found all
    parts = {split: _parts_in_frames(videos) for split, videos in lists.items()}
    for first, second in itertools.combinations(lists, 2):
        found = _meet(parts[first], parts[second])
        paths = list(itertools.compress(lists[second].paths, found))
        if paths:
            title = f"data.{first}_list and data.{second}_list share frames of {len(paths)} videos"
            raise ListError(listing(f"{title}; a frame belongs to one of them", paths))


def shared_films(one: Videos, other: Videos) -> int:
    """Return of how many films both lists have segments."""
    films = [
        {same_name(film_of(path), videos.root) for path in videos.paths if film_of(path) != path}
        for videos in (one, other)
        if videos.has_segments
    ]
    return len(films[0] & films[1]) if len(films) == 2 else 0


def remarks_on(videos: Videos) -> list[str]:
    """List what is odd in the times of videos and in the ends of segments, a line each."""
    if not (videos.has_segments or videos.timed):
        return []
    every = ((place, videos.part(place)[1]) for place in range(len(videos)))
    return [f"{videos.file(place)}: {remark}" for place, remark in every if remark]


def _part(path: str, root: str | Path) -> Part:
    film, span = film_and_span(path)
    return same_name(film, root), span


def _parts_in_frames(videos: Videos) -> list[Part]:
    """Film and frames of each video, as they were counted."""
    parts: list[Part] = []
    counts = videos.column("num_frames").tolist()
    for place, (path, count) in enumerate(zip(videos.paths, counts, strict=True)):
        first, _ = videos.part(place)
        span = Span("frames", Fraction(first), Fraction(first + count))
        parts.append((same_name(film_of(path), videos.root), span))
    return parts


def _meet(one: Iterable[Part], other: Sequence[Part]) -> list[bool]:
    """Return for each part of `other` whether it overlaps one of `one` in the same unit."""
    spans: defaultdict[tuple[str, str], list[tuple[Fraction, Fraction | float]]] = defaultdict(list)
    for film, span in one:
        for unit, start, end in _ends(span):
            spans[film, unit].append((start, end))
    # Of those that begin before a part ends, the one that ends last decides.
    begins = {key: [start for start, _ in sorted(found)] for key, found in spans.items()}
    lasts = {
        key: list(itertools.accumulate((end for _, end in sorted(found)), max))
        for key, found in spans.items()
    }
    met = []
    for film, span in other:
        before = [
            (lasts[film, unit][number - 1], start)
            for unit, start, end in _ends(span)
            if (number := bisect_left(begins.get((film, unit), ()), end))
        ]
        met.append(any(last > start for last, start in before))
    return met


def _ends(span: Span | None) -> list[tuple[str, Fraction, Fraction | float]]:
    """Unit and ends of a part; of a whole film in both units."""
    if span is None:
        return [(unit, Fraction(0), float("inf")) for unit in ("t", "frames")]
    return [(span.unit, span.start, float("inf") if span.end is None else span.end)]
