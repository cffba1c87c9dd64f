"""What the parts of AdaptFormer's step take alone: how near to the matmul rate can it come?

    linear layers     plain products of the blocks' layers, forward, and backward to the inputs
    attention         forward and backward as the model computes it
    attention, fused  the same by torch's kernel
    adaptformer       the step, and transformers' (VideoMAE + LoRA, or V-JEPA 2 with the same
                      adapters), see benchmarks/step.py

All are of one size and precision and take turns, the parts for one block. A step has as many of
each part as blocks, less one backward, as nothing below the first adapter is trained. No step can
do without linear layers and attention, so their sum bounds, with these kernels, the share of the
matmul rate, and how many times as fast as transformers a step may become.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.memory import keep_freed_memory
from benchmarks.report import rows_table
from benchmarks.small_runs import check, finish
from benchmarks.step_contenders import (
    SIZES,
    Contender,
    Size,
    batch,
    plain_model,
    prepared,
    training_flops,
)
from benchmarks.timing import take_turns, timed
from vidadapt.apps.study.benchmark import spread_percent
from vidadapt.apps.study.matmul import DTYPES, block_products, matmul_turn
from vidadapt.models import VideoModel
from vidadapt.models.attention import attention
from vidadapt.models.vjepa import VJEPA_SIZES

LINEAR = "linear layers"
ATTENTION: dict[str, Any] = {
    "attention": attention,
    "attention, fused": F.scaled_dot_product_attention,
}
PARTS = (LINEAR, *ATTENTION)
COLUMNS = {
    "forward ms": ("forward_ms", ".1f"),
    "backward ms": ("backward_ms", ".1f"),
    "of a step, s": ("step_seconds", ".3f"),
    "spread %": ("spread_percent", ".0f"),
    "share": ("matmul_share", ".2f"),
    ": transformers": ("times_transformers", ".2f"),
}


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    check(args, "step_parts", {"batch_size": 2, "rounds": 1})
    keep_freed_memory()
    size = Size(
        backbone=args.backbone,
        num_frames=args.num_frames,
        crop_size=args.crop_size,
        num_classes=174,
        batch_size=args.batch_size,
        device=torch.device("cpu"),
    )
    theirs = "adaptformer" if args.backbone in VJEPA_SIZES else "lora"
    contenders = [
        Contender("vidadapt", "adaptformer", args.precision),
        Contender("transformers", theirs, args.precision),
    ]
    with torch.device("meta"):
        model = plain_model(size)
    seconds = take_turns(all_turns(model, contenders, size), args.rounds)
    rows = [part_row(name, seconds, model.depth) for name in PARTS]
    together = zip(rows[0]["seconds"], rows[1]["seconds"], strict=True)
    steps = [(f"{LINEAR} + attention", contenders[0], [sum(pair) for pair in together])]
    steps += [(c.name, c, seconds[c.name]) for c in contenders]
    for name, contender, own in steps:
        flops = training_flops(contender, size) * size.batch_size
        rows.append(step_row(name, own, flops, seconds["matmul"], seconds[contenders[1].name]))
    about = (
        f"{size.backbone}, {size.num_frames} frames of {size.crop_size} x {size.crop_size}, "
        f"{size.batch_size} clips a step, {args.precision}, {torch.get_num_threads()} threads."
    )
    finish(args, "step_parts", rows, [], f"{about}\n\n{rows_table(rows, COLUMNS, 'part')}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--backbone", choices=SIZES, default="vit_base")
    parser.add_argument("--num_frames", type=int, default=8, metavar="T")
    parser.add_argument("--crop_size", type=int, default=224, metavar="S")
    parser.add_argument("--batch_size", type=int, default=2, help="clips (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="that count (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def all_turns(
    model: VideoModel, contenders: list[Contender], size: Size
) -> dict[str, Callable[[], float]]:
    """Seconds of each part of a block, forward and backward, and of each contender's step."""
    tokens, shapes = block_products(model)
    dtype = DTYPES[contenders[0].precision]
    rows, heads = tokens * size.batch_size, SIZES[size.backbone]["num_heads"]
    turns: dict[str, Callable[[], float]] = {
        "matmul": matmul_turn(rows, shapes, model.depth, dtype, size.device),
        **linear_turns(rows, shapes, dtype),
    }
    joint = (size.batch_size, tokens, 3, heads, model.width // heads)
    for name, kernel in ATTENTION.items():
        turns |= attention_turns(name, kernel, torch.randn(joint, dtype=dtype))
    for contender in contenders:
        turns[contender.name] = step_turn(contender, size)
    return turns


def linear_turns(
    rows: int, shapes: list[tuple[int, int]], dtype: torch.dtype
) -> dict[str, Callable[[], float]]:
    weights = [torch.randn(outputs, inputs, dtype=dtype) for inputs, outputs in shapes]
    given = [torch.randn(rows, inputs, dtype=dtype) for inputs, _ in shapes]
    grads = [torch.randn(rows, outputs, dtype=dtype) for _, outputs in shapes]

    def forward() -> None:
        for x, weight in zip(given, weights, strict=True):
            torch.mm(x, weight.t())

    def backward() -> None:
        for grad, weight in zip(grads, weights, strict=True):
            torch.mm(grad, weight)

    return {f"{LINEAR} forward": timed(forward), f"{LINEAR} backward": timed(backward)}


def attention_turns(
    name: str, kernel: Callable[[Tensor, Tensor, Tensor], Tensor], joint: Tensor
) -> dict[str, Callable[[], float]]:
    """Over views of one projection (B, N, 3, heads, d), as a model has them."""
    leaves = [x.detach().requires_grad_() for x in joint.permute(2, 0, 3, 1, 4)]
    held: list[Tensor] = []

    def forward() -> None:
        held[:] = [kernel(*leaves)]

    def backward() -> None:
        torch.autograd.grad(held[0], leaves, torch.ones_like(held[0]))

    return {f"{name} forward": timed(forward), f"{name} backward": timed(backward)}


def step_turn(contender: Contender, size: Size) -> Callable[[], float]:
    step, given = prepared(contender, size), batch(size)
    return timed(lambda: step.finish(step.loss(*given)))


def part_row(name: str, seconds: Mapping[str, list[float]], depth: int) -> dict[str, Any]:
    forward, backward = (seconds[f"{name} {way}"] for way in ("forward", "backward"))
    totals = [depth * f + (depth - 1) * b for f, b in zip(forward, backward, strict=True)]
    return {
        "name": name,
        "forward_ms": 1e3 * statistics.median(forward),
        "backward_ms": 1e3 * statistics.median(backward),
        "step_seconds": statistics.median(totals),
        "spread_percent": spread_percent(totals),
        "seconds": totals,
    }


def step_row(
    name: str,
    own: list[float],
    flops: int,
    matmul: list[float],
    theirs: list[float],
) -> dict[str, Any]:
    """A whole step, or what bounds it; `matmul`: seconds of 10^12 FLOPs in each round."""
    rounds = zip(own, matmul, theirs, strict=True)
    shares, ratios = zip(*((flops / 1e12 * m / s, t / s) for s, m, t in rounds), strict=True)
    return {
        "name": name,
        "step_seconds": statistics.median(own),
        "spread_percent": spread_percent(own),
        "matmul_share": statistics.median(shares),
        "times_transformers": statistics.median(ratios),
        "seconds": own,
    }


if __name__ == "__main__":
    main()
