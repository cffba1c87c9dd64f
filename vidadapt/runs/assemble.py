"""Build an adapted model from a configuration."""

from __future__ import annotations

import torch

from vidadapt import methods, models
from vidadapt.config import Config, ConfigError
from vidadapt.data import DataPlan
from vidadapt.models import LoadReport, VideoModel, fingerprint


def adapted_model(
    config: Config, plan: DataPlan, *, load_backbone: bool = True
) -> tuple[VideoModel, LoadReport | None, str]:
    """Load strictly, freeze, inject, unfreeze the head.

    With model.weights `random` the model is drawn from a fixed seed, so that every run, and every
    evaluation of it, has the same one.

    Args:
        load_backbone: False leaves the backbone random, for a checkpoint that holds all of it.

    Returns:
        The model, what was loaded (None: random weights), and the fingerprint of the backbone
        before the method touched it.

    Raises:
        ValueError: sizes, weights or options that do not fit, naming key or file.
    """
    chosen = config.model
    again = load_backbone and chosen.weights == models.RANDOM
    with torch.random.fork_rng(devices=[], enabled=again):
        if again:
            torch.default_generator.manual_seed(0)  # not CUDA's, which is not forked
        model, report = models.build(
            chosen.backbone,
            num_frames=plan.sampling.num_frames,
            crop_size=plan.crop_size,
            num_classes=plan.num_classes,
            tubelet_size=chosen.tubelet_size,
            patch_size=chosen.patch_size,
            drop_path=chosen.drop_path,
            head=chosen.head,
            head_depth=chosen.head_depth,
            segments=plan.sampling.segments,
            interpolate_from=_grid(chosen.position_grid),
            from_image=chosen.from_image,
            inflation=chosen.inflation,
            weights=chosen.weights if load_backbone else None,
            weights_key=chosen.weights_key,
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
