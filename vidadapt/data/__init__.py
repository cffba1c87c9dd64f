"""Make batches of clips from lists and videos; independent of models and of process start-up.

Five calls: `resolve` the configuration into a `DataPlan`, `read_splits` and `load_splits` the lists
(which finds every problem that can be found before training), then `train_loader` and
`eval_loader`.
"""

from vidadapt.data.batches import Batches
from vidadapt.data.changes import CHANGED, Changes, read_changes
from vidadapt.data.datasets import DATASETS
from vidadapt.data.epochs import EpochBatches, steps_per_epoch
from vidadapt.data.loaders import EvalLoader, TrainLoader
from vidadapt.data.loading import (
    VideoList,
    centre_clips,
    count_files,
    eval_loader,
    load_list,
    train_loader,
)
from vidadapt.data.mixing import mix_batch
from vidadapt.data.plan import DataPlan, resolve
from vidadapt.data.skips import SKIPPED, SkipLog, most_skipped, read_skips
from vidadapt.data.splits import load_splits, loaders_of, read_splits

__all__ = [
    "CHANGED",
    "DATASETS",
    "SKIPPED",
    "Batches",
    "Changes",
    "DataPlan",
    "EpochBatches",
    "EvalLoader",
    "SkipLog",
    "TrainLoader",
    "VideoList",
    "centre_clips",
    "count_files",
    "eval_loader",
    "load_list",
    "load_splits",
    "loaders_of",
    "mix_batch",
    "most_skipped",
    "read_changes",
    "read_skips",
    "read_splits",
    "resolve",
    "steps_per_epoch",
    "train_loader",
]
