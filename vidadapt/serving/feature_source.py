"""What features come from: a backbone, with or without an adapter, a layer, and a cut of clips."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import Any

import torch

from vidadapt import data
from vidadapt.config import Config, ConfigError, EvalConfig, parse_backbone
from vidadapt.data import DATASETS, DataPlan, VideoList
from vidadapt.features import LayerFeatures, Pool, protocol
from vidadapt.files import checksum
from vidadapt.methods import METHODS
from vidadapt.models import VideoModel, cast_frozen, resolved_precision
from vidadapt.runs import adapters, checkpoints, plain_backbone


@dataclass(frozen=True, eq=False)
class FeatureSource:
    """A model on its device, what to take of it, and how clips are cut.

    Attributes:
        config: of the adapter, or of the command line.
        plan: clips and views.
        take: the model's layer.
        precision: resolved.
        backbone: fingerprint.
        adapter: SHA-256 of the adapter's tensors; None: the plain backbone.
        report: what was loaded, in words; empty: an adapter, which says so itself.
    """

    config: Config
    plan: DataPlan
    take: LayerFeatures
    precision: str
    backbone: str
    adapter: str | None
    report: str = ""

    def key(self, videos: VideoList) -> dict[str, Any]:
        """List all that the features of these videos depend on."""
        facts = protocol(self.config.model, self.plan, videos, self.backbone, self.precision)
        return {
            "adapter": self.adapter,
            "layer": "last" if self.take.layer is None else self.take.layer,
            "pool": self.take.pool,
            "num_clips": self.plan.num_clips,
            "num_crops": self.plan.num_crops,
            "videos": videos.manifest,
            **facts,
        }


def load_source(options: argparse.Namespace, device: torch.device) -> FeatureSource:
    """Load what the command line of vidadapt features asks for.

    Args:
        options: adapter, plain, weights, keys, layer, pool, num_clips, num_crops.

    Raises:
        ValueError, FileNotFoundError: a damaged adapter, weights that do not fit, keys or options
            that do not go together, no such layer.
    """
    found = _of_keys(options) if options.adapter is None else _of_adapter(options)
    model, config, plan, backbone, adapter, report = found
    precision = resolved_precision(device, config.train.precision)
    model.to(device).requires_grad_(False)
    cast_frozen(model, device, precision)
    take = LayerFeatures(model, options.layer, _pool(options, adapter is not None))
    return FeatureSource(config, plan, take, precision, backbone, adapter, report)


_Found = tuple[VideoModel, Config, DataPlan, str, str | None, str]


def _of_adapter(options: argparse.Namespace) -> _Found:
    adapter = adapters.read_adapter(adapters.find_adapter(options.adapter))
    config = parse_backbone(options.keys, METHODS, adapter.config)
    plan = adapters.with_views(adapter.plan, options.num_clips, options.num_crops)
    if options.plain:
        bare = adapters.without_head(adapters.with_weights(adapter, options.weights).model)
        plain, report, backbone = plain_backbone(bare, plan)
        return plain, replace(config, model=bare), plan, backbone, None, str(report or "")
    model, adapter = adapters.load_adapter(adapter.folder, weights=options.weights)
    backbone = adapter.about["model"]["fingerprint"]
    return model, config, plan, backbone, checksum(adapter.folder / checkpoints.TENSORS), ""


def _of_keys(options: argparse.Namespace) -> _Found:
    config = parse_backbone(options.keys, METHODS)
    if options.plain:
        raise ConfigError("--plain: goes with --adapter; leave it out")
    if options.weights is not None:
        raise ConfigError("--weights: goes with --adapter; give --model.weights")
    views = EvalConfig(num_clips=options.num_clips, num_crops=options.num_crops)
    # No class is asked for: `custom` needs a name all the same.
    dataset = DATASETS.get(config.data.dataset)
    names = ["none"] if dataset is None or dataset.num_classes is None else None
    plan = data.resolve(replace(config.data, label_names=None, multi_label=False), views, names)
    config = replace(config, model=adapters.without_head(config.model))
    plain, report, backbone = plain_backbone(config.model, plan)
    return plain, config, plan, backbone, None, str(report or "random weights")


def _pool(options: argparse.Namespace, has_adapter: bool) -> Pool:
    """Return the pool asked for; default: `head` of an adapter's last layer, else `mean`.

    Raises:
        ConfigError: the head of a backbone alone.
    """
    if options.pool == "head" and not has_adapter:
        raise ConfigError("--pool: head is an adapter's; choose mean or tokens")
    if options.pool is not None:
        return options.pool
    return "head" if has_adapter and options.layer is None else "mean"
