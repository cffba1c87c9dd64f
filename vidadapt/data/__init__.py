"""Make batches of clips from lists and videos; independent of models and of process start-up.

Four calls: `resolve` the configuration into a `DataPlan`, `load_list` each list (which finds every
problem that can be found before training), then `train_loader` and `eval_loader`.
"""

from vidadapt.data.datasets import DATASETS
from vidadapt.data.loading import (
    VideoList,
    centre_clips,
    count_files,
    eval_loader,
    load_list,
    train_loader,
)
from vidadapt.data.plan import DataPlan, resolve

__all__ = [
    "DATASETS",
    "DataPlan",
    "VideoList",
    "centre_clips",
    "count_files",
    "eval_loader",
    "load_list",
    "resolve",
    "train_loader",
]
