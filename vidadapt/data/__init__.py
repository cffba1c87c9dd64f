"""Lists and videos become batches of clips."""

from vidadapt.data.plan import (
    DATASETS,
    DataPlan,
    VideoList,
    centre_clips,
    count_files,
    eval_loader,
    load_list,
    resolve,
    train_loader,
)

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
