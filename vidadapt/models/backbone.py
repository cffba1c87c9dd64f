"""The contract of a backbone with its head: what methods, training and evaluation rely on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vidadapt.models.blocks import AttentionKind, Slot
from vidadapt.models.heads import HEADS
from vidadapt.models.vjepa_head import DEPTH, VJepaHead


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
        head_depth: blocks of `vjepa_attentive`; default: 4.
        head_heads: attention heads of `vjepa_attentive`; default: 16, or D / 64 if less.
        tubelet_size: frames of one token; not used frame by frame, nor where a token is of one
            frame.
        patch_size: side of one token in pixels, of a video model; default: the backbone's.
        num_heads: attention heads of a tubelet ViT or V-JEPA, which no tensor tells; default: the
            backbone's.
        drop_path: stochastic depth rate of the last block.
        weights: checkpoint file of any recognised family, the index of one in several files, or
            their folder; `demo` for the tiny backbone shipped with the package; `hub:OWNER/REPO`,
            `hub:OWNER/REPO/FILE` or `hub` (what timm publishes for its model) for a file of the
            Hugging Face hub, see `hub.hub_file`; None or `random`: random initialisation.
        weights_key: entry of the weights file to take, e.g. `model_ema`; default: see
            `tensor_files.read_tensors`.
        keep_head: take the head from the file too; it must have K classes and the same kind.
        head_weights: file of V-JEPA 2's probes that the head comes from, see `probe_file`; the head
            must be `vjepa_attentive`.
        head_weights_key: entry of that file, e.g. `classifiers.3`; default: the first.
        interpolate_from: token grid (t, h, w) of the pre-training whose position table is to be
            interpolated, of a tubelet ViT; default: the table is recomputed for this model's
            number of tokens. Of ViViT: that of the file's table, see `fit_vivit`.
        segments: runs of frames of a clip that are encoded each for itself, by V-JEPA.
        from_image: how an image model becomes a video model: `inflate` (default) or `frames`.
        inflation: how its patch embedding becomes that of tubelets: `average` (default) or
            `centre`, see `inflated.inflate`.
    """

    num_frames: int
    crop_size: int
    num_classes: int
    head: str = "batchnorm_linear"
    head_depth: int | None = None
    head_heads: int | None = None
    tubelet_size: int = 2
    patch_size: int | None = None
    num_heads: int | None = None
    drop_path: float = 0.0
    weights: str | Path | None = None
    weights_key: str | None = None
    keep_head: bool = False
    head_weights: str | Path | None = None
    head_weights_key: str | None = None
    interpolate_from: tuple[int, int, int] | None = None
    segments: int = 1
    from_image: str | None = None
    inflation: str | None = None

    def put_head(self, model: VideoModel) -> None:
        """Give the model its head, see the function `put_head`."""
        put_head(model, self.head, self.num_classes, self.head_depth, self.head_heads)

    def of_a_vit(self, sizes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the sizes of a backbone with the patch and the heads that were asked for."""
        asked = {"patch_size": self.patch_size, "num_heads": self.num_heads}
        return {**sizes, **{key: size for key, size in asked.items() if size is not None}}


def put_head(
    model: VideoModel,
    name: str,
    num_classes: int,
    depth: int | None = None,
    num_heads: int | None = None,
) -> None:
    """Give a model a new head. V-JEPA's has norms of its own, so that `fc_norm` goes.

    Args:
        name: key of `HEADS`.
        depth: blocks of `vjepa_attentive`; default: 4.
        num_heads: of `vjepa_attentive`; default: 16, or D / 64 if less.

    Raises:
        ValueError: a depth or heads for a head that has none, or a width that the head cannot have.
    """
    if name == "vjepa_attentive":
        depth = DEPTH if depth is None else depth
        model.head = VJepaHead(model.width, num_classes, depth, num_heads)
        model.fc_norm = nn.Identity()
        return
    why = f"is for model.head: vjepa_attentive; leave it out with {name}"
    require_unset(why, head_depth=depth, head_heads=num_heads)
    model.head = HEADS[name](model.width, num_classes)


def require_unset(why: str, **options: Any) -> None:
    """Refuse options that a family does not have.

    Raises:
        ValueError: naming the first one that is given, and `why`.
    """
    for key, value in options.items():
        if value is not None:
            raise ValueError(f"model.{key}: {value!r} {why}")


def require_one_segment(name: str, options: BackboneOptions) -> None:
    """Refuse clips in segments for a backbone that encodes a clip as a whole.

    Raises:
        ValueError: naming the option that asks for them.
    """
    if options.segments > 1:
        raise ValueError(
            f"data.sampling: its clips are {options.segments} segments, which the vjepa2 backbones "
            f"encode one by one; {name} encodes a clip as a whole: choose another sampling"
        )
