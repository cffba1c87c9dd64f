"""List differences key by key: of two configurations, or of an adapter and what is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from itertools import zip_longest
from typing import Any

from vidadapt import methods
from vidadapt.config import SECTIONS, Config, ConfigError, ModelConfig
from vidadapt.config.yaml_files import flattened
from vidadapt.data import DataPlan

# Keys of the model's configuration that an already built backbone does not depend on.
SOURCES = ("weights", "weights_key", "drop_path")  # the fingerprint says whether they agree
NOT_OF_THE_BACKBONE = (*SOURCES, "head")


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every key of a configuration, "section.key", with its value; `run_dir` is left out.

    A missing key has its default, which is what versions without that key did.

    >>> settings({"method": {"name": "linear"}, "train": {"epochs": 3}})["train.accumulation"]
    1
    """
    method = {**Config("").method, **(config.get("method") or {})}
    known = methods.default_options(method["name"]) if method["name"] in methods.METHODS else {}
    sections = {key: {**vars(of()), **(config.get(key) or {})} for key, of in SECTIONS.items()}
    return flattened({**config, "method": {**known, **method}, **sections})


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Differences between two results of `settings`.

    >>> changes({"train.epochs": 3, "train.seed": 0}, {"train.epochs": 4, "train.seed": 0})
    ['train.epochs: 3 -> 4']
    """
    return [
        f"{key}: {before.get(key)!r} -> {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def differences(about: dict[str, Any], config: Config, plan: DataPlan) -> list[str]:
    """How an adapter differs from what a configuration asks for, except the backbone's weights."""
    old, new = about.get("label_names"), plan.label_names
    pairs = enumerate(zip_longest(old or (), new or ()) if old and new else ())
    renamed = [f"{number}: {a!r} / {b!r}" for number, (a, b) in pairs if a != b]
    return [
        *_method_differences(about["method"], config.method),
        *model_differences(about, config.model, "asked for", leave_out=SOURCES),
        *clip_differences(about, plan.sampling.num_frames, plan.crop_size, "asked for"),
        *_different(
            "data.normalization", about["clip"]["normalization"], plan.normalization, "asked for"
        ),
        *_different("num_classes", about["num_classes"], plan.num_classes, "asked for"),
        *([f"label names (file / asked for): {', '.join(renamed[:5])}"] if renamed else []),
    ]


def _method_differences(trained: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """Differences of two methods; a missing option has its default."""
    if trained["name"] != asked["name"]:
        return _different("method.name", trained["name"], asked["name"], "asked for")
    options = methods.default_options(asked["name"])
    trained, asked = {**options, **trained}, {**options, **asked}
    return [
        line
        for key in sorted(trained.keys() | asked.keys())
        for line in _different(f"method.{key}", trained.get(key), asked.get(key), "asked for")
    ]


def model_differences(
    about: dict[str, Any],
    model: ModelConfig,
    here: str,
    leave_out: Iterable[str] = NOT_OF_THE_BACKBONE,
) -> list[str]:
    """How an adapter's backbone differs; a key that the file lacks has its default."""
    defaults = {field.name: field.default for field in fields(ModelConfig)}
    return [
        line
        for key, value in vars(model).items()
        if key not in leave_out
        for line in _different(f"model.{key}", about["model"].get(key, defaults[key]), value, here)
    ]


def clip_differences(
    about: dict[str, Any], num_frames: int, crop_size: int, here: str
) -> list[str]:
    """How an adapter's clips, and with them its tokens, differ in shape."""
    clip = about["clip"]
    return [
        *_different("data.num_frames", clip["num_frames"], num_frames, here),
        *_different("data.crop_size", clip["crop_size"], crop_size, here),
    ]


def _different(key: str, in_file: Any, value: Any, here: str) -> list[str]:
    same = in_file == value
    return [] if same else [f"{key}: {in_file!r} in the file, {value!r} {here}"]


def refuse(source: str, found: list[str]) -> None:
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
