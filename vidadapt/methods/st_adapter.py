"""ST-Adapter: a bottleneck with a depthwise convolution over time and space inside each block.

Paper: Pan et al., "ST-Adapter: Parameter-Efficient Image-to-Video Transfer Learning", NeurIPS 2022,
arXiv 2206.13559. Reference implementation: linziyi96/st-adapter. As released: no activation inside,
zero padding at the borders of the clip, class token and registers bypass, kernel 3 x 1 x 1, 384
channels on ViT-B. The release builds two models: `12x384`, an adapter before the MLP of every block
(its script for Kinetics-400), and `24x384`, one before the attention, too (its script for SSv2).

Differs from it in: the up-projection starts at zero (there the convolution does); it works on joint
space-time tokens too, on grids of any shape, and on the stages of hierarchical backbones. The
release reads only the class token of the last block, which an adapter before that block's MLP
cannot change: it is built, counted and saved but never gets a gradient. Here such an adapter is
refused: on 12 blocks `12x384` is position mlp with layers 1-11, and `24x384` is position both with
mlp_layers 1-11.
"""

from __future__ import annotations

import math
from typing import Literal

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from vidadapt.methods.placing import chosen_layers, require_counts
from vidadapt.models import Block, VideoModel

# A list: YAML and JSON would return a tuple as a list, which is not equal to the tuple.
TIME_ONLY = [3, 1, 1]


class Adapter(nn.Module):
    """up(conv(down(x))) for the tokens of the grid, zero for those before them; shape as x.

    x is (B * rows_per_clip, N, D), or (B * T, H, W, D) on backbones that keep the image's shape;
    the convolution sees (B, bottleneck, t, h, w). Parameters, with a kernel of n taps:
    2 D * bottleneck + bottleneck + D + (n + 1) * bottleneck.
    """

    def __init__(
        self,
        width: int,
        bottleneck: int,
        kernel: tuple[int, int, int],
        *,
        grid: tuple[int, int, int],
        rows_per_clip: int,
        num_prefix_tokens: int,
    ) -> None:
        super().__init__()
        self.grid, self.rows_per_clip = grid, rows_per_clip
        self.num_prefix_tokens = num_prefix_tokens
        self.down = nn.Linear(width, bottleneck)
        self.conv = nn.Conv3d(
            bottleneck,
            bottleneck,
            kernel_size=kernel,
            padding=(kernel[0] // 2, kernel[1] // 2, kernel[2] // 2),
            groups=bottleneck,
        )
        self.up = nn.Linear(bottleneck, width)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for tensor in (self.down.bias, self.conv.bias, self.up.weight, self.up.bias):
            assert tensor is not None
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            hidden = rearrange(self.down(x), "(b t) h w c -> b c t h w", t=self.rows_per_clip)
            return self.up(rearrange(_convolved(self.conv, hidden), "b c t h w -> (b t) h w c"))
        rows, (_, h, w) = self.rows_per_clip, self.grid
        hidden = self.down(x[:, self.num_prefix_tokens :])
        hidden = rearrange(hidden, "(b r) (t h w) c -> b c (r t) h w", r=rows, h=h, w=w)
        hidden = _convolved(self.conv, hidden)
        hidden = rearrange(hidden, "b c (r t) h w -> (b r) (t h w) c", r=rows)
        return functional.pad(self.up(hidden), (0, 0, self.num_prefix_tokens, 0))


def _convolved(conv: nn.Conv3d, volume: Tensor) -> Tensor:
    """The depthwise convolution of (B, C, t, h, w).

    A kernel over time alone runs in two dimensions, time and place: on a CPU 50 times as fast in
    float32 and 20 to 30 times in bf16 (forward and backward, torch 2.15).
    """
    if conv.kernel_size[1:] != (1, 1):
        return conv(volume)
    flat = functional.conv2d(
        volume.flatten(3).contiguous(),
        conv.weight.flatten(3),
        conv.bias,
        padding=(conv.kernel_size[0] // 2, 0),
        groups=conv.groups,
    )
    return flat.view(volume.shape)


class STAdapterBlock(nn.Module):
    """A frozen block with trainable adapters before its attention, before its MLP, or both.

    x + Adapter(x) replaces the stream x before norm1, before norm2, or at both places.
    """

    def __init__(
        self, block: Block, before_attention: Adapter | None, before_mlp: Adapter | None
    ) -> None:
        super().__init__()
        self.block = block
        self.before_attention = before_attention
        self.before_mlp = before_mlp

    def forward(self, x: Tensor) -> Tensor:
        block = self.block
        if self.before_attention is not None:
            x = x + self.before_attention(x)
        x = x + block.drop_path1(block.ls1(block.attn(block.norm1(x))))
        if self.before_mlp is not None:
            x = x + self.before_mlp(x)
        return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))


def inject(
    model: VideoModel,
    *,
    bottleneck: int = 384,
    kernel: list[int] = TIME_ONLY,
    position: Literal["attention", "mlp", "both"] = "attention",
    layers: str | list[int] = "all",
    mlp_layers: str | list[int] | None = None,
) -> None:
    """Put adapters into the chosen blocks of a frozen backbone.

    The function is unchanged at the start, as the up-projection is zero.

    Args:
        model: any backbone; edited in place.
        bottleneck: channels of the convolution.
        kernel: its taps along time, height and width; odd numbers.
        position: before the attention, before the MLP, or both.
        layers: see `placing.chosen_layers`.
        mlp_layers: with position both, those with an adapter before the MLP; default: `layers`.

    Raises:
        ValueError: an invalid option, by name.
    """
    require_counts(bottleneck=bottleneck)
    taps = tuple(kernel)
    if len(taps) != 3 or any(n < 1 or n % 2 == 0 for n in taps):
        raise ValueError(
            "method.kernel: expected three odd numbers (time, height, width) such as [3, 1, 1], "
            f"got {kernel!r}"
        )
    slots = model.slots()
    with_attention, with_mlp = _chosen(model, position, layers, mlp_layers)

    def adapter(width: int) -> Adapter:
        return Adapter(
            width,
            bottleneck,
            (taps[0], taps[1], taps[2]),
            grid=model.grid,
            rows_per_clip=model.rows_per_clip,
            num_prefix_tokens=model.num_prefix_tokens,
        )

    for number in sorted({*with_attention, *with_mlp}):
        slot = slots[number - 1]
        before_attention = adapter(slot.width) if number in with_attention else None
        before_mlp = adapter(slot.width) if number in with_mlp else None
        slot.put(STAdapterBlock(slot.block, before_attention, before_mlp))


def _chosen(
    model: VideoModel,
    position: Literal["attention", "mlp", "both"],
    layers: str | list[int],
    mlp_layers: str | list[int] | None,
) -> tuple[list[int], list[int]]:
    """Layers with an adapter before the attention, and before the MLP; see `inject`."""
    if mlp_layers is not None and position != "both":
        raise ValueError(
            f"method.mlp_layers: goes with position: both; with position: {position} give layers"
        )
    depth = len(model.slots())
    chosen = chosen_layers(layers, depth)
    with_attention = chosen if position != "mlp" else []
    with_mlp = [] if position == "attention" else chosen
    if mlp_layers is not None:
        with_mlp = chosen_layers(mlp_layers, depth)
    if depth in with_mlp and model.reads_class_token:
        fewer = "layers" if position == "mlp" else "mlp_layers"
        raise ValueError(
            f"method.position: an adapter before the last MLP of {model.name} would train nothing, "
            "as the head reads the class token only, which passes by; choose position: attention, "
            f"or {fewer}: 1-{depth - 1}"
        )
    return with_attention, with_mlp
