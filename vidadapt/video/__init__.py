"""A video file becomes exact frames, or an error that names it.

`open_video` decodes a file once and returns a `Video`, whose `facts` an index keeps; `open_counted`
opens it again with them, and decodes nothing.
"""

from vidadapt.video.bounds import ALLOW_OUTSIDE, MAX_FRAMES, control_character, leads_outside
from vidadapt.video.checksums import frame_checksum
from vidadapt.video.facts import COUNTED_WITH, NO_TIMES, VideoFacts, cut_short
from vidadapt.video.images import READER as IMAGE_READER
from vidadapt.video.jpeg import decoded_jpeg
from vidadapt.video.live import LiveStream, live_frames, live_source, require_camera
from vidadapt.video.packed import (
    file_of,
    make_packed_indexes,
    packed_parts,
    state_now,
    tar_and_name,
)
from vidadapt.video.packed_index import StrictInfo, make_packed_index, packed_index_path
from vidadapt.video.readers import (
    READERS,
    Video,
    check_reader,
    joined_frames,
    open_counted,
    open_video,
)
from vidadapt.video.seekers import Frames
from vidadapt.video.segments import Span, cut, film_and_span, film_of, same_name
from vidadapt.video.sequential import (
    ReadError,
    TransientReadError,
    all_frames,
    best_stream,
    cause_of,
    open_container,
    read_sequentially,
    unreadable_bytes,
)
from vidadapt.video.streaming import ROUNDING, Film, frames_at, open_film, shown_at
from vidadapt.video.survey import frame_times, promised_frames, times_at

__all__ = [
    "ALLOW_OUTSIDE",
    "COUNTED_WITH",
    "IMAGE_READER",
    "MAX_FRAMES",
    "NO_TIMES",
    "READERS",
    "ROUNDING",
    "Film",
    "Frames",
    "LiveStream",
    "ReadError",
    "Span",
    "StrictInfo",
    "TransientReadError",
    "Video",
    "VideoFacts",
    "all_frames",
    "best_stream",
    "cause_of",
    "check_reader",
    "control_character",
    "cut",
    "cut_short",
    "decoded_jpeg",
    "file_of",
    "film_and_span",
    "film_of",
    "frame_checksum",
    "frame_times",
    "frames_at",
    "joined_frames",
    "leads_outside",
    "live_frames",
    "live_source",
    "make_packed_index",
    "make_packed_indexes",
    "open_container",
    "open_counted",
    "open_film",
    "open_video",
    "packed_index_path",
    "packed_parts",
    "promised_frames",
    "read_sequentially",
    "require_camera",
    "same_name",
    "shown_at",
    "state_now",
    "tar_and_name",
    "times_at",
    "unreadable_bytes",
]
