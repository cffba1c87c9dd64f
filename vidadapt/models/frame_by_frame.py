"""An image model on every frame, and the mean over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from einops import rearrange
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from vidadapt.models.backbone import VideoModel
from vidadapt.models.blocks import NORM_EPS, Slot
from vidadapt.models.clip_shape import require_clip
from vidadapt.models.heads import linear, read_out
from vidadapt.models.image import attention_kind, edit_blocks, rotary_embedding


class FrameByFrame(VideoModel):
    """An image model on every frame of a clip.

    The image model sees every frame alone and pools as it does on images (class token, mean over
    patches, attention pool; its own norms included), then: mean over time, `fc_norm`, `head`. With
    T = 1 it is the image model with a classifier: there is no `fc_norm`. The backbone does not see
    the order of frames.

    Args:
        image: timm model of a class in `image.ATTENTION`, as a rule with loaded weights; not
            copied; its blocks are put into the form that methods edit.
        num_frames: T.
        crop_size: S, pixels; the image model's.
        num_classes: K. The head is `heads.linear`; `build` sets another one.

    Attributes: those of `VideoModel`;
        grid: (T, h, w), with h and w of the patch embedding (later stages of Swin have fewer).
        rows_per_clip: T.

    Raises:
        ValueError: a model whose blocks cannot be edited.
    """

    time_embed = None

    def __init__(
        self,
        image: Any,
        *,
        num_frames: int,
        crop_size: int,
        num_classes: int,
        name: str = "frame-by-frame model",
    ) -> None:
        super().__init__()
        if num_frames < 1:
            raise ValueError(f"num_frames is {num_frames}; a clip has at least 1 frame")
        self.name = name
        self.attention = attention_kind(image, name)
        rotary = rotary_embedding(image, name)
        for container in _containers(image):
            edit_blocks(container, rotary)
        self.image = image
        embed = image.stem if hasattr(image, "stem") else image.patch_embed
        self.grid = (num_frames, *embed.grid_size)
        self.rows_per_clip = num_frames
        self.clip_shape = (3, num_frames, crop_size, crop_size)
        self.num_prefix_tokens = getattr(image, "num_prefix_tokens", 0)
        self.reads_class_token = image.global_pool == "token"
        self.width, self.depth = image.head_hidden_size, len(self.slots())
        norm = nn.LayerNorm(self.width, eps=NORM_EPS)
        self.fc_norm: nn.Module = norm if num_frames > 1 else nn.Identity()
        self.head = linear(self.width, num_classes)

    def slots(self) -> list[Slot]:
        return [
            Slot(container, index, width, stage)
            for stage, (container, width) in enumerate(
                zip(_containers(self.image), _widths(self.image), strict=True)
            )
            for index in range(len(container))
        ]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that do not decay: those that timm's model names."""
        named: Callable[[], set[str]] = getattr(self.image, "no_weight_decay", set)
        return {f"image.{name}" for name in named()}

    def frame_features(self, frames: Tensor) -> Tensor:
        """Frames (rows, 3, S, S) to the image model's pooled features (rows, D)."""
        image = self.image
        if isinstance(image, Eva):
            # timm's loop passes the rotation to every block; here the blocks hold it.
            x, _ = image._pos_embed(image.patch_embed(frames))
            x = image.norm_pre(x)
            for block in image.blocks:
                x = block(x)
            tokens = image.norm(x)
        else:
            tokens = image.forward_features(frames)
        return image.forward_head(tokens, pre_logits=True)

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, S, S) to the features (B, T, D) of its frames."""
        require_clip(clip, self.clip_shape)
        features = self.frame_features(rearrange(clip, "b c t h w -> (b t) c h w"))
        return rearrange(features, "(b t) d -> b t d", b=clip.shape[0])

    def forward_from(self, x: Tensor, first: int) -> Tensor:
        """Tokens that enter slot number `first`, from 0, to what `forward_features` gives.

        Repeats timm's loop: blocks, with Swin's downsampling in front of a stage, then the norm.
        """
        image: Any = self.image
        for number, slot in enumerate(self.slots()[first:]):
            if number > 0 and slot.index == 0:
                x = image.layers[slot.stage].downsample(x)
            x = slot.block(x)
        features = image.forward_head(image.norm(x), pre_logits=True)
        return features.unflatten(0, (-1, self.rows_per_clip))

    def forward_head(self, tokens: Tensor) -> Tensor:
        """Features (B, T, D) of the frames to logits (B, K), see `heads.read_out`."""
        return read_out(tokens, self.fc_norm, self.head)


def _containers(image: Any) -> list[nn.Sequential | nn.ModuleList]:
    """The blocks' containers by stage."""
    if isinstance(image, SwinTransformer):
        return [cast(nn.Sequential, stage.blocks) for stage in image.layers]
    return [image.blocks]


def _widths(image: Any) -> list[int]:
    if isinstance(image, SwinTransformer):
        return [info["num_chs"] for info in image.feature_info]
    return [image.embed_dim]
