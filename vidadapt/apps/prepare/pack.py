"""Pack many videos as JPEG frames into a few large tar files, which `video.packed` reads.

Each video becomes a part of its own, the piece of a tar that holds its frames, so that parts are
made in parallel and survive a kill. Parts are joined in the list's order, so the shards have the
same bytes for any number of processes.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vidadapt.apps.prepare.copies import (
    CopyJob,
    Outcome,
    below_floor,
    failed,
    fitted,
    measured,
    of_truncated,
    scaled_frames,
    squared_error,
)
from vidadapt.video import decoded_jpeg, make_packed_index, packed_index_path, promised_frames

END = bytes(2 * tarfile.BLOCKSIZE)  # of every tar file


def pack_video(job: CopyJob) -> Outcome:
    """Write the part of a shard that holds one video; every JPEG is decoded again and compared."""
    try:
        with contextlib.ExitStack() as cleanup:
            job.target.parent.mkdir(parents=True, exist_ok=True)
            cleanup.callback(job.partial.unlink, missing_ok=True)
            facts = os.stat(job.source)  # noqa: PTH116
            promised = promised_frames(job.source)
            errors: list[float] = []
            shape: tuple[int, ...] = ()
            with job.partial.open("wb") as part:
                for frame in scaled_frames(job.source, lambda h, w: fitted(h, w, job.short_side)):
                    data = jpeg(frame, job.quality)
                    again = decoded_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
                    part.write(_member(f"{job.name}/{len(errors):06d}.jpg", data))
                    errors.append(squared_error(frame, again))
                    shape = frame.shape
            copy = measured(job, "", facts, errors, shape)
            if problem := below_floor(job, copy.worst_psnr):
                return Outcome(None, None, problem)
            job.partial.replace(job.target)
            return Outcome(copy, None, notes=of_truncated(job.source, promised, copy.frames))
    except Exception as error:
        return failed(job, error)


def jpeg(frame: np.ndarray, quality: int) -> bytes:
    """A frame (H, W, 3) uint8 as a JPEG file with colours at half the size (4:2:0).

    Videos store colours in this way, too. Full colours (4:4:4) cost a fifth more bytes and a
    quarter more time to decode; in most videos the same bytes gain as much if spent on quality.
    """
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=quality, subsampling="4:2:0", optimize=True)
    return file.getvalue()


def write_shard(shard: Path, parts: Sequence[Path]) -> None:
    """Join parts to a tar with its index; the tar appears when both are whole.

    The index fits the tar once that is renamed, which changes neither its size nor its time.
    """
    partial = shard.with_name(f".{shard.name}.{os.getpid()}.partial")
    try:
        shard.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            for part in parts:
                with part.open("rb") as piece:
                    shutil.copyfileobj(piece, file, 1 << 20)
            file.write(END)
        make_packed_index(partial, packed_index_path(shard))
        partial.replace(shard)
    finally:
        partial.unlink(missing_ok=True)


def _member(name: str, data: bytes) -> bytes:
    """A tar member: header, data, and zeros up to whole blocks; the same for the same data."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    header = member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return header + data + bytes(-len(data) % tarfile.BLOCKSIZE)
