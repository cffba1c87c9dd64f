"""Cost: what each method trains, stores, computes and keeps in memory on a backbone."""

from __future__ import annotations

import argparse
import re
import sys
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from vidadapt import launching, methods, runs
from vidadapt.apps.report import markdown_table
from vidadapt.apps.study import benchmark
from vidadapt.apps.study.benchmark import NOISY_PERCENT, Counts, Measurements, Setting
from vidadapt.config import command_line
from vidadapt.console.progress import duration
from vidadapt.models.precision import resolved_precision

NOTES = """\
Parameters: trainable ones with head and fc_norm, % of all. File: safetensors of one task.
GFLOP: of one clip, a multiply-add being 2; training is forward and backward,
without what --recompute computes again.
Kept: what forward keeps for backward, MB (10^6 bytes) a clip. Peak: of a whole step with SGD and
momentum, MB, model included. Step: median seconds, (slowest - fastest) / median."""


def main(argv: list[str] | None = None) -> int:
    """Measure as the arguments say; the exit status: 1 if a method broke down, or none works."""
    arguments = parse(argv)
    setting = read_setting(arguments)
    chosen = {spec: read_method(spec) for spec in expand(arguments.method)}
    check_output(arguments.json)
    with torch.device("meta"):
        benchmark.bare_model(setting)
    entries = []
    for number, (spec, method) in enumerate(chosen.items(), start=1):
        began = time.monotonic()
        entries.append(cost(spec, method, setting, arguments))
        outcome = entries[-1]["problem"] or duration(time.monotonic() - began)
        print(f"{number}/{len(chosen)} {spec}: {outcome}", file=sys.stderr, flush=True)
    compare(entries)
    print("\n".join([title(setting, entries), "", *table(entries), "", NOTES, *remarks(entries)]))
    if arguments.json is not None:
        runs.write_json(arguments.json, entries)
    return int(any(e["failed"] for e in entries) or all(e["problem"] for e in entries))


