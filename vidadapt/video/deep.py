"""Read a segment deep in a film from the key frame before it, and not from the film's beginning.

A seek leads to the key frame; the frames decoded from there are known by their timestamps, and each
one that is wanted is compared with its checksum from a sequential decode. Where one is missing or
differs (open groups of pictures, lost packets, odd timestamps), the film is read as without this.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter

from vidadapt.video.checksums import frame_checksum
from vidadapt.video.facts import VideoFacts
from vidadapt.video.orientation import shown_size
from vidadapt.video.sequential import (
    DECODE_ERRORS,
    ReadError,
    best_stream,
    data_packets,
    open_container,
    upright_rgb,
)
from vidadapt.video.sparse import SKIPPED

DEEP = 100  # frames before a segment; decoding fewer costs about what a seek does
GAP = 250  # frames without a wanted one, after which another seek is tried

Read = Callable[[Sequence[int]], Any]


def pays(facts: VideoFacts) -> bool:
    """Check if the frames before a segment are worth a seek, and its timestamps allow one.

    Frames of another size than the film's first are scaled to that: they are not read so.
    """
    known = facts.reader in ("pyav", "pyav_sparse") and facts.container != "avi"
    return known and facts.first_frame >= DEEP and len(facts.times) == facts.num_frames


def read_from_key_frame(
    path: str, facts: VideoFacts, checks: np.ndarray, otherwise: Read | None, wanted: Sequence[int]
) -> list[np.ndarray] | None:
    """Frames at `wanted` (ascending, distinct) in the file, (H, W, 3) uint8, each one checked.

    Args:
        facts: of the segment, which holds all that is wanted.
        checks: by index in the file.
        otherwise: reads them where this does not find them; its None is returned, too.
    """
    try:
        found = _found(path, facts, checks, wanted)
    except (*DECODE_ERRORS, ReadError):
        found = None
    return otherwise(wanted) if found is None and otherwise is not None else found


def _found(
    path: str, facts: VideoFacts, checks: np.ndarray, wanted: Sequence[int]
) -> list[np.ndarray] | None:
    convert, found = VideoReformatter(), {}
    with open_container(path) as container:
        stream = best_stream(container, path)
        for run in _runs(wanted):
            seconds = facts.times[np.array(run) - facts.first_frame].tolist()
            stamps = [round(t / stream.time_base) + (stream.start_time or 0) for t in seconds]
            place_of = dict(zip(stamps, run, strict=True))
            for frame in _decoded_from(container, stream, path, facts, stamps):
                place = place_of.pop(frame.pts, None)
                if place is None:
                    continue
                size = shown_size(frame)
                if frame_checksum(frame) != checks[place] or size != (facts.width, facts.height):
                    return None
                found[place] = upright_rgb(convert, frame, size)
                if not place_of:
                    break
    return [found[place] for place in wanted] if len(found) == len(wanted) else None


def _decoded_from(
    container: Any, stream: Any, path: str, facts: VideoFacts, stamps: Sequence[int]
) -> Iterator[Any]:
    """Decode from the key frame before the first of some frames, until the last is passed."""
    context, wanted = stream.codec_context, set(stamps)
    container.seek(stamps[0], stream=stream, backward=True)
    context.flush_buffers()
    skips = facts.reader == "pyav_sparse" and facts.codec in SKIPPED
    for packet in itertools.chain(data_packets(container, stream, []), [None]):
        if skips and packet is not None:
            context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        for frame in context.decode(packet):
            yield frame
            if frame.pts is None or frame.pts > stamps[-1]:
                return


def _runs(wanted: Sequence[int]) -> list[list[int]]:
    """Wanted indices, divided where more than `GAP` frames lie between two.

    >>> _runs([1, 2, 400, 401])
    [[1, 2], [400, 401]]
    """
    runs = [[wanted[0]]]
    for before, index in itertools.pairwise(wanted):
        if index - before > GAP:
            runs.append([])
        runs[-1].append(index)
    return runs
