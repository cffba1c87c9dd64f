"""What the encoders share that keep a clip in one row and read out the norm of their last block."""

from __future__ import annotations

from typing import Any

from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from vidadapt.models.backbone import VideoModel
from vidadapt.models.blocks import NORM_EPS, Block, Slot
from vidadapt.models.clip_shape import require_clip, require_divides
from vidadapt.models.heads import linear, read_out
from vidadapt.models.vit import PatchEmbed


class ClipEncoder(VideoModel):
    """Tokens of a clip in one row, (B, P + t * h * w, D), time-major; blocks, norm, read-out.

    A kind of encoder adds its positions and fills `blocks` after this constructor, and defines
    `embedded`.

    Args:
        num_frames: T.
        crop_size: S, pixels.
        tubelet_size: frames of one token.
        patch_size: side of one token in pixels.
        width: D.
        num_classes: K. The head is `heads.linear`; `build` sets another one.

    Attributes: those of `VideoModel`, and
        positions: names of its tables of positions and its class token, which do not decay.
        blocks: see `Slot`.
        befores: see `Slot`; empty: there are none.
        norm: after the last block.

    Raises:
        ValueError: sizes that do not divide, or fewer than one class.
    """

    time_embed = None
    positions: tuple[str, ...]

    def __init__(
        self,
        *,
        num_frames: int,
        crop_size: int,
        tubelet_size: int,
        patch_size: int,
        width: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        require_divides("num_frames", num_frames, "tubelet_size", tubelet_size)
        require_divides("crop_size", crop_size, "patch_size", patch_size)
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}; a model needs at least 1 class")
        side = crop_size // patch_size
        self.grid = (num_frames // tubelet_size, side, side)
        self.clip_shape = (3, num_frames, crop_size, crop_size)
        self.width = width
        self.patch_embed = PatchEmbed(tubelet_size, patch_size, width)
        self.befores = nn.ModuleList()
        self.blocks = nn.ModuleList()
        self.norm: nn.Module = nn.LayerNorm(width, eps=NORM_EPS)
        self.fc_norm: nn.Module = nn.LayerNorm(width, eps=NORM_EPS)
        self.head = linear(width, num_classes)

    def embedded(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, S, S) to tokens with their positions (B, P + N, D)."""
        raise NotImplementedError

    def slots(self) -> list[Slot]:
        return [
            Slot(self.blocks, index, self.width, befores=self.befores)
            for index in range(len(self.blocks))
        ]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that do not decay: the class token and positions."""
        return set(self.positions)

    def embed(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, S, S) to the tokens (B, P + N, D) that enter the first block."""
        require_clip(clip, self.clip_shape)
        before = self.slots()[0].before
        tokens = self.embedded(clip)
        return tokens if before is None else before(tokens)

    def forward_features(self, clip: Tensor) -> Tensor:
        """Clip (B, 3, T, S, S) to all tokens (B, P + N, D) after the last block and norm."""
        return self.forward_from(self.embed(clip), 0)

    def forward_from(self, x: Tensor, first: int) -> Tensor:
        for number, slot in enumerate(self.slots()):
            if number > first and slot.before is not None:
                x = slot.before(x)
            if number >= first:
                x = slot.block(x)
        return self.norm(x)

    def forward_head(self, tokens: Tensor) -> Tensor:
        """Tokens (B, P + N, D) to logits (B, K): those of the grid, see `heads.read_out`."""
        count = self.num_prefix_tokens
        tokens = tokens[:, :count] if self.reads_class_token else tokens[:, count:]
        return read_out(tokens, self.fc_norm, self.head)

    def read_class_token(self) -> None:
        """Read out as the published classifiers do: the class token after the last norm."""
        self.fc_norm, self.reads_class_token = nn.Identity(), True


def encoder_block(
    attn: nn.Module, width: int, mlp_ratio: float, drop_path: float, activation: Any = nn.GELU
) -> Block:
    """A block around an attention."""
    return Block(
        norm1=nn.LayerNorm(width, eps=NORM_EPS),
        attn=attn,
        drop_path1=DropPath(drop_path) if drop_path > 0 else None,
        norm2=nn.LayerNorm(width, eps=NORM_EPS),
        mlp=Mlp(width, round(width * mlp_ratio), act_layer=activation),
        drop_path2=DropPath(drop_path) if drop_path > 0 else None,
    )


def drop_path_rates(last: float, depth: int) -> list[float]:
    """Stochastic depth rates of all blocks, rising linearly from 0.

    Raises:
        ValueError: no probability below 1.
    """
    if not 0 <= last < 1:
        raise ValueError(f"drop_path is {last}; it is a probability below 1")
    return [last * index / max(depth - 1, 1) for index in range(depth)]


def init_weights(model: ClipEncoder) -> None:
    """Draw weights as transformers does, for a model trained from scratch."""
    for module in (model.patch_embed, model.befores, model.blocks):
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Conv3d):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
