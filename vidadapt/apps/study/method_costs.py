"""A table of what each method trains, stores, computes and keeps in memory on a backbone."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import torch

from vidadapt import methods, runs
from vidadapt.apps.report import markdown_table
from vidadapt.apps.study import benchmark
from vidadapt.apps.study.benchmark import NOISY_PERCENT, Counts, Measurements, Setting
from vidadapt.config import Within, parse_train
from vidadapt.console import duration
from vidadapt.files import write_json
from vidadapt.models import resolved_precision

NOTES = """\
Parameters: trainable ones with head and fc_norm, % of all. File: safetensors of one task.
GFLOP: of one clip, a multiply-add being 2; training is forward and backward,
without what --recompute computes again.
Kept: what forward keeps for backward, MB (10^6 bytes) a clip. Peak: of a whole step with SGD and
momentum, MB, model included. Step: median seconds, (slowest - fastest) / median."""

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


@dataclass(frozen=True)
class CostOptions:
    """Options of vidadapt cost.

    Attributes:
        method: rows of the table, METHOD[:OPTION=VALUE,...]; options as vidadapt train takes them
            behind --method.; all: every method with its own defaults, in the order below.
        threads: CPU threads; default: torch's choice.
        steps: timed steps.
        no_time: only count: no steps, so no time and no memory.
        json: file to write the table to as a list, too.
        plugins: modules to import first, separated by commas; they may add methods and backbones.
    """

    setting: Setting
    method: Sequence[str] = ("all",)
    threads: Annotated[int | None, Within("[1, inf)")] = None
    steps: Annotated[int, Within("[1, inf)")] = 3
    no_time: bool = False
    json: Path | None = None
    plugins: str | None = None


def compare_costs(asked: CostOptions) -> int:
    """Measure and print the table; the exit status: 1 if a method broke down, or none works.

    Raises:
        ValueError: what is impossible, naming the option; nothing was measured then.
    """
    setting = checked(asked.setting)
    names = [
        name for spec in asked.method for name in (methods.METHODS if spec == "all" else [spec])
    ]
    chosen = {spec: read_method(spec) for spec in names}
    if asked.json is not None:
        runs.check_writable("--json", asked.json.absolute().parent)
    with torch.device("meta"):
        benchmark.bare_model(setting)
    entries = []
    for number, (spec, method) in enumerate(chosen.items(), start=1):
        began = time.monotonic()
        entries.append(cost_entry(spec, method, setting, asked))
        outcome = entries[-1]["problem"] or duration(time.monotonic() - began)
        print(f"{number}/{len(chosen)} {spec}: {outcome}", file=sys.stderr, flush=True)
    base = set_ratios(entries)
    parts = [title(setting, entries), "", table(entries, base), "", NOTES, *remarks(entries)]
    print("\n".join(parts))
    if asked.json is not None:
        write_json(asked.json, entries)
    return int(any(e["failed"] for e in entries) or all(e["problem"] for e in entries))


def checked(setting: Setting) -> Setting:
    """The setting with the precision that `auto` means here.

    Raises:
        ValueError: it cannot be measured, naming the option.
    """
    if setting.batch_size == 1 and setting.head == "batchnorm_linear":
        raise ValueError(
            "--batch_size: the BatchNorm of head batchnorm_linear needs 2 clips or more, got 1; "
            "raise it, or use --head linear"
        )
    if setting.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: torch finds no CUDA device here; use cpu")
    precision = resolved_precision(torch.device(setting.device), setting.precision)
    return replace(setting, precision=precision)


def read_method(spec: str) -> dict[str, Any]:
    """`name:option=value,...` as the method's section of a configuration, types checked."""
    name, _, options = spec.partition(":")
    words = ["--run_dir", "none", "--method.name", name]
    for option in re.split(r",(?![^\[]*\])", options) if options else []:  # not inside [1,2]
        key, equals, value = option.partition("=")
        if not equals:
            raise ValueError(f"--method: expected option=value behind {name}:, got {option!r}")
        words += [f"--method.{key}", value]
    return parse_train(words, methods.METHODS)[0].method


def cost_entry(
    spec: str, method: dict[str, Any], setting: Setting, asked: CostOptions
) -> dict[str, Any]:
    """One row, always with the same keys; what was not measured is None.

    What goes wrong in one method costs only its own row: `problem` says what, and `failed` tells a
    breakdown from a method that does not exist on this backbone.
    """
    entry = {
        "label": spec,
        "method": method["name"],
        "options": {key: value for key, value in method.items() if key != "name"},
        **dict.fromkeys(field.name for kind in (Counts, Measurements) for field in fields(kind)),
        "step_time_ratio": None,
        "step_time_compared_with": None,
        "problem": None,
        "failed": False,
        **asdict(setting),
        "torch": torch.__version__,
    }
    try:
        entry |= asdict(benchmark.count(setting, method))
        if not asked.no_time:
            steps: dict[str, Any] = {"steps": asked.steps, "threads": asked.threads}
            if asked.plugins is not None:
                steps["plugins"] = asked.plugins.split(",")
            measure = benchmark.measure
            entry |= asdict(benchmark.in_fresh_process(measure, setting, method, **steps))
    except ValueError as error:
        entry["problem"] = str(error)
    except (RuntimeError, MemoryError) as error:
        entry |= {"problem": f"{type(error).__name__}: {error}", "failed": True}
    return entry


def set_ratios(entries: list[dict[str, Any]]) -> str | None:
    """Set each step time's ratio to full fine-tuning's, or else to the linear probe's.

    Returns:
        Which of them; None: neither was measured.
    """
    medians = {e["label"]: e["step_seconds"] for e in entries if e["step_seconds"] is not None}
    base = next((name for name in ("full", "linear") if name in medians), None)
    if base is not None:
        for entry in entries:
            if entry["label"] in medians:
                entry["step_time_ratio"] = medians[entry["label"]] / medians[base]
                entry["step_time_compared_with"] = base
    return base


def table(entries: list[dict[str, Any]], base: str | None) -> str:
    """A Markdown table; columns without any figure are left out."""
    shown = {
        heading.format(base=base): column
        for heading, column in COLUMNS.items()
        if any(entry[column[0]] is not None for entry in entries)
    }
    rows = []
    for entry in entries:
        figures = [
            "" if entry[key] is None else f"{entry[key] * scale:{style}}"
            for key, scale, style in shown.values()
        ]
        rows.append([entry["label"], *figures])
    return markdown_table(["method", *shown], rows)


def title(setting: Setting, entries: list[dict[str, Any]]) -> str:
    """Describe the model and the steps of the table, in one line."""
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
    """List what a reader must know before using the figures."""
    lines = [f"{e['label']}: {e['problem']}" for e in entries if e["problem"]]
    noisy = [e["label"] for e in entries if (e["step_spread_percent"] or 0) > NOISY_PERCENT]
    if noisy:
        lines.append(
            f"WARNING: step times spread by more than {NOISY_PERCENT} % ({', '.join(noisy)}); "
            "something else is using the machine, or --steps is too low"
        )
    return lines
