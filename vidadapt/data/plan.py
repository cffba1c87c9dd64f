"""From a list of video files to batches of clips; knows nothing of models or processes' launch.

Four calls: `resolve` the configuration into a `DataPlan`, `load_list` each list (which finds every
problem that can be known before training), then `train_loader` and `eval_loader`.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from vidadapt.config import DataConfig, EvalConfig
from vidadapt.console.naming import require_known
from vidadapt.data.changes import Changes
from vidadapt.data.clips import EvalViews, TrainClips, batch_of
from vidadapt.data.epochs import EpochBatches
from vidadapt.data.sampling import SAMPLINGS, Sampling
from vidadapt.data.transforms import NORMALIZATIONS, TRAIN_CROPS, cut_views
from vidadapt.data.watched import WatchedViews
from vidadapt.data.workers import cores, loader_processes, worker_options
from vidadapt.files.retrying import PATIENCE
from vidadapt.lists.counting import counted_videos, frame_counts
from vidadapt.lists.index import VideoFacts
from vidadapt.lists.quarantine import barred
from vidadapt.lists.reading import Sample, Samples, listing, manifest_hash, read_label_names
from vidadapt.lists.videos import Videos
from vidadapt.video.readers import READERS, ReadError, check_reader


@dataclass(frozen=True)
class Dataset:
    """What a data set's name stands for.

    Attributes:
        num_classes: K; None: as many as the label file has names.
        sampling: key of `SAMPLINGS`.
        flip: whether training clips are mirrored unless told otherwise.
        may_flip: False where mirroring turns one class into another; asking for it is an error.
    """

    num_classes: int | None
    sampling: str
    flip: bool
    may_flip: bool = True


DATASETS = {
    # "Pushing something from left to right" has a class of its own from right to left.
    "ssv2": Dataset(174, "adaptformer", flip=False, may_flip=False),
    "hmdb51": Dataset(51, "adaptformer", flip=True),
    "ucf101": Dataset(101, "videomae_dense", flip=True),
    "kinetics400": Dataset(400, "videomae_dense", flip=True),
    # One's own classes may tell left from right: mirroring must be asked for.
    "custom": Dataset(None, "uniform8", flip=False),
}


@dataclass(frozen=True)
class DataPlan:
    """What the data options come to, checked and complete.

    Attributes:
        dataset: key of `DATASETS`.
        num_classes: K.
        label_names: K class names in label order; None without a label file.
        sampling: the preset with the overrides of num_frames and stride.
        flip: whether training clips are mirrored at random.
        num_clips: temporal clips at evaluation.
        num_crops: spatial crops of each clip at evaluation.
        crop_size: S.
        normalization: key of `NORMALIZATIONS`, for `transforms.normalize` on the device.
    """

    dataset: str
    num_classes: int
    label_names: tuple[str, ...] | None
    sampling: Sampling
    flip: bool
    num_clips: int
    num_crops: int
    crop_size: int
    normalization: str


@dataclass(frozen=True)
class VideoList:
    """A list with its files looked at.

    Attributes:
        path: the list file.
        samples: the videos, in the list's order, less those left out of training, with what is
            known of each.
        left_out: unreadable and quarantined training videos that are not in `samples`, as
            "file: cause". Evaluation leaves nothing out.
        warnings: one line per video with a defect that does not stop the run (truncated files;
            unreadable and quarantined videos, which evaluation counts as wrong).
        manifest: hash of the samples and the label names.
    """

    path: str
    samples: Videos
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    manifest: str = ""


def resolve(
    data: DataConfig, evaluation: EvalConfig, label_names: Sequence[str] | None = None
) -> DataPlan:
    """Turn names and options into a plan.

    Args:
        label_names: of the classes, where they are known; default: those of `data.label_names`.

    Raises:
        ValueError: an unknown name (with the near ones), a value out of range, mirroring asked for
            where it changes the class, a stride in uniform sampling, no classes, or a label file
            that is missing, unusable or of another number of classes.
        ImportError: the reader asked for cannot be loaded.
    """
    _check_ranges(data)
    dataset = DATASETS[require_known("data.dataset", data.dataset, DATASETS)]
    require_known("data.normalization", data.normalization, NORMALIZATIONS)
    require_known("data.train_crop", data.train_crop, TRAIN_CROPS)
    check_reader(require_known("data.reader", data.reader, READERS))
    if label_names is None and data.label_names:
        label_names = read_label_names(data.label_names)
    names = None if label_names is None else tuple(label_names)
    if dataset.num_classes is None and names is None:
        raise ValueError(
            f"data.dataset {data.dataset!r} needs data.label_names: a file with one class name a "
            "line, in label order"
        )
    num_classes = dataset.num_classes or len(names or ())
    if names is not None and len(names) != num_classes:
        raise ValueError(
            f"{data.label_names or 'the run'} names {len(names)} classes, but {data.dataset} has "
            f"{num_classes}"
        )
    if data.flip and not dataset.may_flip:
        raise ValueError(
            f"data.flip must not be true for {data.dataset}: mirroring turns some of its classes "
            "into others; leave it out"
        )
    preset = SAMPLINGS[require_known("data.sampling", data.sampling or dataset.sampling, SAMPLINGS)]
    overrides: dict[str, Any] = {
        "num_frames": data.num_frames,
        "stride": data.stride,
        "num_clips": evaluation.num_clips,
        "num_crops": evaluation.num_crops,
    }
    sampling = replace(preset, **{k: v for k, v in overrides.items() if v is not None})
    return DataPlan(
        dataset=data.dataset,
        num_classes=num_classes,
        label_names=names,
        sampling=sampling,
        flip=dataset.flip if data.flip is None else data.flip,
        num_clips=sampling.num_clips,
        num_crops=sampling.num_crops,
        crop_size=data.crop_size,
        normalization=data.normalization,
    )


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
        samples: what `lists.read_list` found in the list.
        training: leave unreadable videos out, up to `data.max_unreadable`, and all quarantined
            ones. Otherwise they stay and are listed as warnings.

    Raises:
        ListError: a missing file, with `data.check_files`.
        ReadError: more unreadable training videos than allowed, no readable video at all, or
            truncated files with `data.truncated` "error".
        ValueError: an unusable quarantine or index.
    """
    quarantined, samples = barred(data), Samples.of(samples)
    videos = counted_videos(
        list_path,
        data.root,
        samples,
        data.reader,
        barred=quarantined,
        index_dir=data.index_dir,
        # No model computes meanwhile.
        num_workers=cores() if data.num_workers is None else data.num_workers,
        progress=progress,
        time_limit=data.count_timeout,
        check_files=data.check_files,
    )
    frames, promised = videos.column("num_frames"), videos.column("header_frames")
    broken = np.flatnonzero(frames == 0).tolist()
    short = np.flatnonzero((frames > 0) & (promised > frames)).tolist()
    cut = [line for line in (videos.facts(place).truncated for place in short) if line]
    if cut and data.truncated == "error":
        raise ReadError(
            listing(f"{list_path}: {len(cut)} truncated video(s), and data.truncated=error", cut)
        )
    causes = {os.path.normpath(videos.path(place)): videos.error(place) for place in broken}
    unreadable = [cause for path, cause in causes.items() if path not in quarantined]
    if len(broken) == len(videos):
        raise ReadError(listing(f"{list_path}: no video can be read", list(causes.values())))
    if training and len(unreadable) > data.max_unreadable:
        raise ReadError(
            listing(
                f"{list_path}: {len(unreadable)} unreadable training video(s), "
                f"data.max_unreadable allows {data.max_unreadable}; mend them, remove them from "
                "the list, list them in data.quarantine (tools/check_videos.py does), or raise "
                "data.max_unreadable",
                unreadable,
            )
        )
    readable = (frames > 0) if training else np.ones(len(videos), bool)
    kept = videos.at(np.flatnonzero(readable)) if training else videos
    lines = tuple(causes.values())
    return VideoList(
        path=str(list_path),
        samples=kept,
        left_out=lines if training else (),
        warnings=tuple(cut) if training else (*lines, *cut),
        manifest=manifest_hash(itertools.compress(samples, readable), plan.label_names),
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
) -> DataLoader[Any]:
    """The loader of this rank's micro-batches; its `batch_sampler` is an `EpochBatches`.

    Call `loader.batch_sampler.set_epoch(epoch)` before each `for batch in loader`. A batch is a
    dict with `clip` (B, 3, T, S, S) uint8, `label` (B,) int64 and `index` (B,) int64, places in
    `videos.samples`, see `clips.batch_of`. It depends on the seed, the epoch and the global batch
    alone: the same with any number of workers, and the global batches the same with any number of
    processes.
    `len(loader)` is the sampler's `steps` x accumulation.

    Raises:
        ValueError: fewer samples than one global batch, see `EpochBatches`.
    """
    clips = TrainClips(
        videos.samples,
        plan.sampling,
        crop_size=plan.crop_size,
        train_crop=data.train_crop,
        flip=plan.flip,
        rand_augment=data.rand_augment,
        random_erasing=data.random_erasing,
        seed=seed,
        patience=_patience(data),
    )
    batches = EpochBatches(
        len(clips),
        seed,
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        accumulation=accumulation,
        repeats=data.repeated_augmentation,
    )
    return DataLoader(
        clips,
        batch_sampler=batches,
        collate_fn=batch_of,
        **worker_options(loader_processes(data.num_workers), pin_memory),
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
) -> WatchedViews:
    """One item per video, unbatched, see `EvalViews`; rank r gets videos r, r + world_size, ...

    No shuffling and no padding: over all ranks every video comes exactly once, and a rank may have
    none. Validation during training passes num_clips=1 and num_crops=1 (the centre); by default
    the plan's views are taken. Of the places in the list that are `chosen` (default: all) rank r
    likewise gets the r-th, (r + world_size)-th, ... A video that hangs or kills its worker is
    marked as unreadable, see `WatchedViews`. Files that have changed since they were counted are
    told to `changes` (default: stderr).
    """
    views = EvalViews(
        videos.samples,
        plan.sampling,
        num_clips=plan.num_clips if num_clips is None else num_clips,
        num_crops=plan.num_crops if num_crops is None else num_crops,
        crop_size=plan.crop_size,
        patience=_patience(data),
    )
    wanted = range(len(views)) if chosen is None else chosen
    return WatchedViews(
        views,
        wanted[rank::world_size],
        clip_timeout=data.clip_timeout,
        num_workers=loader_processes(data.num_workers),
        pin_memory=pin_memory,
        changes=changes or Changes(None, data.changed),
    )


