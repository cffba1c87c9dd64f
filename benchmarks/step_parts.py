"""What the parts of AdaptFormer's step take alone: how near to the matmul rate can it come?

    linear layers   the plain products of the blocks' layers, forward, and backward to their inputs
    attention       forward and backward as the model computes it; the same by torch's fused kernel
    step            of AdaptFormer-64 on vidadapt's ViT, and of transformers + LoRA, see
                    `benchmarks.step`

All are of one size and precision and take turns, the parts for one block; a step has as many of
each as there are blocks, less one backward, as nothing below the first adapter is trained. Linear
layers and attention can be left out of no step, so their sum bounds the share of the matmul rate,
and how many times as fast as another step one may become, with these kernels.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.memory import keep_freed_memory
from benchmarks.report import rows_table
from benchmarks.step_contenders import (
    SIZES,
    Contender,
    Size,
    batch,
    plain_model,
    prepared,
    training_flops,
)
from benchmarks.timing import take_turns
from vidadapt.apps.study.benchmark import spread_percent
from vidadapt.apps.study.matmul import DTYPES, block_products, matmul_turn
from vidadapt.files import write_json
from vidadapt.models.attention import attention

OURS, THEIRS = ("vidadapt", "adaptformer"), ("transformers", "lora")
PARTS = ("linear layers", "attention", "attention, fused")
COLUMNS = {
    "forward ms": ("forward_ms", ".1f"),
    "backward ms": ("backward_ms", ".1f"),
    "of a step, s": ("seconds", ".3f"),
    "spread %": ("spread_percent", ".0f"),
    "share of matmul rate": ("matmul_share", ".2f"),
}


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    keep_freed_memory()
    size = Size(
        backbone=args.backbone,
        num_frames=args.num_frames,
        crop_size=args.crop_size,
        num_classes=174,
        batch_size=args.batch_size,
        device=torch.device("cpu"),
    )
    with torch.device("meta"):
        model = plain_model(size)
    tokens, shapes = block_products(model)
    depth, dtype = model.depth, DTYPES[args.precision]
    rows = tokens * size.batch_size
    ceiling = matmul_turn(rows, shapes, depth, dtype, size.device)
    heads = SIZES[size.backbone]["num_heads"]
    turns: dict[str, Callable[[], float]] = {"matmul": ceiling}
    turns |= linear_turns(rows, shapes, dtype)
    joint = (size.batch_size, tokens, 3, heads, model.width // heads)
    kernels: dict[str, Any] = {PARTS[1]: attention, PARTS[2]: F.scaled_dot_product_attention}
    for name, kernel in kernels.items():
        turns |= attention_turns(name, kernel, joint, dtype)
    contenders = [Contender(*spec, args.precision) for spec in (OURS, THEIRS)]
    turns |= {contender.name: step_turn(contender, size) for contender in contenders}
    seconds = take_turns(turns, args.rounds)
    found = table_rows(seconds, depth)
    rate = 1e12 / statistics.median(seconds["matmul"])
    for row, contender in zip(found[-2:], contenders, strict=True):
        work = training_flops(contender, size) * size.batch_size
        row["matmul_share"] = work / rate / row["seconds"]
    bound = found[0]["seconds"] + found[1]["seconds"]
    work = training_flops(contenders[0], size) * size.batch_size
    said = (
        f"{size.backbone}, {size.num_frames} frames of {size.crop_size} x {size.crop_size}, "
        f"{size.batch_size} clips a step, {args.precision}, {torch.get_num_threads()} threads; "
        f"matmul rate {rate / 1e12:.3f} TFLOP/s. Linear layers and attention alone: {bound:.2f} s, "
        f"a share of {work / rate / bound:.2f}, {found[-1]['seconds'] / bound:.2f} times as fast "
        f"as {contenders[1].name}."
    )
    print("\n\n".join([said, rows_table(found, COLUMNS, "part")]))
    if args.json is not None:
        settings = {key: value for key, value in vars(args).items() if key != "json"}
        about = {"torch": torch.__version__, "threads": torch.get_num_threads()}
        write_json(
            args.json, {"settings": settings | about, "said": said, "rows": found, "raw": seconds}
        )


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    sizes = [name for name in SIZES if name.startswith("vit_")]
    parser.add_argument("--backbone", choices=sizes, default="vit_base")
    parser.add_argument("--num_frames", type=int, default=8, metavar="T")
    parser.add_argument("--crop_size", type=int, default=224, metavar="S")
    parser.add_argument("--batch_size", type=int, default=2, help="clips (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="that count (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def linear_turns(
    rows: int, shapes: list[tuple[int, int]], dtype: torch.dtype
) -> dict[str, Callable[[], float]]:
    """Seconds of the products of a block's linear layers, forward and backward to the inputs."""
    weights = [torch.randn(outputs, inputs, dtype=dtype) for inputs, outputs in shapes]
    given = [torch.randn(rows, inputs, dtype=dtype) for inputs, _ in shapes]
    grads = [torch.randn(rows, outputs, dtype=dtype) for _, outputs in shapes]

    def forward() -> None:
        for x, weight in zip(given, weights, strict=True):
            torch.mm(x, weight.t())

    def backward() -> None:
        for grad, weight in zip(grads, weights, strict=True):
            torch.mm(grad, weight)

    name = PARTS[0]
    return {f"{name}, forward": timed(forward), f"{name}, backward": timed(backward)}


def attention_turns(
    name: str, kernel: Callable[[Tensor, Tensor, Tensor], Tensor], joint: Any, dtype: torch.dtype
) -> dict[str, Callable[[], float]]:
    """Seconds of a block's attention over views of one projection `joint` (B, N, 3, heads, d)."""
    qkv = torch.randn(joint, dtype=dtype).permute(2, 0, 3, 1, 4)
    leaves = [x.detach().requires_grad_() for x in qkv]
    held: list[Tensor] = []

    def forward() -> None:
        held[:] = [kernel(*leaves)]

    def backward() -> None:
        torch.autograd.grad(held[0], leaves, torch.ones_like(held[0]))

    return {f"{name}, forward": timed(forward), f"{name}, backward": timed(backward)}


def step_turn(contender: Contender, size: Size) -> Callable[[], float]:
    step, given = prepared(contender, size), batch(size)
    return timed(lambda: step.finish(step.loss(*given)))


def timed(work: Callable[[], None]) -> Callable[[], float]:
    def seconds() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return seconds


def table_rows(seconds: dict[str, list[float]], depth: int) -> list[dict[str, Any]]:
    """A row for each part, of as many as a step has, then one for each step."""
    rows: list[dict[str, Any]] = []
    for name in PARTS:
        pairs = zip(seconds[f"{name}, forward"], seconds[f"{name}, backward"], strict=True)
        totals = [depth * there + (depth - 1) * back for there, back in pairs]
        rows.append(
            {
                "name": name,
                "forward_ms": 1e3 * statistics.median(seconds[f"{name}, forward"]),
                "backward_ms": 1e3 * statistics.median(seconds[f"{name}, backward"]),
                "seconds": statistics.median(totals),
                "spread_percent": spread_percent(totals),
            }
        )
    steps = [name for name in seconds if name != "matmul" and not name.startswith(PARTS)]
    return rows + [
        {
            "name": name,
            "seconds": statistics.median(seconds[name]),
            "spread_percent": spread_percent(seconds[name]),
        }
        for name in steps
    ]


if __name__ == "__main__":
    main()
