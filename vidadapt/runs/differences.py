"""List differences key by key: of two configurations, or of an adapter and what is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from vidadapt import methods
from vidadapt.config import (
    SECTIONS,
    Config,
    ConfigError,
    ModelConfig,
    file_with_new_keys,
    flattened,
)
from vidadapt.console import differing
from vidadapt.data import DataPlan

# Keys of the model's configuration that an already built backbone does not depend on. Whether the
# first three agree, its fingerprint says.
NOT_OF_THE_BACKBONE = (
    *("weights", "weights_key", "drop_path"),
    *("head", "head_depth", "head_heads", "head_weights", "head_weights_key", "keep_head"),
    "class_order",
)
OF_THE_HEAD = ("model.head", "model.head_depth", "model.head_heads")
IN_FILE = "{key}: {old!r} in the file, {new!r} "


def all_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """List every key of a configuration, "section.key", with its value; `run_dir` is left out.

    A missing key has its default, which is what versions without that key did; a key that has been
    renamed has its new name.

    >>> all_settings({"method": {"name": "linear"}, "train": {"epochs": 3}})["train.accumulation"]
    1
    """
    config = file_with_new_keys(config)
    method = {**Config("").method, **(config.get("method") or {})}
    known = methods.default_options(method["name"]) if method["name"] in methods.METHODS else {}
    sections = {key: {**vars(of()), **(config.get(key) or {})} for key, of in SECTIONS.items()}
    return flattened({"plugins": [], **config, "method": {**known, **method}, **sections})


def differences(about: dict[str, Any], config: Config, plan: DataPlan) -> list[str]:
    """List how an adapter differs from what a configuration asks for, but for the weights."""
    trained, asked = about["method"], config.method
    if trained["name"] == asked["name"]:  # a missing option has its default
        options = methods.default_options(asked["name"])
        trained, asked = {**options, **trained}, {**options, **asked}
    else:
        trained, asked = ({"name": one["name"]} for one in (trained, asked))
    in_file = {
        **{f"method.{key}": value for key, value in trained.items()},
        **{key: about["model"].get(key[6:], getattr(ModelConfig, key[6:])) for key in OF_THE_HEAD},
        "data.normalization": about["clip"]["normalization"],
        "num_classes": about["num_classes"],
    }
    here = {
        **{f"method.{key}": value for key, value in asked.items()},
        **{key: getattr(config.model, key[6:]) for key in OF_THE_HEAD},
        "data.normalization": plan.normalization,
        "num_classes": plan.num_classes,
    }
    old, new = about.get("label_names"), plan.label_names
    pairs = enumerate(zip_longest(old or (), new or ()) if old and new else ())
    renamed = [f"{number}: {a!r} / {b!r}" for number, (a, b) in pairs if a != b]
    return [
        *differing(in_file, here, IN_FILE + "asked for"),
        *backbone_differences(about, config.model, plan, "asked for"),
        *([f"label names (file / asked for): {', '.join(renamed[:5])}"] if renamed else []),
    ]


def backbone_differences(
    about: dict[str, Any], model: ModelConfig, plan: DataPlan, here: str
) -> list[str]:
    """List how an adapter's backbone, without its head, and its clips differ from those `here`."""
    clip, sampling = about["clip"], plan.sampling
    return differing(
        _built_from(about["model"], clip["num_frames"], clip["crop_size"], clip.get("segments", 1)),
        _built_from(vars(model), sampling.num_frames, plan.crop_size, sampling.segments),
        IN_FILE + here,
    )


def _built_from(
    model: Mapping[str, Any], num_frames: int, crop_size: int, segments: int
) -> dict[str, Any]:
    """Return what a backbone is built from, by key; one that `model` lacks has its default."""
    return {
        **{
            f"model.{key}": model.get(key, default)
            for key, default in vars(ModelConfig()).items()
            if key not in NOT_OF_THE_BACKBONE
        },
        "data.num_frames": num_frames,
        "data.crop_size": crop_size,
        "data.sampling: segments": segments,
    }


def refuse_differences(source: str, found: list[str]) -> None:
    """Raise `ConfigError` that lists the differences, if there are any."""
    if found:
        raise ConfigError(f"{source}: trained with another configuration; " + "; ".join(found))


def refuse_backbone(source: str, about: dict[str, Any], backbone: str, weights: str) -> None:
    """Raise `ConfigError` if the fingerprint of the backbone is not the file's."""
    trained = about["model"]["fingerprint"]
    if trained != backbone:
        raise ConfigError(
            f"{source}: was trained on another backbone than {weights}: fingerprint "
            f"{trained[:12]} in the file, {backbone[:12]} here; give the weights file that it was "
            f"trained with ({about['model'].get('weights') or 'its name is not in the file'})"
        )