def count_files(
    paths: Sequence[str],
    reader: str,
    *,
    num_workers: int = 0,
    progress: bool = False,
    time_limit: float | None = 300.0,
    limit_key: str = "time_limit",
) -> dict[str, VideoFacts]:
    """What is known of files that are in no list; no index is kept.

    Args:
        paths: absolute.
        reader, num_workers, progress, time_limit, limit_key: see `counted_videos`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return frame_counts(
            Path(scratch) / "videos",
            "/",
            paths,
            reader,
            num_workers=num_workers,
            progress=progress,
            time_limit=time_limit,
            limit_key=limit_key,
        )


def centre_clips(
    videos: Sequence[str | Path], plan: DataPlan, reader: str, time_limit: float | None = 300.0
) -> torch.Tensor:
    """The middle clip and crop of each video: (B, 3, T, S, S) uint8.

    Frames are counted anew, in a process of its own; for many videos use lists and loaders.

    Args:
        videos: files.
        reader: key of `READERS`.
        time_limit: seconds that counting one of them may take; None: any time.

    Raises:
        ReadError: a video that cannot be read, with the cause.
        ValueError: no video.
    """
    if not videos:
        raise ValueError("videos: expected one or more")
    samples = [Sample(str(Path(video).absolute()), 0) for video in videos]
    counts = count_files([sample.path for sample in samples], reader, time_limit=time_limit)
    views = EvalViews(
        Videos.of("/", samples, counts),
        plan.sampling,
        num_clips=1,
        num_crops=1,
        crop_size=plan.crop_size,
    )
    clips = []
    for item in (views[index] for index in range(len(views))):
        if item["error"]:
            raise ReadError(item["error"])
        clips.append(cut_views(item["frames"], item["clips"], item["corners"])[0])
    return torch.stack(clips)


def _patience(data: DataConfig) -> float:
    """Seconds for reads that fail for a moment: well within what one clip may take."""
    return PATIENCE if data.clip_timeout is None else min(PATIENCE, data.clip_timeout / 4)


def _check_ranges(data: DataConfig) -> None:
    for name, least in (
        ("crop_size", 1),
        ("repeated_augmentation", 1),
        ("max_unreadable", 0),
        ("max_skipped", 0),
    ):
        if not getattr(data, name) >= least:  # not a number, too
            raise ValueError(f"data.{name} must be at least {least}, not {getattr(data, name)}")
    for name in ("clip_timeout", "count_timeout"):
        limit = getattr(data, name)
        if limit is not None and not limit > 0:
            raise ValueError(f"data.{name} must be above 0, or null, not {limit}")
    if data.max_skipped > 1 and data.max_skipped % 1:
        raise ValueError(
            f"data.max_skipped is a number of clips, or below 1 a share, not {data.max_skipped}"
        )
    if data.num_workers is not None and data.num_workers < 0:
        raise ValueError(f"data.num_workers must be at least 0, not {data.num_workers}")
    if not 0 <= data.random_erasing <= 1:
        raise ValueError(f"data.random_erasing is a probability, not {data.random_erasing}")
