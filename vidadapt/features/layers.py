"""Features of one layer of a model, as tokens or pooled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from vidadapt.features.halves import input_of, output_of
from vidadapt.models import VideoModel, pools

Pool = Literal["mean", "tokens", "head"]
POOLS: tuple[Pool, ...] = get_args(Pool)


@dataclass(frozen=True, eq=False)
class LayerFeatures:
    """One layer's features of a model's forward pass.

    Attributes:
        model: in eval mode; edited by a method or not.
        layer: block, from 1, whose output is taken; None: what the backbone gives its read-out,
            which is the last block's output after the encoder's own final norm, if it has one.
        pool: `tokens`, all of them; `mean`, over the tokens of the patches, as the model's own
            read-out pools where `layer` is None; `head`, the input of the last layer, see
            `classified`.

    Raises:
        ValueError: no such layer, or `head` of a layer.
    """

    model: VideoModel
    layer: int | None
    pool: Pool

    def __post_init__(self) -> None:
        if self.layer is None:
            return
        model = self.model
        if not 1 <= self.layer <= model.depth:
            raise ValueError(
                f"--layer: {model.name} has layers 1 to {model.depth}, not {self.layer}"
            )
        if self.pool == "head":
            raise ValueError(
                "--pool: head is behind the last layer; leave --layer out, or choose mean or tokens"
            )
        if len(model.slots()) != model.depth:
            raise ValueError(
                "--layer: the adapter's side network leaves the layers of the backbone as they "
                "are; add --plain for one of these, or leave --layer out"
            )

    @torch.no_grad()
    def __call__(self, clip: Tensor) -> Tensor:
        """Features of normalised clips (B, 3, T, S, S), on their device.

        Call it under the autocast that the model computes in.

        Returns:
            float32; (B, D) pooled, or (B, N, D) tokens: those of the first frame or segment, where
            these are encoded one by one, then those of the next.
        """
        model = self.model
        if self.pool == "head":
            return input_of(classified(model), model, clip).float()
        if self.layer is None:
            if self.pool == "tokens":
                return model.forward_features(clip).float()
            x = input_of(model.fc_norm, model, clip).float()
            return x.mean(dim=1) if x.ndim == 3 else x  # a head that pools is given all tokens
        x = output_of(model.slots()[self.layer - 1].block, model, clip).float()
        if self.pool == "mean":
            x = x[:, self._in_front(x) :]
        rows = x.unflatten(0, (len(clip), -1)).flatten(1, -2)
        return rows.mean(dim=1) if self.pool == "mean" else rows

    def _in_front(self, x: Tensor) -> int:
        """Number of tokens in front of a row's patches: class token, registers, prompts.

        A stage of Swin has fewer patches than the grid, as a map (rows, h, w, D), and none.
        """
        patches = math.prod(self.model.grid) // self.model.rows_per_clip
        return x.shape[1] - patches if x.ndim == 3 else 0


def classified(model: VideoModel) -> nn.Module:
    """Return the module whose input (B, D) is a clip's feature.

    The head as a whole for `linear` and `batchnorm_linear`: the mean over the tokens after
    `fc_norm`, before the BatchNorm. The last layer of attentive heads, whose pool is a part of the
    head: what its query has gathered.
    """
    head: Any = model.head
    return head.classifier if pools(head) else head
