"""The input of a model's last layer: a clip's feature."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vidadapt.distributed import World
from vidadapt.evaluation import Scores
from vidadapt.features import classified
from vidadapt.models import VideoModel
from vidadapt.serving import trained
from vidadapt.serving.trained import Loaded


@contextmanager
def head_inputs(model: VideoModel) -> Iterator[list[Tensor]]:
    """Collect the features of all clips that the model is given within the block.

    Yields:
        A list, which grows by (B, D) float32 with each forward pass.
    """
    found: list[Tensor] = []

    def keep(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        found.append(given[0].float())

    hook = classified(model).register_forward_pre_hook(keep)
    try:
        yield found
    finally:
        hook.remove()


def score_with_features(loaded: Loaded, world: World, label: str) -> tuple[Scores, Tensor]:
    """Score a list, each video alone, and keep the feature of each.

    Args:
        loaded: with a plan of one view.
        world: must be alone.
        label: of the progress.

    Returns:
        The scores; and features (N, D) float32, on the CPU, of those videos that could be read.

    Raises:
        NonFinite: scores that are not finite.
        ReadError: no video can be read.
    """
    with head_inputs(loaded.model) as found:
        scores = trained.score(loaded, world, label=label)
    values = torch.cat(found).cpu()
    readable = sum(path not in scores.errors for path in scores.paths)
    if readable != len(values):
        raise RuntimeError(f"{len(values)} features were taken from {readable} readable videos")
    return scores, values
