"""Make loaders of clips and views from lists; find first every problem that can be found early."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidadapt.config import DataConfig
from vidadapt.data.by_time import refuse_untimed
from vidadapt.data.changes import Changes
from vidadapt.data.clips import EvalViews, TrainClips
from vidadapt.data.epochs import ClassDraws, EpochBatches
from vidadapt.data.loaders import EvalLoader, TrainLoader
from vidadapt.data.plan import DataPlan
from vidadapt.data.transforms import cut_views
from vidadapt.data.worker_count import cores, loader_processes
from vidadapt.files import PATIENCE, absolute
from vidadapt.lists import (
    Sample,
    Samples,
    Videos,
    barred_files,
    barring,
    counted_videos,
    frame_counts,
    listing,
    manifest_hash,
    refuse_mixture,
    remarks_on,
)
from vidadapt.video import ReadError, VideoFacts


@dataclass(frozen=True)
class VideoList:
    """A list whose files have been looked up.

    Attributes:
        path: the list file.
        samples: the videos, in the list's order, without those left out of training, with what is
            known of each.
        left_out: unreadable and quarantined training videos that are not in `samples`, as
            "file: cause". Evaluation leaves nothing out.
        warnings: one line per video with a defect that does not stop the run (truncated files,
            segments' odd ends; unreadable and quarantined videos, wrong in evaluation).
        manifest: hash of the samples and the label names.
    """

    path: str
    samples: Videos
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    manifest: str = ""


def load_list(
    data: DataConfig,
    plan: DataPlan,
    list_path: str | Path,
    samples: Iterable[Sample],
    *,
    training: bool,
    progress: bool = True,
) -> VideoList:
    """Look up each file of a list in its video index; report every defect now.

    The index beside the list is built at first use, which takes a while for a large set. One
    process does this for all: the result is small, see `Videos`.

    Args:
        training: leave unreadable videos out, up to `data.max_unreadable`, and all quarantined
            ones. Otherwise they stay and are listed as warnings.

    Raises:
        ListError: a missing file, with `data.check_files`; images among videos.
        ReadError: more unreadable training videos than allowed, no readable video at all, or
            truncated files with `data.truncated` "error".
        ValueError: an unusable quarantine or index.
    """
    quarantined, samples = barred_files(data), Samples.of(samples)
    videos = counted_videos(
        list_path,
        data.root,
        samples,
        data.reader,
        barred=quarantined,
        index_dir=data.index_dir,
        # No model computes meanwhile, so that all cores may decode.
        num_workers=cores() if data.num_workers is None else data.num_workers,
        progress=progress,
        time_limit=data.count_timeout,
        check_files=data.check_files,
        timed=plan.sampling.fps is not None,
    )
    refuse_untimed(videos, plan.sampling)
    frames = videos.column("num_frames")
    short = np.flatnonzero((frames > 0) & (videos.column("header_frames") > frames)).tolist()
    cut = [line for line in (videos.facts(place).truncated for place in short) if line]
    if cut and data.truncated == "error":
        raise ReadError(
            listing(f"{list_path}: {len(cut)} truncated video(s), and data.truncated=error", cut)
        )
    odd = remarks_on(videos)
    causes = {
        videos.path(place): videos.facts(place).error
        for place in np.flatnonzero(frames == 0).tolist()
    }
    lines = tuple(causes.values())
    if not frames.any():
        raise ReadError(listing(f"{list_path}: no video can be read", lines))
    refuse_mixture({str(list_path): videos})
    if not training:
        manifest = manifest_hash(samples, plan.label_names)
        return VideoList(str(list_path), videos, (), (*lines, *cut, *odd), manifest)
    unreadable = [
        cause for path, cause in causes.items() if not barring(quarantined, path, data.root)
    ]
    _check_unreadable(list_path, unreadable, data.max_unreadable)
    manifest = manifest_hash(itertools.compress(samples, frames > 0), plan.label_names)
    readable = videos.at(np.flatnonzero(frames > 0))
    return VideoList(str(list_path), readable, lines, (*cut, *odd), manifest)


def _check_unreadable(list_path: str | Path, unreadable: list[str], most: int) -> None:
    if len(unreadable) > most:
        raise ReadError(
            listing(
                f"{list_path}: {len(unreadable)} unreadable training video(s), "
                f"data.max_unreadable allows {most}; mend them, remove them from the list, list "
                "them in data.quarantine (vidadapt check_videos does), or raise "
                "data.max_unreadable",
                unreadable,
            )
        )


def train_loader(
    data: DataConfig,
    plan: DataPlan,
    videos: VideoList,
    *,
    batch_size: int,
    seed: int,
    accumulation: int = 1,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> TrainLoader:
    """The loader of this rank's micro-batches, see `TrainLoader`.

    Call `loader.batch_sampler.set_epoch(epoch)` before each `for batch in loader`. A batch depends
    on the seed, the epoch and the global batch alone: batches are the same with any number of
    workers, and global batches the same with any number of processes.

    Raises:
        ValueError: fewer samples than one global batch, see `EpochBatches`.
    """
    clips = TrainClips(
        videos.samples,
        plan.sampling,
        crop_size=plan.crop_size,
        framing=plan.framing,
        augmentation=plan.augmentation,
        seed=seed,
        patience=_patience(data),
    )
    by_class = None
    if data.class_sampling != "natural":
        by_class = ClassDraws(videos.samples.labels, data.class_sampling)
    batches = EpochBatches(
        len(clips),
        seed,
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        accumulation=accumulation,
        repeats=data.repeated_augmentation,
        by_class=by_class,
    )
    return TrainLoader(
        clips,
        batches,
        normalization=plan.normalization,
        clip_timeout=data.clip_timeout,
        num_workers=loader_processes(data.num_workers),
        pin_memory=pin_memory,
    )


def eval_loader(
    data: DataConfig,
    plan: DataPlan,
    videos: VideoList,
    *,
    num_clips: int | None = None,
    num_crops: int | None = None,
    chosen: Sequence[int] | None = None,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
    changes: Changes | None = None,
) -> EvalLoader:
    """One item per video, unbatched, see `EvalViews`; rank r gets videos r, r + world_size, ...

    No shuffling and no padding: over all ranks every video comes exactly once, and a rank may have
    none. Validation during training passes num_clips=1 and num_crops=1 (the centre); the default is
    the plan's views. Of the `chosen` places in the list (default: all) rank r likewise gets the
    r-th, (r + world_size)-th, ... A video that hangs or kills its worker is marked as unreadable,
    see `EvalLoader`. Files that have changed since they were counted are reported to `changes`
    (default: stderr).
    """
    views = EvalViews.of(
        videos.samples, plan, num_clips=num_clips, num_crops=num_crops, patience=_patience(data)
    )
    wanted = range(len(views)) if chosen is None else chosen
    return EvalLoader(
        views,
        wanted[rank::world_size],
        clip_timeout=data.clip_timeout,
        num_workers=loader_processes(data.num_workers),
        pin_memory=pin_memory,
        changes=changes or Changes(None, data.changed),
    )


def count_files(paths: Sequence[str], reader: str, **counting: Any) -> dict[str, VideoFacts]:
    """Facts, by path, of files that are in no list; no index is kept.

    Args:
        paths: absolute.
        reader: key of `READERS`.
        counting: options of `counted_videos`; by default no progress is shown.
    """
    counting = {"progress": False, "limit_key": "time_limit"} | counting
    with tempfile.TemporaryDirectory() as scratch:
        return frame_counts(Path(scratch) / "videos", "/", paths, reader, **counting)


def centre_clips(
    videos: Sequence[str | Path], plan: DataPlan, reader: str, time_limit: float | None = 300.0
) -> torch.Tensor:
    """The middle clip and crop of each video: (B, 3, T, S, S) uint8.

    Frames are counted anew, in a separate process; for many videos use lists and loaders.

    Args:
        videos: files, or URLs of a store.
        reader: key of `READERS`.
        time_limit: seconds that counting one of them may take; None: no limit.

    Raises:
        ReadError: a video that cannot be read, with the cause.
        ValueError: no video.
    """
    if not videos:
        raise ValueError("videos: expected one or more")
    samples = [Sample(absolute(video), 0) for video in videos]
    timing = {"time_limit": time_limit, "timed": plan.sampling.fps is not None}
    counts = count_files([sample.path for sample in samples], reader, **timing)
    refuse_untimed(Videos.of("/", samples, counts), plan.sampling)
    views = EvalViews.of(Videos.of("/", samples, counts), plan, num_clips=1, num_crops=1)
    clips = []
    for item in map(views.__getitem__, range(len(views))):
        if item["error"]:
            raise ReadError(item["error"])
        clips.append(cut_views(item["frames"], item["clips"], item["corners"])[0])
    return torch.stack(clips)


def _patience(data: DataConfig) -> float:
    """Seconds to retry reads that fail for a moment, well within the time limit of a clip."""
    return PATIENCE if data.clip_timeout is None else min(PATIENCE, data.clip_timeout / 4)
