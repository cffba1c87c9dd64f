"""Constraints between the keys of a configuration: one function for each feature.

A new option has its range beside its field in `schema.py`, and what it does not go with here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vidadapt.config.schema import SECTIONS, Config, ConfigError, TrainConfig
from vidadapt.config.typed import out_of_range


def check(config: Config, world_size: int) -> None:
    """Check for settings that are impossible, from the configuration alone.

    Raises:
        ConfigError: it names the keys, what was expected and how to mend it.
    """
    _refuse([line for name in SECTIONS for line in out_of_range(getattr(config, name), f"{name}.")])
    _refuse([line for constraint in CONSTRAINTS for line in constraint(config, world_size)])


def check_evaluation(config: Config) -> None:
    """Run the part of `check` that an evaluation needs."""
    _refuse([*out_of_range(config.eval, "eval."), *_head_weights(config, 1), *_stores(config, 1)])


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ConfigError("; ".join(problems))


def _lists(config: Config, world_size: int) -> Iterator[str]:
    if config.data.train_list is None:
        yield (
            "data.train_list: is not set; give a list of `path label` lines, or data.lists with a "
            "folder written by vidadapt prepare"
        )


def _warmup(config: Config, world_size: int) -> Iterator[str]:
    recipe = config.train
    if (recipe.warmup_epochs is None) == (recipe.warmup_share is None):
        yield (
            f"train.warmup_epochs: {recipe.warmup_epochs} with train.warmup_share "
            f"{recipe.warmup_share}; set one of them, and the other to null"
        )
    elif recipe.warmup_epochs is not None and recipe.warmup_epochs > recipe.epochs:
        yield (
            f"train.warmup_epochs: {recipe.warmup_epochs} are more than train.epochs "
            f"{recipe.epochs}; the peak learning rate would never be reached"
        )


def _frozen_backbone(config: Config, world_size: int) -> Iterator[str]:
    method = config.method["name"]
    if config.train.layer_decay < 1 and method in ("linear", "losa"):
        yield (
            f"train.layer_decay: {method} trains nothing inside the backbone's layers; set it to 1"
        )
    if config.model.drop_path > 0 and method != "full":
        yield (
            f"model.drop_path: {config.model.drop_path} has no effect in a frozen backbone; set it "
            "to 0 or use method.name full"
        )


def _batchnorm(config: Config, world_size: int) -> Iterator[str]:
    recipe, head = config.train, config.model.head
    if head != "batchnorm_linear":
        if recipe.sync_batchnorm:
            yield (
                f"train.sync_batchnorm: model.head {head} has no BatchNorm; set it to false, or "
                "use model.head batchnorm_linear"
            )
        return
    if recipe.ema > 0:
        yield (
            "train.ema: the statistics of the BatchNorm in model.head batchnorm_linear would be "
            "those of other weights than the averaged ones; use model.head linear, or train.ema 0"
        )
    if recipe.batch_size * (world_size if recipe.sync_batchnorm else 1) == 1:
        yield (
            "train.batch_size: the BatchNorm of model.head batchnorm_linear needs 2 clips or more "
            f"in every process, got 1 (on {world_size} processes); raise it, start fewer "
            "processes, set train.sync_batchnorm with several, or use model.head linear"
        )


def _head_weights(config: Config, world_size: int) -> Iterator[str]:
    chosen = config.model
    if chosen.head_weights is None and chosen.head_weights_key is not None:
        yield (
            f"model.head_weights_key: {chosen.head_weights_key} chooses a probe of "
            "model.head_weights, which is not set; give that file, or leave the key out"
        )
    if chosen.head_weights is not None and chosen.head not in ("from_file", "vjepa_attentive"):
        yield (
            f"model.head_weights: has no effect on model.head {chosen.head}; give --model.head "
            "from_file, which begins with the probe in it, or leave it out"
        )


def _mixing(config: Config, world_size: int) -> Iterator[str]:
    recipe = config.train
    if not (recipe.mixup > 0 or recipe.cutmix > 0):
        return
    if recipe.batch_size == 1:
        yield "train.batch_size: mixup and cutmix need 2 clips or more in every process, got 1"
    if config.cache.dir is not None:
        yield (
            "cache.dir: train.mixup and train.cutmix mix pixels, which training from features "
            "does not see; set both to 0, or leave cache.dir out"
        )


def _against_imbalance(config: Config) -> dict[str, object]:
    """Return the options that make up for classes of different sizes, where they are asked for."""
    asked = {
        "data.class_sampling": (config.data.class_sampling, "natural"),
        "train.class_weights": (config.train.class_weights, "none"),
        "train.logit_adjustment": (config.train.logit_adjustment, 0),
    }
    return {key: value for key, (value, off) in asked.items() if value != off}


def _classes(config: Config, world_size: int) -> Iterator[str]:
    several = [f"{key} {value}" for key, value in _against_imbalance(config).items()]
    if len(several) > 1:
        yield (
            f"{' with '.join(several)}: each makes up for classes of different sizes, which would "
            "count twice; use one of them"
        )


def _selection(config: Config, world_size: int) -> Iterator[str]:
    select = config.train.select
    is_default = select == TrainConfig.select or config.data.multi_label
    if not is_default and config.data.dev_list is None:
        yield (
            f"train.select: {select} chooses among epochs by data.dev_list, which is not set; give "
            "one, or leave train.select out"
        )


def _multi_label(config: Config, world_size: int) -> Iterator[str]:
    if (config.train.select == "map") != config.data.multi_label:
        yield (
            f"train.select: {config.train.select} with data.multi_label "
            f"{str(config.data.multi_label).lower()}; map (mean average precision) is for "
            "multi-label lists, the others are for lists with one label a video"
        )
    if not config.data.multi_label:
        return
    if config.train.label_smoothing > 0:
        yield (
            "train.label_smoothing: a video of several labels has no share of one to spread over "
            "the others; set it to 0, or data.multi_label to false"
        )
    for key in _against_imbalance(config):
        yield (
            f"{key}: a video of several labels belongs to no single class; leave it out, or set "
            "data.multi_label to false"
        )


def _early_stopping(config: Config, world_size: int) -> Iterator[str]:
    if config.train.early_stopping_patience and config.data.dev_list is None:
        yield (
            "train.early_stopping_patience: needs data.dev_list, by which epochs are judged; give "
            "one, or set it to 0"
        )


def _compiling(config: Config, world_size: int) -> Iterator[str]:
    recipe = config.train
    if recipe.compile and recipe.recompute != "none":
        yield (
            f"train.recompute: {recipe.recompute} does not work with train.compile, which decides "
            "itself what to compute again; set it to none, or train.compile to false"
        )


def _sharding(config: Config, world_size: int) -> Iterator[str]:
    asked = {"train.compile": config.train.compile, "cache.dir": config.cache.dir is not None}
    if config.train.shard:
        for other in (key for key, is_asked in asked.items() if is_asked):
            yield f"train.shard: does not work with {other}; leave one of them out"


def _cache(config: Config, world_size: int) -> Iterator[str]:
    folder, run = config.cache.dir, config.run_dir
    if folder is not None and Path(folder).resolve().is_relative_to(Path(run).resolve()):
        yield (
            f"cache.dir: {folder} lies in run_dir ({run}), which is to begin empty; choose another "
            "folder, which other runs can use, too"
        )


def _stores(config: Config, world_size: int) -> Iterator[str]:
    local = {"run_dir": config.run_dir, "cache.dir": config.cache.dir}
    local["data.index_dir"] = config.data.index_dir
    for key, path in local.items():
        if path is not None and "://" in path:
            # Nor shown: it may hold a password.
            yield (
                f"{key}: is a URL, but a run works in local files; give a local path, and copy "
                "it from or to the store with its own tool, e.g. aws s3 sync"
            )


CONSTRAINTS = (
    *(_lists, _warmup, _frozen_backbone, _batchnorm, _head_weights, _mixing, _classes),
    *(_multi_label, _selection, _early_stopping, _compiling, _sharding, _cache, _stores),
)