def parse(argv: list[str] | None) -> argparse.Namespace:
    defaults = Setting()
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"""methods: {", ".join(methods.METHODS)}
examples:
  python tools/cost.py --method all --json cost.json
  python tools/cost.py --method adaptformer adaptformer:bottleneck=16,layers=7-12 --no-time""",
    )
    parser.add_argument(
        "--method",
        nargs="+",
        default=["all"],
        metavar="METHOD[:OPTION=VALUE,...]",
        help="rows of the table; options as train.py takes them behind --method.; default: all, "
        "every method with its own defaults, in the order below",
    )
    parser.add_argument("--backbone", default=defaults.backbone, help="default: %(default)s")
    parser.add_argument("--num_frames", type=int, default=defaults.num_frames, metavar="T")
    parser.add_argument("--crop_size", type=int, default=defaults.crop_size, metavar="S")
    parser.add_argument("--num_classes", type=int, default=defaults.num_classes, metavar="K")
    parser.add_argument(
        "--from_image",
        help="how an image model (--backbone timm/NAME) becomes a video model, inflate or frames; "
        "default: inflate",
    )
    parser.add_argument("--head", default=defaults.head, help="default: %(default)s")
    parser.add_argument(
        "--batch_size", type=int, default=defaults.batch_size, help="clips; default: %(default)s"
    )
    parser.add_argument("--precision", choices=("fp32", "bf16", "auto"), default="fp32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--recompute",
        choices=("none", "mlp", "block"),
        default=defaults.recompute,
        help="as --train.recompute of train.py, in the measured steps; default: %(default)s",
    )
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    parser.add_argument("--steps", type=int, default=3, help="timed steps; default: %(default)s")
    parser.add_argument(
        "--no-time", action="store_true", help="only count: no steps, so no time and no memory"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as a list, too")
    return parser.parse_args(argv)


def read_setting(arguments: argparse.Namespace) -> Setting:
    """What is measured, or a ValueError that names the option."""
    for key in ("batch_size", "steps", "threads"):
        value = getattr(arguments, key)
        if value is not None and value < 1:
            raise ValueError(f"--{key}: expected 1 or more, got {value}")
    if arguments.batch_size == 1 and arguments.head == "batchnorm_linear":
        raise ValueError(
            "--batch_size: the BatchNorm of head batchnorm_linear needs 2 clips or more, got 1; "
            "raise it, or use --head linear"
        )
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: torch finds no CUDA device here; use cpu")
    known = vars(arguments)
    values = {field.name: known[field.name] for field in fields(Setting) if field.name in known}
    values["precision"] = resolved_precision(torch.device(arguments.device), arguments.precision)
    return Setting(**values)


def expand(specs: list[str]) -> list[str]:
    """The rows asked for, `all` being every method; each once."""
    found = [name for spec in specs for name in (methods.METHODS if spec == "all" else [spec])]
    return list(dict.fromkeys(found))


def read_method(spec: str) -> dict[str, Any]:
    """`name:option=value,...` as the method's section of a configuration, types checked."""
    name, _, options = spec.partition(":")
    words = ["--run_dir", "none", "--method.name", name]
    for option in re.split(r",(?![^\[]*\])", options) if options else []:  # not inside [1,2]
        key, equals, value = option.partition("=")
        if not equals:
            raise ValueError(f"--method: expected option=value behind {name}:, got {option!r}")
        words += [f"--method.{key}", value]
    return command_line.parse_train(words, methods.METHODS)[0].method


def check_output(file: Path | None) -> None:
    if file is not None:
        runs.check_writable("--json", file.absolute().parent)


def cost(
    spec: str, method: dict[str, Any], setting: Setting, asked: argparse.Namespace
) -> dict[str, Any]:
    """One row, always with the same keys; what was not measured is None.

    What goes wrong in one method costs only its own row: `problem` says what, and `failed` tells a
    breakdown from a method that does not exist on this backbone.
    """
    counts: Counts | None = None
    measured: Measurements | None = None
    problem, failed = None, False
    try:
        counts = benchmark.count(setting, method)
        if not asked.no_time:
            measured = benchmark.in_fresh_process(
                benchmark.measure, setting, method, steps=asked.steps, threads=asked.threads
            )
    except ValueError as error:
        problem = str(error)
    except (RuntimeError, MemoryError) as error:
        problem, failed = f"{type(error).__name__}: {error}", True
    return {
        "label": spec,
        "method": method["name"],
        "options": {key: value for key, value in method.items() if key != "name"},
        **_values(Counts, counts),
        **_values(Measurements, measured),
        "step_time_ratio": None,
        "step_time_compared_with": None,
        "problem": problem,
        "failed": failed,
        **asdict(setting),
        "torch": torch.__version__,
    }


def _values(kind: type, values: Counts | Measurements | None) -> dict[str, Any]:
    return {f.name: getattr(values, f.name) if values else None for f in fields(kind)}


def compare(entries: list[dict[str, Any]]) -> None:
    """Set each step time's ratio to full fine-tuning's, or else to the linear probe's."""
    medians = {e["label"]: e["step_seconds"] for e in entries if e["step_seconds"] is not None}
    base = next((name for name in ("full", "linear") if name in medians), None)
    if base is None:
        return
    for entry in entries:
        if entry["label"] in medians:
            entry["step_time_ratio"] = medians[entry["label"]] / medians[base]
            entry["step_time_compared_with"] = base


COLUMNS = {  # heading: (key, scale, format)
    "trainable": ("trainable", 1, ",.0f"),
    "total": ("total", 1, ",.0f"),
    "%": ("share_percent", 1, ".3f"),
    "file MB": ("adapter_bytes", 1e-6, ".3f"),
    "forward GFLOP": ("forward_flops_per_clip", 1e-9, ".4g"),
    "training GFLOP": ("training_flops_per_clip", 1e-9, ".4g"),
    "kept MB": ("backward_bytes_per_clip", 1e-6, ".2f"),
    "peak MB": ("peak_memory_bytes", 1e-6, ".0f"),
    "step s": ("step_seconds", 1, ".3g"),
    "spread %": ("step_spread_percent", 1, ".0f"),
    "x {base}": ("step_time_ratio", 1, ".2f"),
}


def table(entries: list[dict[str, Any]]) -> list[str]:
    """The lines of a Markdown table; columns without any figure are left out."""
    base = next(filter(None, (entry["step_time_compared_with"] for entry in entries)), None)
    shown = {
        heading.format(base=base): column
        for heading, column in COLUMNS.items()
        if any(entry[column[0]] is not None for entry in entries)
    }
    headings = ["method", *shown]
    rows = []
    for entry in entries:
        figures = [
            "" if entry[key] is None else f"{entry[key] * scale:{style}}"
            for key, scale, style in shown.values()
        ]
        rows.append([entry["label"], *figures])
    return markdown_table(headings, rows).split("\n")


def title(setting: Setting, entries: list[dict[str, Any]]) -> str:
    """What the table is about, in one line."""
    size = f"{setting.num_frames} frames of {setting.crop_size} x {setting.crop_size}"
    made = f" (from_image {setting.from_image})" if setting.from_image else ""
    model = f"{setting.backbone}{made}, {size}, {setting.num_classes} classes, head {setting.head}"
    threads = next((e["threads"] for e in entries if e["threads"]), None)
    if threads is None:
        return model
    where = f"cpu with {threads} threads" if setting.device == "cpu" else setting.device
    again = "" if setting.recompute == "none" else f", recompute {setting.recompute}"
    return f"{model}; steps of {setting.batch_size} clips, {setting.precision}, {where}{again}"


def remarks(entries: list[dict[str, Any]]) -> list[str]:
    """What the reader must know before using the figures."""
    lines = [f"{e['label']}: {e['problem']}" for e in entries if e["problem"]]
    noisy = [e["label"] for e in entries if (e["step_spread_percent"] or 0) > NOISY_PERCENT]
    if noisy:
        lines.append(
            f"WARNING: step times spread by more than {NOISY_PERCENT} % ({', '.join(noisy)}); "
            "something else is using the machine, or --steps is too low"
        )
    return lines


if __name__ == "__main__":
    launching.alone(main)
