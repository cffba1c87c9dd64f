"""The page docs/scaling.md and its picture, made from raw figures of other benchmarks alone.

    python -m benchmarks.scaling frames --json benchmarks/results/scaling/DATE.frames.json
    python -m benchmarks.scaling processes --json benchmarks/results/scaling/DATE.processes.json
    python -m benchmarks.scaling_page benchmarks/results/scaling/DATE [--gpu_tflops 400 ...]

The projection is arithmetic, not a measurement: what it takes as given is listed on the page, and
every figure of it is an option.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.report import rows_table
from benchmarks.scaling import COLUMNS, METHODS
from benchmarks.step import SCHEDULE
from benchmarks.step_contenders import Contender, Size, build, training_flops
from vidadapt.apps.report.figures import write_figure
from vidadapt.apps.study.panels import frames_axis, scaled, styles_of, tidy, titled_figure
from vidadapt.files import write_text
from vidadapt.methods import count_parameters

ROOT = Path(__file__).parents[1]
GPUS = (1, 8, 16, 32, 64)
CURVES = ("frames", "processes")
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Assumed:
    """What the projection takes as given; nothing of it was measured for this page.

    Attributes:
        gpu_tflops: matrix products in bf16 that a GPU reaches, TFLOP/s.
        matmul_share: part of that rate which a training step reaches.
        batch_size: clips of a GPU.
        gpus_per_node: GPUs of a machine.
        cores_per_gpu: for its loader processes.
        network_gb_s: between machines, GB/s of each machine, which its GPUs share.
        delay_ms: of a message between machines, ms.
    """

    gpu_tflops: float = 400.0
    matmul_share: float = 0.5
    batch_size: int = 16
    gpus_per_node: int = 8
    cores_per_gpu: int = 12
    network_gb_s: float = 10.0
    delay_ms: float = 0.05


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    assumed = Assumed(**{field.name: getattr(args, field.name) for field in fields(Assumed)})
    files = [args.raw.with_name(f"{args.raw.name}.{curve}.json") for curve in CURVES]
    frames, processes, lists, day = (
        json.loads(file.read_text(encoding="utf-8")) for file in (*files, args.lists, args.loader)
    )
    loader = loader_rates(day)
    figure = curves(frames, processes["rows"], lists["rows"])
    picture = args.docs / "scaling" / "curves.png"
    picture.parent.mkdir(exist_ok=True)
    write_figure(figure, picture)
    write_text(args.docs / "scaling.md", page(frames, processes, lists["rows"], loader, assumed))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("raw", type=Path, help="begins the names of the raw files")
    parser.add_argument(
        "--lists", type=Path, default=ROOT / "benchmarks/results/lists/2026-11-29.json",
        metavar="FILE", help="of benchmarks.lists",
    )  # fmt: skip
    parser.add_argument(
        "--loader", type=Path, default=ROOT / "benchmarks/results/2026-11-21.json", metavar="FILE",
        help="of make bench, with its table of copies",
    )  # fmt: skip
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", metavar="FOLDER")
    for field in fields(Assumed):
        kind = type(field.default)
        parser.add_argument(f"--{field.name}", type=kind, default=field.default, metavar="X")
    return parser.parse_args(argv)


def loader_rates(day: Mapping[str, Any]) -> dict[str, float]:
    """Clips a second of a core, of 8 frames, by what they are read from."""
    rows = {row["set"]: row for row in day["tables"]["copies"]["rows"] if row["frames"] == 8}
    row = rows["mp4"]

    def a_core(kind: str) -> float:
        return sorted(row["rates"][kind])[1] / row["workers"]

    return {"mp4 files": a_core("originals"), "packed frames": a_core("packed")}


def curves(frames: Mapping[str, Any], processes: Rows, lists: Rows) -> Figure:
    """Milliseconds a clip by frames, clips a second by processes, first batch by listed videos."""
    cores = frames["settings"]["cores"]
    note = f"{frames['settings']['on']}, {cores} cores; raw figures: benchmarks/results/scaling"
    figure = titled_figure("A training step, and the start of a run", note, (10.5, 3.6))
    of_frames, of_processes, of_lists = figure.subplots(1, 3)
    styles = styles_of(METHODS)
    for method, style in styles.items():
        own = [row for row in frames["rows"] if row["name"] == method]
        numbers = [row["num_frames"] for row in own]
        times = [1e3 / row["clips_per_second"] for row in own]
        of_frames.plot(numbers, times, label=method, **style.line())
        # What FLOPs alone would make of the time at 8 frames.
        at_eight = next(row for row in own if row["num_frames"] == 8)
        by_work = 1e3 / at_eight["clips_per_second"] / at_eight["gflop_per_clip"]
        expected = [by_work * row["gflop_per_clip"] for row in own]
        of_frames.plot(numbers, expected, color=style.colour, linewidth=0.8, linestyle=":")
        own = [row for row in processes if row["name"] == method]
        numbers = [row["processes"] for row in own]
        of_processes.plot(numbers, [row["clips_per_second"] for row in own], **style.line())
        one = own[0]["clips_per_second"]
        ideal = [one * min(number, cores) for number in numbers]
        of_processes.plot(numbers, ideal, color=style.colour, linewidth=0.8, linestyle=":")
    frames_axis(of_frames, numbers_of(frames["rows"], "num_frames"))
    tidy(of_frames, "clip length (frames)", "ms a clip (dotted: by FLOPs)")
    scaled(of_frames, "y", [1e3 / row["clips_per_second"] for row in frames["rows"]])
    of_frames.legend(fontsize=8, frameon=False)
    frames_axis(of_processes, numbers_of(processes, "processes"))
    tidy(of_processes, "processes, a thread each", "clips/s (dotted: no exchange)")
    of_processes.set_ylim(bottom=0)
    numbers = [row["videos"] for row in lists]
    of_lists.plot(numbers, [row["first_batch_seconds"] for row in lists], **styles["full"].line())
    tidy(of_lists, "listed videos", "first batch after (s), 4 processes")
    scaled(of_lists, "x", numbers, always_log=True)
    of_lists.set_ylim(bottom=0)
    return figure


def numbers_of(rows: Rows, key: str) -> list[int]:
    """The different numbers, ascending."""
    return sorted({row[key] for row in rows})


@dataclass(frozen=True)
class Work:
    """A method on ViT-B with 8 frames of 224 pixels: FLOPs of a clip, bytes of its gradients."""

    flops: float
    gradient_bytes: int

    @classmethod
    def of(cls, method: str) -> Work:
        size = Size("vit_base", 8, 224, 174, 2, torch.device("cpu"))
        contender = Contender("vidadapt", method, "fp32")
        with torch.device("meta"):
            trained, _ = count_parameters(build(contender, size))
        return cls(training_flops(contender, size), 4 * trained)


def projected(
    method: str, work: Work, gpus: int, loader: Mapping[str, float], assumed: Assumed
) -> dict[str, Any]:
    """A row for so many GPUs.

    A ring over the machines sends 2 (n - 1) / n of the gradients' bytes and 2 (n - 1) messages in a
    row; within a machine it is taken to cost nothing. `least` has the exchange hidden behind the
    backward pass, `most` all of it after the pass.
    """
    rate = assumed.gpu_tflops * 1e12 * assumed.matmul_share / work.flops  # clips/s of a GPU
    step = assumed.batch_size / rate
    nodes = -(-gpus // assumed.gpus_per_node)
    sent = 2 * (nodes - 1) / nodes * work.gradient_bytes / (assumed.network_gb_s * 1e9)
    exchange = sent + 2 * (nodes - 1) * assumed.delay_ms / 1e3
    most = gpus * assumed.batch_size / max(step, exchange)
    least = gpus * assumed.batch_size / (step + exchange)
    fed = {name: a_core * assumed.cores_per_gpu * gpus for name, a_core in loader.items()}
    return {
        "name": method,
        "gpus": gpus,
        "exchange_ms": 1e3 * exchange,
        "step_ms": 1e3 * step,
        "most": most,
        "least": least,
        "efficiency": 100 * least / (gpus * rate),
        **{name: min(least, clips) for name, clips in fed.items()},
        "hours": SCHEDULE / min(least, fed["packed frames"]) / 3600,
    }


def page(
    frames: Mapping[str, Any],
    processes: Mapping[str, Any],
    lists: Rows,
    loader: Mapping[str, float],
    assumed: Assumed,
) -> str:
    """Markdown: measured curves, then the projection with what it takes as given."""
    settings = frames["settings"]
    works = {method: Work.of(method) for method in METHODS}
    rows = [
        projected(method, work, gpus, loader, assumed)
        for method, work in works.items()
        for gpus in GPUS
    ]
    given = "\n".join(
        f"| `--{field.name}` | {getattr(assumed, field.name):g} | {meaning(field.name)} |"
        for field in fields(Assumed)
    )
    counted = ", ".join(
        f"{method} {work.flops / 1e9:.0f} GFLOP a clip and {work.gradient_bytes / 1e6:.1f} MB of "
        "gradients"
        for method, work in works.items()
    )
    files = ", ".join(f"from {name} {rate:.0f}" for name, rate in loader.items())
    return f"""\
