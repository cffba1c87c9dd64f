"""Accuracies and loss at the end of an epoch, on the list that is validated on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from vidadapt.config import EvalConfig
from vidadapt.data import DataPlan, VideoList
from vidadapt.distributed import World
from vidadapt.evaluation import METRICS, measure, score_views
from vidadapt.features import Cache, score_features
from vidadapt.training.setup import Setup


@dataclass(frozen=True)
class Validation:
    """Validation on one centre view of every video of a list.

    Attributes:
        split: "dev", or "test" where there is no development list.
        videos: the list.
        views: its loader, see `data.eval_loader`.
        cached: features of the list in the place of its views; None: it is read from videos.
        precision: a floating point format, see `resolved_precision`.
    """

    split: str
    videos: VideoList
    views: Any
    cached: Cache | None
    plan: DataPlan
    evaluation: EvalConfig
    precision: str
    world: World

    def results(self, model: nn.Module) -> dict[str, float]:
        """Score the list with the weights as they are, all processes together.

        Returns:
            By `SPLIT_NAME`, for each name of `evaluation.METRICS`.
        """
        about: dict[str, Any] = {
            "paths": self.videos.samples.paths,
            "labels": self.videos.samples.labels,
            "num_classes": self.plan.num_classes,
        }
        if self.cached is not None:
            scores = score_features(self.cached, self.split, **about)
        else:
            scores = score_views(
                model,
                self.views,
                **about,
                num_clips=1,
                num_crops=1,
                normalization=self.plan.normalization,
                views_per_forward=self.evaluation.views_per_forward,
                precision=self.precision,
                world=self.world,
                label=f"validate on {self.split}",
            )
        found = measure(scores, self.evaluation.fusion)
        return {f"{self.split}_{name}": found[name] for name in METRICS}


def validation_of(setup: Setup, world: World) -> Validation | None:
    """Return what is validated on: the list that has a loader beside the training list, if any."""
    split = next((name for name in setup.loaders if name != "train"), None)
    if split is None:
        return None
    return Validation(
        split,
        setup.lists[split],
        setup.loaders[split],
        None if setup.cached is None else replace(setup.cached, world=world),
        setup.plan,
        setup.cfg.eval,
        setup.recipe.precision,
        world,
    )
