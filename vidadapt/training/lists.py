"""The lists of a run: read, checked against each other, and their videos looked up."""

from __future__ import annotations

from itertools import combinations

from vidadapt import data
from vidadapt.config import Config, ConfigError, TrainConfig
from vidadapt.data import DataPlan, VideoList
from vidadapt.data.epochs import steps_per_epoch
from vidadapt.distributed import World
from vidadapt.lists.quarantine import read_quarantine
from vidadapt.lists.reading import Samples, check_label_names, read_list, shared_paths
from vidadapt.lists.videos import Videos
from vidadapt.training import optim


def load_lists(
    cfg: Config, plan: DataPlan, recipe: TrainConfig, world: World
) -> dict[str, VideoList]:
    """The lists that are set, by split, with their files looked up, which may have to be decoded.

    What can be known to be wrong before that is found before.
    """
    samples = read_lists(cfg, plan)
    check_classes(samples["train"], plan, cfg)
    highest_rate(cfg, recipe, len(samples["train"]), world)
    lists = {
        split: data.load_list(
            cfg.data,
            plan,
            getattr(cfg.data, f"{split}_list"),
            listed,
            training=split == "train",
        )
        for split, listed in samples.items()
    }
    check_classes(lists["train"].samples, plan, cfg)
    return lists


def read_lists(cfg: Config, plan: DataPlan) -> dict[str, Samples]:
    """The lists that are set, by split, with what can be known to be wrong before any look-up."""
    given = {
        "train": cfg.data.train_list,
        "dev": cfg.data.dev_list,
        "test": cfg.data.test_list,
    }
    for path in filter(None, given.values()):
        check_label_names(path, plan.label_names)
    read_quarantine(cfg.data.quarantine)
    lists = {
        split: read_list(path, cfg.data.root, plan.num_classes, cfg.data.allow_outside_root)
        for split, path in given.items()
        if path is not None
    }
    for first, second in combinations(lists, 2):
        if both := shared_paths(lists[first], lists[second]):
            raise ConfigError(
                f"data.{first}_list and data.{second}_list share {len(both)} videos ({both[0]}, "
                "...); a video belongs to one of them"
            )
    return lists


def check_classes(samples: Samples | Videos, plan: DataPlan, cfg: Config) -> None:
    """Refuse a training list with videos of one class alone, from which nothing can be learned."""
    labels = set(samples.labels.tolist())
    if len(labels) == 1 and plan.num_classes > 1:
        [label] = labels
        name = f" ({plan.label_names[label]})" if plan.label_names else ""
        raise ConfigError(
            f"data.train_list: all {len(samples)} videos of {cfg.data.train_list} that can be read "
            f"have the label {label}{name}, so that there is nothing to tell apart; see to its "
            "labels, or to what was left out"
        )


def highest_rate(cfg: Config, recipe: TrainConfig, videos: int, world: World) -> float:
    """The highest learning rate of the run as a share of its peak.

    Raises:
        ValueError: the list is smaller than a global batch, or the rate would be 0 throughout.
    """
    steps = steps_per_epoch(
        videos,
        batch_size=recipe.batch_size,
        world_size=world.size,
        accumulation=recipe.accumulation,
        repeats=cfg.data.repeated_augmentation,
    )
    found = optim.highest_share(recipe.epochs * steps, round(recipe.warmup_epochs * steps))
    if found == 0:
        raise ConfigError(
            f"train.warmup_epochs: {recipe.warmup_epochs:g} make the rate of the only step 0, "
            "so that nothing would be trained; set it to 0, or train.epochs to more"
        )
    return found
