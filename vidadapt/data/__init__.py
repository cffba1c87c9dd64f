"""Make batches of clips from lists and videos; independent of models and of process start-up.

Five calls: `resolve` the configuration into a `DataPlan`, `read_splits` and `load_splits` the lists
(which finds every problem that can be found before training), then `train_loader` and
`eval_loader`.
"""

from vidadapt.data.batches import Batches
from vidadapt.data.by_time import clip_frames, refuse_untimed, train_frames
from vidadapt.data.changes import CHANGED, Changes, read_changes
from vidadapt.data.clips import EvalViews, TrainClips, read_frames, view_chunks
from vidadapt.data.datasets import DATASETS, Dataset
from vidadapt.data.epochs import EpochBatches, SampleKey, shared_out, steps_per_epoch
from vidadapt.data.list_warnings import list_warnings
from vidadapt.data.loaders import EvalLoader, TrainLoader, join_views, one_thread, views_of
from vidadapt.data.loading import (
    VideoList,
    centre_clips,
    count_files,
    eval_loader,
    load_list,
    train_loader,
)
from vidadapt.data.mixing import mix_batch
from vidadapt.data.plan import DataPlan, require_one_label, resolve
from vidadapt.data.sampling import SAMPLINGS, Sampling, eval_indices, train_indices
from vidadapt.data.seeding import seeded
from vidadapt.data.skips import SKIPPED, SkipLog, most_skipped, read_skips
from vidadapt.data.splits import load_splits, loaders_of, read_splits
from vidadapt.data.transforms import (
    NORMALIZATIONS,
    Augmentation,
    Framing,
    crop_corners,
    cut_views,
    eval_frames,
    multi_scale_box,
    normalize,
    train_clip,
)
from vidadapt.data.worker_count import cores, default_workers

__all__ = [
    "CHANGED",
    "DATASETS",
    "NORMALIZATIONS",
    "SAMPLINGS",
    "SKIPPED",
    "Augmentation",
    "Batches",
    "Changes",
    "DataPlan",
    "Dataset",
    "EpochBatches",
    "EvalLoader",
    "EvalViews",
    "Framing",
    "SampleKey",
    "Sampling",
    "SkipLog",
    "TrainClips",
    "TrainLoader",
    "VideoList",
    "centre_clips",
    "clip_frames",
    "cores",
    "count_files",
    "crop_corners",
    "cut_views",
    "default_workers",
    "eval_frames",
    "eval_indices",
    "eval_loader",
    "join_views",
    "list_warnings",
    "load_list",
    "load_splits",
    "loaders_of",
    "mix_batch",
    "most_skipped",
    "multi_scale_box",
    "normalize",
    "one_thread",
    "read_changes",
    "read_frames",
    "read_skips",
    "read_splits",
    "refuse_untimed",
    "require_one_label",
    "resolve",
    "seeded",
    "shared_out",
    "steps_per_epoch",
    "train_clip",
    "train_frames",
    "train_indices",
    "train_loader",
    "view_chunks",
    "views_of",
]
