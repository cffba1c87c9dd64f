"""The contract of a backbone with its head: what methods, training and evaluation rely on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vidadapt.models.blocks import AttentionKind, Slot
from vidadapt.models.heads import HEADS


class VideoModel(nn.Module):
    """Clip (B, 3, T, S, S), float, normalised, to logits (B, K). Every backbone is one of these.

    Attributes:
        name: for messages.
        clip_shape: (3, T, S, S).
        grid: tokens along time, height, width (t, h, w).
        width: D of the features that `forward_features` gives.
        depth: number of blocks.
        attention: how the tokens of a block see each other.
        num_prefix_tokens: tokens before those of the grid (class token, registers).
        reads_class_token: whether the features are those of a class token alone.
        rows_per_clip: rows of a block's batch that one clip takes; 1: all its frames in one row.
        time_embed: trained temporal positions, of inflated image models; None: there are none.
        fc_norm: norm between the pool and the head.
        head: features to logits, see `heads`; trained, as `fc_norm` is.
    """

    name: str
    clip_shape: tuple[int, int, int, int]
    grid: tuple[int, int, int]
    width: int
    depth: int
    attention: AttentionKind = "global"
    num_prefix_tokens: int = 0
    reads_class_token: bool = False
    rows_per_clip: int = 1
    time_embed: nn.Module | None
    fc_norm: nn.Module
    head: nn.Module

    def slots(self) -> list[Slot]:
        """The places of the blocks, in the order in which they run."""
        raise NotImplementedError

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that do not decay."""
        raise NotImplementedError

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, S, S) to features (B, N, D), which `forward_head` reads."""
        raise NotImplementedError

    def forward_from(self, x: Tensor, first: int) -> Tensor:
        """Tokens that enter slot number `first`, from 0, to what `forward_features` gives."""
        raise NotImplementedError

    def forward_head(self, tokens: Tensor) -> Tensor:
        """Features (B, N, D) to logits (B, K), see `heads.read_out`."""
        raise NotImplementedError

    def forward(self, clip: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(clip))


@dataclass(frozen=True)
class BackboneOptions:
    """Options of `build`, which each family takes or refuses.

    Attributes:
        num_frames: T of a clip.
        crop_size: S of a clip, pixels.
        num_classes: K.
        head: key of `HEADS`.
        tubelet_size: frames of one token; not used frame by frame.
        patch_size: side of one token in pixels, of a tubelet ViT; default: the backbone's.
        drop_path: stochastic depth rate of the last block.
        weights: checkpoint file of any recognised family, the index of one in several files, or
            their folder; `demo` for the tiny backbone shipped with the package; `hub:OWNER/REPO`,
            `hub:OWNER/REPO/FILE` or `hub` (what timm publishes for its model) for a file of the
            Hugging Face hub, see `hub.hub_file`; None or `random`: random initialisation.
        weights_key: entry of the weights file to take, e.g. `model_ema`; default: see
            `tensor_files.read_tensors`.
        keep_head: take the head from the file too; it must have K classes and the same kind.
        interpolate_from: token grid (t, h, w) of the pre-training whose position table is to be
            interpolated, of a tubelet ViT; default: the table is recomputed for this model's
            number of tokens.
        from_image: how an image model becomes a video model: `inflate` (default) or `frames`.
        inflation: how its patch embedding becomes that of tubelets: `average` (default) or
            `centre`, see `inflated.inflate`.
    """

    num_frames: int
    crop_size: int
    num_classes: int
    head: str = "batchnorm_linear"
    tubelet_size: int = 2
    patch_size: int | None = None
    drop_path: float = 0.0
    weights: str | Path | None = None
    weights_key: str | None = None
    keep_head: bool = False
    interpolate_from: tuple[int, int, int] | None = None
    from_image: str | None = None
    inflation: str | None = None

    def new_head(self, width: int) -> nn.Module:
        """A head for features of this width."""
        return HEADS[self.head](width, self.num_classes)


def require_unset(why: str, **options: Any) -> None:
    """Refuse options that a family does not have.

    Raises:
        ValueError: naming the first one that is given, and `why`.
    """
    for key, value in options.items():
        if value is not None:
            raise ValueError(f"model.{key}: {value!r} {why}")
