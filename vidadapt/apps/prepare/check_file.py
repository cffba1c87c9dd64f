"""Decode one whole file, in a process that may die of it."""

from __future__ import annotations

from dataclasses import replace

from vidadapt.lists.counting import CountJob, count_file, failed
from vidadapt.video import ReadError, TransientReadError, VideoFacts, open_video

CHUNK = 64  # packed frames in memory at once


def decode_whole(job: CountJob) -> VideoFacts:
    """Return what `count_file` finds, and decode packed frames too, which it does not decode."""
    found = count_file(job)
    if found.error or found.reader != "packed":
        return found
    sizes = set()
    try:
        with open_video(job.file) as video:
            for start in range(0, len(video), CHUNK):
                frames = video.frames(range(start, min(start + CHUNK, len(video))))
                sizes.add((frames.shape[2], frames.shape[1]))
        if len(sizes) > 1:
            raise ReadError(f"{job.file}: its frames differ in size")
    except TransientReadError as error:
        return failed(job, str(error), holds=False)
    except (ReadError, MemoryError) as error:
        return failed(job, str(error) or repr(error), holds=isinstance(error, ReadError))
    width, height = sizes.pop()
    return replace(found, container="tar", width=width, height=height)
