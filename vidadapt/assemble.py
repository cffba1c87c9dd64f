"""A configuration becomes an adapted model, and an adapter file finds its model again."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any

from vidadapt import methods, models, runs
from vidadapt.config import Config, ConfigError
from vidadapt.data import DataPlan
from vidadapt.models import VideoModel
from vidadapt.models.weights import LoadReport, fingerprint


def adapted_model(
    config: Config, plan: DataPlan, *, load_backbone: bool = True
) -> tuple[VideoModel, LoadReport | None, str]:
    """Load strictly, freeze, inject, unfreeze the head.

    Args:
        load_backbone: False leaves the backbone at random, for a checkpoint that holds all of it.

    Returns:
        The model, what was loaded (None: random weights), and the fingerprint of the backbone
        before the method touched it.

    Raises:
        ValueError: sizes, weights or options that do not fit, naming key or file.
    """
    chosen = config.model
    if chosen.drop_path > 0 and config.method["name"] != "full":
        raise ConfigError(
            f"model.drop_path: {chosen.drop_path} has no effect in a frozen backbone; set it to 0 "
            "or use method.name full"
        )
    model, report = models.build(
        chosen.backbone,
        num_frames=plan.sampling.num_frames,
        crop_size=plan.crop_size,
        num_classes=plan.num_classes,
        tubelet_size=chosen.tubelet_size,
        patch_size=chosen.patch_size,
        drop_path=chosen.drop_path,
        head=chosen.head,
        interpolate_from=_grid(chosen.position_grid),
        weights=chosen.weights if load_backbone else None,
    )
    backbone = fingerprint(model)
    methods.apply(model, config.method)
    return model, report, backbone


def _grid(sizes: list[int] | None) -> tuple[int, int, int] | None:
    if sizes is None:
        return None
    if len(sizes) != 3 or min(sizes) < 1:
        raise ConfigError(f"model.position_grid: expected [t, h, w], each 1 or more, got {sizes}")
    return sizes[0], sizes[1], sizes[2]


def describe(config: Config, plan: DataPlan, backbone: str, manifest: str) -> dict[str, Any]:
    """The readable half of an adapter file: everything needed to put it back to work.

    Args:
        backbone: fingerprint from `adapted_model`.
        manifest: hash of the training list.
    """
    return {
        "format": "vidadapt-adapter-1",
        "method": dict(config.method),
        "model": {**_architecture(config), "fingerprint": backbone},
        "clip": {
            "num_frames": plan.sampling.num_frames,
            "crop_size": plan.crop_size,
            "normalization": plan.normalization,
        },
        "dataset": plan.dataset,
        "num_classes": plan.num_classes,
        "label_names": None if plan.label_names is None else list(plan.label_names),
        "train_manifest": manifest,
    }


def _architecture(config: Config) -> dict[str, Any]:
    """What of the model's configuration a checkpoint depends on."""
    chosen = vars(config.model)
    return {key: value for key, value in chosen.items() if key not in ("weights", "drop_path")}


def load_adapted_model(config: Config, plan: DataPlan, folder: Path) -> VideoModel:
    """The model of a checkpoint folder, ready to evaluate.

    Raises:
        runs.RunError, ValueError: a missing or damaged file, or one that was trained with another
            method, backbone, number of classes or label names; the message says which.
    """
    state, about = runs.load_checkpoint(folder)
    source = str(folder / runs.TENSORS)
    asked = describe(config, plan, "", "")
    differing = [
        f"{key}: {about.get(key)!r} in the file, {asked[key]!r} asked for"
        for key in ("method", "num_classes")
        if about.get(key) != asked[key]
    ]
    differing += [
        f"model.{key}: {about['model'].get(key)!r} in the file, {value!r} asked for"
        for key, value in asked["model"].items()
        if key != "fingerprint" and about["model"].get(key) != value
    ]
    if about.get("clip", {}).get("normalization") != plan.normalization:
        differing.append(
            f"data.normalization: {about['clip']['normalization']!r} in the file, "
            f"{plan.normalization!r} asked for"
        )
    old, new = about.get("label_names"), asked["label_names"]
    if old is not None and new is not None and old != new:
        pairs = enumerate(zip_longest(old, new))
        changed = [f"{i}: {a!r} / {b!r}" for i, (a, b) in pairs if a != b]
        differing.append(f"label names (file / asked for): {', '.join(changed[:5])}")
    if differing:
        raise ConfigError(f"{source}: trained with another configuration; " + "; ".join(differing))
    # A checkpoint that holds every parameter (full fine-tuning) needs no backbone file.
    model, _, backbone = adapted_model(config, plan, load_backbone=False)
    whole = {name for name, _ in model.named_parameters()} <= state.keys()
    if not whole:
        model, _, backbone = adapted_model(config, plan)
        if backbone != about["model"]["fingerprint"]:
            raise ConfigError(
                f"{source}: was trained on another backbone than model.weights "
                f"({config.model.weights}): fingerprint {about['model']['fingerprint'][:12]} in "
                f"the file, {backbone[:12]} here; give the weights file that it was trained with"
            )
    methods.load_trainable_state(model, state, source)
    return model
