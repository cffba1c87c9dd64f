"""Accuracies and loss at the end of an epoch, on the list that is validated on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from vidadapt.distributed import World
from vidadapt.evaluation import Scores, judge, measure, metrics_of, score_views, thresholds_of
from vidadapt.features import score_features
from vidadapt.training.setup import Setup


@dataclass(frozen=True)
class Validation:
    """Validation on one centre view of every video of a list.

    Attributes:
        setup: of the run; its cache takes the place of the videos, if there is one.
        split: "dev", or "test" where there is no development list.
        world: the processes that share the videos.
    """

    setup: Setup
    split: str
    world: World

    def results(self, model: nn.Module) -> dict[str, Any]:
        """Score the list with the weights as they are, all processes together.

        Returns:
            By `SPLIT_NAME`, for each of `metrics_of` the labels: per cent, and the mean loss. Of a
            multi-label development list `dev_thresholds`, too: see `thresholds_of`; F1 is with
            them, and so a little too good.
        """
        return self.measured(self.scores(model))

    def measured(self, scores: Scores) -> dict[str, Any]:
        """Return what `results` does from scores of the list."""
        fusion, thresholds = self.setup.cfg.eval.fusion, None
        names = [*metrics_of(scores.labels)]
        if scores.labels.ndim == 2 and self.split == "dev":
            thresholds = thresholds_of(judge(scores, fusion))
            names.append("thresholds")
        found = measure(scores, fusion, thresholds)
        return {f"{self.split}_{name}": found[name] for name in names}

    def scores(self, model: nn.Module, models: int = 1) -> Scores:
        """Score the list; with `models` times as many classes where several are joined in one."""
        setup = self.setup
        about: dict[str, Any] = {
            "paths": setup.lists[self.split].samples.paths,
            "labels": setup.lists[self.split].samples.labels,
            "num_classes": models * setup.plan.num_classes,
        }
        if setup.cached is not None:
            return score_features(replace(setup.cached, world=self.world), self.split, **about)
        return score_views(
            model,
            setup.loaders[self.split],
            **about,
            num_clips=1,
            num_crops=1,
            normalization=setup.plan.normalization,
            views_per_forward=setup.cfg.eval.views_per_forward,
            precision=setup.recipe.precision,
            world=self.world,
            label=f"validate on {self.split}",
        )


def validation_of(setup: Setup, world: World) -> Validation | None:
    """Return what is validated on: the list that has a loader beside the training list, if any."""
    split = next((name for name in setup.loaders if name != "train"), None)
    return None if split is None else Validation(setup, split, world)
