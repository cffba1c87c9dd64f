"""Small moving pictures of videos, for a page: animated WebP files."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from vidadapt import data
from vidadapt.config import DataConfig
from vidadapt.files import joined
from vidadapt.lists import frame_counts
from vidadapt.processes import run_isolated
from vidadapt.video import ALLOW_OUTSIDE, Frames, VideoFacts, leads_outside, open_video

FRAMES = 8  # of a thumbnail
SIDE = 144  # longest side, in pixels
SECONDS = 2.0  # that it takes to play
QUALITY = 55  # of WebP: about 2 kB a frame
TIME_LIMIT = 60.0  # seconds for one video


@dataclass(frozen=True)
class Thumbnail:
    """Frames of a whole video, equally far apart.

    Attributes:
        moving: an animated WebP file.
        still: its middle frame, a WebP file.
        error: why there are none; empty: there are.
    """

    width: int = 0
    height: int = 0
    moving: bytes = b""
    still: bytes = b""
    error: str = ""


def thumbnails(
    list_path: Path | str, root: Path | str, paths: Sequence[str], settings: DataConfig
) -> dict[str, Thumbnail]:
    """Make the thumbnails of some videos of a list; none fails, each may have an error.

    Videos that the index beside the list knows are read as in training and evaluation; all
    others are decoded in sequence. Nothing is written.

    Args:
        paths: list paths.
        settings: reader, index_dir, quarantine, num_workers and allow_outside_root matter.

    Raises:
        OSError, ValueError: the index or the quarantine cannot be read.
        LostProcess: no process can be started.
    """
    outside = [
        path
        for path in dict.fromkeys(paths)
        if not settings.allow_outside_root and leads_outside(path, root)
    ]
    found = {path: Thumbnail(error=f"leads out of {root}; {ALLOW_OUTSIDE}") for path in outside}
    wanted = [path for path in dict.fromkeys(paths) if path not in found]
    facts = frame_counts(
        list_path, root, wanted, settings.reader, index_dir=settings.index_dir, decode=False
    )
    unread = {path: one.error for path, one in facts.items() if one.error}
    found |= {path: Thumbnail(error=_without_file(root, path, why)) for path, why in unread.items()}
    make = partial(_thumbnail, root, facts)
    readable = [path for path in wanted if path not in unread]
    if settings.num_workers == 0 or not readable:
        return found | {path: make(path) for path in readable}
    workers = min(2, data.cores(), len(readable))
    made = run_isolated(make, readable, workers, TIME_LIMIT, start=data.one_thread)
    return found | {path: one or Thumbnail(error=why) for path, one, why in made}


def _thumbnail(root: Path | str, facts: Mapping[str, VideoFacts], path: str) -> Thumbnail:
    """Make one; any failure becomes its error."""
    file, known = joined(root, path), facts.get(path)
    try:
        if known is None:
            with open_video(file, "pyav") as video:
                frames = video.each(_spread(len(video)))
        else:
            frames, _ = data.read_frames(file, known, _spread(known.num_frames))
        return _encoded(frames)
    except Exception as error:  # the page lists it
        return Thumbnail(error=_without_file(root, path, str(error)) or type(error).__name__)


def _without_file(root: Path | str, path: str, cause: str) -> str:
    """The cause without the file, which is named beside it."""
    return cause.removeprefix(f"{joined(root, path)}: ")


def _spread(num_frames: int) -> np.ndarray:
    """Indices of `FRAMES` frames, the middle ones of equal parts; of a shorter video all.

    >>> _spread(80).tolist(), _spread(3).tolist()
    ([5, 15, 25, 35, 45, 55, 65, 75], [0, 1, 2])
    """
    count = min(FRAMES, num_frames)
    return (np.arange(count) * 2 + 1) * num_frames // (2 * count)


def _encoded(frames: Frames) -> Thumbnail:
    """Encode frames (H, W, 3) uint8 of one size."""
    images = list(_small(frames))
    still, moving = io.BytesIO(), io.BytesIO()
    images[len(images) // 2].save(still, format="WEBP", quality=QUALITY)
    images[0].save(
        moving,
        format="WEBP",
        quality=QUALITY,
        save_all=True,
        append_images=images[1:],
        duration=round(1000 * SECONDS / len(images)),
        loop=0,
    )
    return Thumbnail(*images[0].size, moving.getvalue(), still.getvalue())


def _small(frames: Frames) -> Iterator[Image.Image]:
    height, width = frames[0].shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    for frame in frames:
        image = Image.fromarray(np.ascontiguousarray(frame))
        yield image.resize(size, Image.Resampling.LANCZOS) if scale < 1 else image
