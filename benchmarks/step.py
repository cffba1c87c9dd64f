"""Training steps by method, precision and what is recomputed, against transformers' models.

All rows are of one model size: vidadapt's ViT, and transformers' `VideoMAEForVideoClassification`
with a configuration of the same size, trained in full or with peft's LoRA (rank 8, queries and
values); of a vjepa2 backbone transformers' encoder (sdpa), also with AdaptFormer's adapters. All
have random weights in float32 (bf16 is autocast, with vidadapt's frozen weights cast once as
tools/train.py does), the same random batch, cross-entropy, and SGD with momentum. A step is
forward, backward and optimiser step. Heads differ for VideoMAE: vidadapt's is BatchNorm and a
linear layer.

On a CPU the contenders lie in memory together and take turns, a step each; a ratio is the median of
those within a round. On a GPU each has the device to itself, as memory is what many cannot share,
and one that does not fit is a row that says so.

The share of the matmul rate is FLOPs of the step, by time, over the rate at which the device
multiplies matrices of the model's own layers in the same precision and in the same round, see
`vidadapt.matmul`. FLOPs are those of the method without what it recomputes, so that recomputing
lowers the share.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.memory import keep_freed_memory, own_bytes, peak_bytes
from benchmarks.report import targets_table
from benchmarks.step_contenders import (
    SIZES,
    Contender,
    Size,
    Step,
    batch,
    plain_model,
    prepared,
    read_contender,
    training_flops,
)
from benchmarks.step_table import aimed_at, device_name, notes, table, title
from benchmarks.timing import take_turns
from vidadapt import methods, runs
from vidadapt.apps.study import benchmark
from vidadapt.apps.study.benchmark import spread_percent
from vidadapt.apps.study.matmul import DTYPES, block_products, matmul_turn
from vidadapt.console import track
from vidadapt.files import write_json

DEFAULT = (
    *("full", "adaptformer", "adaptformer+mlp", "adaptformer+block", "losa", "lora", "linear"),
    *("transformers-full", "transformers-lora"),
)
PRECISIONS = ("fp32", "bf16")
SCHEDULE = 168_913 * 90  # clips of AdaptFormer's on Something-Something V2: videos x epochs
MIB = 2**20


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    try:
        size = read_size(args)
        contenders = [
            read_contender(spec, precision)
            for precision in args.precision
            for spec in args.contenders
        ]
        if args.json is not None:
            runs.check_writable("--json", args.json.absolute().parent)
    except (ValueError, OSError) as error:
        sys.exit(f"step: {error}")
    together = size.device.type == "cpu"
    if together:
        keep_freed_memory()
    groups = [contenders] if together else [[contender] for contender in contenders]
    rows: list[dict[str, Any]] = []
    seconds: dict[str, list[float]] = {}
    for group in groups:
        found, times = measured(group, size, rounds=args.rounds, steps=args.steps)
        rows += found
        seconds |= times
    targets = [target.as_dict() for target in aimed_at(rows, seconds)] if together else []
    print("\n\n".join([title(size), table(rows), notes(rows)]))
    if targets:
        print(targets_table(targets), file=sys.stderr)
    if args.json is not None:
        settings = {key: value for key, value in vars(args).items() if key != "json"}
        result = {
            "table": "step",
            "settings": {**settings, "torch": torch.__version__, "on": device_name(size.device)},
            "rows": rows,
            "targets": targets,
        }
        write_json(args.json, result)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""contenders: [transformers-]METHOD[+OPTION...]; options: mlp and block recompute,
flash and plain force an attention kernel, compile is torch.compile
examples:
  python -m benchmarks.step --contenders adaptformer transformers-lora --precision fp32
  python -m benchmarks.step --backbone vjepa2_large --crop_size 256 --batch_size 2 --contenders \\
    linear transformers-linear adaptformer transformers-adaptformer
  python -m benchmarks.step --device cuda --precision bf16 --batch_size 64 --steps 20 \\
    --contenders full adaptformer adaptformer+plain adaptformer+compile losa""",
    )
    parser.add_argument("--contenders", nargs="+", default=DEFAULT, metavar="SPEC")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--backbone", choices=SIZES, default="vit_base")
    parser.add_argument("--num_frames", type=int, default=8, metavar="T")
    parser.add_argument("--crop_size", type=int, default=224, metavar="S")
    parser.add_argument("--num_classes", type=int, default=174, metavar="K")
    parser.add_argument("--batch_size", type=int, default=2, help="clips (%(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=5, help="that count (%(default)s)")
    parser.add_argument("--steps", type=int, default=1, help="of a turn (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def read_size(args: argparse.Namespace) -> Size:
    """The sizes, or a ValueError that names the option."""
    for key, least in {"batch_size": 2, "rounds": 1, "steps": 1, "num_classes": 1}.items():
        if getattr(args, key) < least:
            raise ValueError(f"--{key}: expected {least} or more, got {getattr(args, key)}")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: torch finds no CUDA device here; use cpu")
    return Size(
        backbone=args.backbone,
        num_frames=args.num_frames,
        crop_size=args.crop_size,
        num_classes=args.num_classes,
        batch_size=args.batch_size,
        device=torch.device(args.device),
    )


def measured(
    contenders: Sequence[Contender], size: Size, *, rounds: int, steps: int
) -> tuple[list[dict[str, Any]], dict[str, list[float]]]:
    """A row for each contender, and the seconds of a step of each in each round."""
    free()
    rows: dict[str, dict[str, Any]] = {}
    turns: dict[str, Callable[[], float]] = {}
    for contender in track(contenders, total=len(contenders), label="first steps", unit="models"):
        row = rows[contender.name] = known(contender, training_flops(contender, size))
        try:
            turns[contender.name] = started(contender, size, row, steps)
        except RuntimeError as error:
            if not is_want_of_memory(error):
                raise
            row["problem"] = "does not fit"
    with torch.device("meta"):
        model = plain_model(size)
    tokens, shapes = block_products(model)
    ceilings = {
        f"matmul {precision}": matmul_turn(
            size.batch_size * tokens,
            shapes,
            SIZES[size.backbone]["depth"],
            DTYPES[precision],
            size.device,
        )
        for precision in sorted({c.precision for c in contenders if c.name in turns})
    }
    times = take_turns(turns | ceilings, rounds)
    for contender in contenders:
        row = rows[contender.name]
        if contender.name in turns:
            own, best = times[contender.name], times[f"matmul {contender.precision}"]
            work = row["gflop_per_clip"] * size.batch_size / 1e3
            shares = [work * ceiling / second for second, ceiling in zip(own, best, strict=True)]
            median = statistics.median(own)
            row |= {
                "step_seconds": median,
                "spread_percent": spread_percent(own),
                "clips_per_second": size.batch_size / median,
                "matmul_tflops": 1 / statistics.median(best),
                "matmul_share": statistics.median(shares),
                "schedule_hours": SCHEDULE / (size.batch_size / median) / 3600,
                "seconds": own,
            }
    return list(rows.values()), {name: times[name] for name in turns}


def known(contender: Contender, flops: int) -> dict[str, Any]:
    """What is known of a row before any step is taken; what is not, None."""
    unknown = ("trainable", "kept_mib_per_clip", "peak_mib", "step_seconds", "spread_percent")
    rates = ("clips_per_second", "matmul_tflops", "matmul_share", "schedule_hours", "seconds")
    return {
        "name": contender.name,
        **vars(contender),
        "gflop_per_clip": flops / 1e9,
        **dict.fromkeys((*unknown, *rates)),
        "problem": None,
    }


def started(
    contender: Contender, size: Size, row: dict[str, Any], steps: int
) -> Callable[[], float]:
    """The contender's turn, after a first step that tells its memory."""
    step, given = prepared(contender, size), batch(size)
    row["trainable"], _ = methods.count_parameters(step.model)

    def first() -> int | None:
        if contender.compiled:  # a graph is compiled for what it saves
            step.finish(step.loss(*given))
            return None
        value, kept = benchmark.backward_bytes(step.model, lambda: step.loss(*given))
        step.finish(value)
        return kept

    kept, peak = peak_bytes(first, size.device)
    row["kept_mib_per_clip"] = None if kept is None else kept / size.batch_size / MIB
    row["peak_mib"] = None if peak is None else (peak + own_bytes(step.model)) / MIB
    return turn(step, given, size.device, steps)


def turn(
    step: Step, given: tuple[Tensor, Tensor], device: torch.device, steps: int
) -> Callable[[], float]:
    """Seconds of a step, of `steps` in a row that nothing waits between."""

    def several() -> None:
        for _ in range(steps):
            step.finish(step.loss(*given))

    def seconds() -> float:
        (taken,) = benchmark.step_seconds(several, device, warmup=0, steps=1)
        return taken / steps

    return seconds


def is_want_of_memory(error: RuntimeError) -> bool:
    """torch has a class of its own for CUDA's, and none for the CPU's."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def free() -> None:
    """Give back what former contenders held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
