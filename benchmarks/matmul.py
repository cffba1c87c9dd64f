"""The ceiling of a training step: how fast the device multiplies matrices of the model's shapes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vidadapt.benchmark import step_seconds

MAX_FLOPS = 4e11  # of one turn on a CPU: as many blocks as fit, at least one


def layer_shapes(width: int, mlp_ratio: float) -> list[tuple[int, int]]:
    """(inputs, outputs) of the linear layers of one block: qkv, proj, fc1, fc2.

    >>> layer_shapes(768, 4.0)
    [(768, 2304), (768, 768), (768, 3072), (3072, 768)]
    """
    hidden = round(width * mlp_ratio)
    return [(width, 3 * width), (width, width), (width, hidden), (hidden, width)]


def matmul_turn(
    tokens: int, shapes: list[tuple[int, int]], depth: int, dtype: torch.dtype, device: torch.device
) -> Callable[[], float]:
    """A turn of `timing.take_turns` that returns the seconds of 10^12 FLOPs in matrix products.

    The products are those of the linear layers in a forward pass of up to `depth` blocks, plain
    `torch.mm` of operands that lie there already in `dtype`, each with weights of its own. The rate
    is all their FLOPs by all their time, so that each shape counts by its FLOPs. Nothing is cast,
    and no bias, norm, activation or softmax is computed: what a training step does besides, and
    attention products that run slower than these, appear as the share that it falls short of 1.

    Args:
        tokens: rows of each product, batch size x tokens of a clip.
    """
    flops = sum(2 * tokens * inputs * outputs for inputs, outputs in shapes)
    blocks = min(depth, max(1, int(MAX_FLOPS / flops))) if device.type == "cpu" else depth
    rows = {inputs: torch.randn(tokens, inputs, dtype=dtype, device=device) for inputs, _ in shapes}
    weights: list[Tensor] = [
        torch.randn(outputs, inputs, dtype=dtype, device=device)
        for _ in range(blocks)
        for inputs, outputs in shapes
    ]

    def multiply() -> None:
        for weight in weights:
            torch.mm(rows[weight.shape[1]], weight.t())

    def turn() -> float:
        (seconds,) = step_seconds(multiply, device, warmup=0, steps=1)
        return seconds / (blocks * flops) * 1e12

    return turn