# Scaling

Made by `python -m benchmarks.scaling_page` from raw figures: nothing here is written by hand.

## Measured

![curves](scaling/curves.png)

{settings["on"]}, {settings["cores"]} cores, torch {settings["torch"]}; {settings["backbone"]},
{settings["crop_size"]} pixels, {settings["batch_size"]} clips a process, fp32, medians of
{settings["rounds"]} rounds in which all take turns. Raw figures: `benchmarks/results/scaling`.

By frames, one process on all cores:

{rows_table(frames["rows"], without("processes"), "method")}

By processes, a thread each, of which more than {processes["settings"]["cores"]} share cores:

{rows_table(processes["rows"], without("trained"), "method")}

By listed videos, 4 processes from the command to the first batch, Python and torch included:

{rows_table([{"name": f"{row['videos']:,}", **row} for row in lists], LISTS, "videos")}

## Projected

No figure of this part was measured on GPUs. It is arithmetic from measured and counted parts: ViT-B
with 8 frames of 224 pixels has {counted}; a core loads clips of 8 frames of mp4 videos ({files} a
second, `make bench`); the exchange begins within the backward pass ([speed](speed.md)). Taken as
given, each an option of the command:

| option | value | meaning |
|---|---:|---|
{given}

{rows_table(rows, PROJECTED, "method")}

