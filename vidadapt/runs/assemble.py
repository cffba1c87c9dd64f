"""Build an adapted model from a configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from vidadapt import data, methods, models
from vidadapt.config import Config, ConfigError, ModelConfig
from vidadapt.data import DataPlan
from vidadapt.models import LoadReport, Pixels, VideoModel, fingerprint


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
            num_heads=chosen.num_heads,
            drop_path=chosen.drop_path,
            head=chosen.head,
            head_depth=chosen.head_depth,
            head_heads=chosen.head_heads,
            keep_head=chosen.keep_head,
            head_weights=chosen.head_weights if load_backbone else None,
            head_weights_key=chosen.head_weights_key,
            segments=plan.sampling.segments,
            interpolate_from=_grid(chosen.position_grid),
            from_image=chosen.from_image,
            inflation=chosen.inflation,
            weights=chosen.weights if load_backbone else None,
            weights_key=chosen.weights_key,
        )
    if report is not None and chosen.keep_head and chosen.class_order == "by_name":
        stated = models.stated_beside(report.path)
        own, names = () if stated is None else stated.label_names or (), plan.label_names or ()
        if not own or sorted(own) != sorted(names):
            raise ConfigError(
                f"model.class_order: by_name needs the same class names in config.json beside "
                f"{report.path} and in data.label_names; leave it out, or restore the file"
            )
        models.reorder_classes(model.head, [own.index(name) for name in names])
    if report is not None and report.pixels is not None:
        report = replace(report, notes=(*report.notes, *_pixel_notes(report.pixels, plan)))
    backbone = fingerprint(model)
    methods.apply(model, config.method)
    return model, report, backbone


def plain_backbone(model: ModelConfig, plan: DataPlan) -> tuple[VideoModel, LoadReport | None, str]:
    """Load a backbone without any adapter, frozen, in eval mode, on the CPU.

    Args:
        model: its head is new, see `adapters.without_head`.

    Returns:
        See `adapted_model`.

    Raises:
        ValueError, FileNotFoundError: sizes or weights that do not fit.
    """
    config = Config(run_dir="", model=model, method={"name": "linear"})
    plain, report, fingerprint = adapted_model(config, plan)
    return plain.eval().requires_grad_(False), report, fingerprint


def _pixel_notes(stated: Pixels, plan: DataPlan) -> Iterator[str]:
    """Say whether clips are normalised and cut as a file beside the weights states."""
    theirs, name = (stated.mean, stated.std), stated.path.name
    fits = [key for key, ours in data.NORMALIZATIONS.items() if _alike(theirs, ours)]
    if plan.normalization in fits:
        yield f"{name} agrees: data.normalization {plan.normalization}"
    else:
        mend = f"give --data.normalization {fits[0]}" if fits else "none of this package is so"
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in theirs)
        yield (
            f"{name}: OTHER NORMALISATION: trained with mean ({mean}) and std ({std}), "
            f"data.normalization is {plan.normalization}; {mend}"
        )
    crop, side = stated.crop, stated.short_side
    if crop not in (None, plan.crop_size) or side not in (None, plan.crop_size):
        yield (
            f"{name}: its frames have a short side of {side or crop} and a crop of {crop or side} "
            f"pixels; here both are {plan.crop_size} (data.crop_size)"
        )


def _alike(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> bool:
    return all(
        abs(a - b) < 1e-3
        for p, q in zip(one, other, strict=True)
        for a, b in zip(p, q, strict=True)
    )


def _grid(sizes: list[int] | None) -> tuple[int, int, int] | None:
    if sizes is None:
        return None
    if len(sizes) != 3 or min(sizes) < 1:
        raise ConfigError(f"model.position_grid: expected [t, h, w], each 1 or more, got {sizes}")
    return sizes[0], sizes[1], sizes[2]
