"""The ceiling of a training step: the device's rate of products of matrices of its shapes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vidadapt.apps.study.benchmark import step_seconds
from vidadapt.models import VideoModel

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

MAX_FLOPS = 4e11  # of one turn on a CPU: as many blocks as fit, at least one


def block_products(model: VideoModel) -> tuple[int, list[tuple[int, int]]]:
    """Tokens of a clip, and (inputs, outputs) of each linear layer, of the model's middle block.

    In a ViT all blocks are like it; of a hierarchical model it is one of the longest stage.

    Args:
        model: without a method, on the meta device.
    """
    slots = model.slots()
    block: nn.Module = slots[len(slots) // 2].block
    entered: list[Tensor] = []
    watch = block.register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    with torch.no_grad():
        model.eval()(torch.zeros(1, *model.clip_shape, device="meta"))
    watch.remove()
    tokens = entered[0].numel() // slots[len(slots) // 2].width
    layers = [module for module in block.modules() if isinstance(module, nn.Linear)]
    return tokens, [(layer.in_features, layer.out_features) for layer in layers]


def matmul_turn(
    tokens: int, shapes: list[tuple[int, int]], depth: int, dtype: torch.dtype, device: torch.device
) -> Callable[[], float]:
    """A function that does matrix products and returns the seconds that 10^12 FLOPs of them take.

    The products are those of the linear layers in a forward pass of up to `depth` blocks, plain
    `torch.mm` of operands that are on the device, in `dtype`, each with weights of its own. The
    rate is all their FLOPs by all their time, so that each shape counts by its FLOPs. Nothing is
    cast, and no bias, norm, activation or softmax is computed: what a training step does besides,
    and attention products that run slower than these, appear as the share that it falls short of 1.

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