"exchange hidden" and "not hidden" are the two ends of what overlap may bring; the efficiency, what
the loader feeds and the hours (168,913 clips x 90 epochs, from packed frames) are of the worse one.
"""


def without(key: str) -> dict[str, tuple[str, str]]:
    return {heading: column for heading, column in COLUMNS.items() if heading != key}


LISTS = {
    "first batch s": ("first_batch_seconds", ".1f"),
    "list read and looked up s": ("looked_up_seconds", ".2f"),
    "loader worker MB": ("worker_mb", ".2f"),
    "process GB": ("process_gb", ".2f"),
}
PROJECTED = {
    "GPUs": ("gpus", "d"),
    "step ms": ("step_ms", ".0f"),
    "exchange ms": ("exchange_ms", ".1f"),
    "clips/s, exchange hidden": ("most", ",.0f"),
    "not hidden": ("least", ",.0f"),
    "efficiency %": ("efficiency", ".0f"),
    "fed from mp4 files": ("mp4 files", ",.0f"),
    "fed from packed frames": ("packed frames", ",.0f"),
    "hours": ("hours", ".1f"),
}


def meaning(name: str) -> str:
    """What an assumption is, from the docstring of `Assumed`."""
    lines = [line.strip() for line in (Assumed.__doc__ or "").splitlines()]
    return next(line.partition(": ")[2] for line in lines if line.startswith(f"{name}: "))


if __name__ == "__main__":
    main()
