"""The lists of a run, by split: read, checked against each other, and looked up."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch

from vidadapt.config import Config, ConfigError, DataConfig
from vidadapt.data.loading import VideoList, eval_loader, load_list, train_loader
from vidadapt.data.plan import DataPlan
from vidadapt.lists import (
    Samples,
    Videos,
    check_label_names,
    label_at,
    label_named,
    label_text,
    read_list,
    read_quarantine,
    refuse_mixture,
    refuse_shared_frames,
    shared_paths,
)


def read_splits(data: DataConfig, plan: DataPlan) -> dict[str, Samples]:
    """Read the lists that are set, by split; find what can be found before any file is looked up.

    Raises:
        ListError: a list, the label names or the quarantine cannot be used.
        ConfigError: two lists share videos, or the training list has one class alone.
    """
    given = {"train": data.train_list, "dev": data.dev_list, "test": data.test_list}
    for path in filter(None, given.values()):
        check_label_names(path, plan.label_names)
    read_quarantine(data.quarantine)
    splits = {
        split: read_list(
            path,
            data.root,
            plan.num_classes,
            data.allow_outside_root,
            multi_label=plan.multi_label,
        )
        for split, path in given.items()
        if path is not None
    }
    for first, second in combinations(splits, 2):
        if both := shared_paths(splits[first], splits[second], data.root):
            raise ConfigError(
                f"data.{first}_list and data.{second}_list share {len(both)} videos ({both[0]}, "
                "...); a video belongs to one of them"
            )
    check_classes(splits["train"], plan, data)
    return splits


def load_splits(
    data: DataConfig, plan: DataPlan, splits: dict[str, Samples]
) -> dict[str, VideoList]:
    """Look up the files of `read_splits`' lists, which may have to be decoded.

    Raises:
        ListError, ReadError, ValueError: see `load_list` and `refuse_shared_frames`.
        ConfigError: the training videos that can be read have one class alone.
    """
    lists = {
        split: load_list(
            data, plan, getattr(data, f"{split}_list"), samples, training=split == "train"
        )
        for split, samples in splits.items()
    }
    refuse_mixture({one.path: one.samples for one in lists.values()})
    refuse_shared_frames({split: one.samples for split, one in lists.items()})
    check_classes(lists["train"].samples, plan, data)
    return lists


def check_classes(samples: Samples | Videos, plan: DataPlan, data: DataConfig) -> None:
    """Refuse a training list with videos of one class alone, from which nothing can be learned.

    In a multi-label list: of one set of labels alone.
    """
    if (samples.labels == samples.labels[0]).all() and (plan.multi_label or plan.num_classes > 1):
        label = label_at(samples.labels, 0)
        name = f" ({label_named(label, plan.label_names)})" if plan.label_names else ""
        raise ConfigError(
            f"data.train_list: all {len(samples)} videos of {data.train_list} that can be read "
            f"have the label {label_text(label)}{name}, so that there is nothing to tell apart; "
            "see to its labels, or to what was left out"
        )


def loaders_of(
    cfg: Config,
    plan: DataPlan,
    lists: dict[str, VideoList],
    rank: int,
    world_size: int,
    device: torch.device,
) -> dict[str, Any]:
    """Make the loader of training clips, and one of centre views of the list to validate on.

    That is the development list, or else the test list; where there is neither, none.
    """
    share: dict[str, Any] = {
        "rank": rank,
        "world_size": world_size,
        "pin_memory": device.type == "cuda",
    }
    train = train_loader(
        cfg.data,
        plan,
        lists["train"],
        batch_size=cfg.train.batch_size,
        accumulation=cfg.train.accumulation,
        seed=cfg.train.seed,
        **share,
    )
    split = "dev" if "dev" in lists else "test"
    if split not in lists:
        return {"train": train}
    views = eval_loader(cfg.data, plan, lists[split], num_clips=1, num_crops=1, **share)
    return {"train": train, split: views}
