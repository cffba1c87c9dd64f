"""Exported programs of a run: size, milliseconds a clip, and accuracy on its test list.

    python -m benchmarks.exported RUN --json benchmarks/results/exported/DAY.json

writes each program that `vidadapt export` can make, runs all of them in turns on the middle clips
of the run's test videos, and compares their accuracy with that of the model. RUN has to lie where
its configuration finds its lists and videos.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.report import rows_table
from benchmarks.small_runs import check, finish
from benchmarks.timing import take_turns, timed
from vidadapt import data
from vidadapt.apps.study.benchmark import spread_percent
from vidadapt.config import parse_evaluate
from vidadapt.files import joined
from vidadapt.lists import Samples, read_list
from vidadapt.methods import METHODS
from vidadapt.runs import adapters
from vidadapt.serving import FORMATS, export_program

BATCHES = (1, 8)
COLUMNS = {
    "MB": ("megabytes", ".2f"),
    "top-1": ("top1", ".2f"),
    "as the model": ("same_percent", ".2f"),
    "largest change": ("largest_change", ".1e"),
    **{f"ms/clip, {size} at once": (f"ms_{size}", ".1f") for size in BATCHES},
    "spread %": ("spread_percent", ".0f"),
}
Run = Callable[[Tensor], Tensor]


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    check(args, "exported", {"rounds": 1})
    model, adapter = adapters.load_adapter(adapters.find_adapter(args.run))
    samples, files = test_videos(args.run)
    clips = data.centre_clips(files, adapter.plan, adapter.config.data.reader)
    labels = torch.from_numpy(samples.labels)
    rows: dict[str, dict[str, Any]] = {}
    runs: dict[str, Run] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, format in FORMATS.items():
            for dtype in format.dtypes:
                out = Path(folder) / f"{dtype}{format.ending}"
                about = export_program(args.run, out, name, dtype)
                title = f"{name} {dtype}"
                rows[title] = {"name": title, "megabytes": about["program"]["bytes"] / 1e6}
                runs[title] = format.load(out)
        runs["vidadapt fp32"] = model
        rows["vidadapt fp32"] = {"name": "vidadapt fp32", "megabytes": None}
        compare(rows, runs, clips, labels)
        time_clips(rows, runs, clips, args.rounds)
    ordered = [rows.pop("vidadapt fp32"), *rows.values()]
    args.videos, args.threads, args.torch = len(files), torch.get_num_threads(), torch.__version__
    args.run = args.run.name
    table = rows_table(ordered, COLUMNS, "program")
    finish(args, "exported", ordered, [], f"{len(files)} test videos, middle clips.\n\n{table}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--rounds", type=int, default=7, help="that count (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def test_videos(run: Path) -> tuple[Samples, list[str]]:
    """Samples of the run's test list, and their files."""
    config, _ = parse_evaluate(["--run_dir", str(run)], METHODS)
    assert config is not None and config.data.test_list and config.data.root
    plan = data.resolve(config.data, config.eval)
    samples = read_list(config.data.test_list, config.data.root, plan.num_classes)
    return samples, [joined(config.data.root, path) for path in samples.paths()]


@torch.no_grad()
def compare(
    rows: dict[str, dict[str, Any]], runs: dict[str, Run], clips: Tensor, labels: Tensor
) -> None:
    """Add accuracy, and how far logits are from the model's in float32."""
    found = {
        name: torch.cat([run(part) for part in clips.split(BATCHES[-1])])
        for name, run in runs.items()
    }
    wanted = found["vidadapt fp32"]
    for name, logits in found.items():
        best = logits.argmax(1)
        rows[name] |= {
            "top1": 100 * (best == labels).float().mean().item(),
            "same_percent": 100 * (best == wanted.argmax(1)).float().mean().item(),
            "largest_change": (logits - wanted).abs().max().item(),
        }


@torch.no_grad()
def time_clips(
    rows: dict[str, dict[str, Any]], runs: dict[str, Run], clips: Tensor, rounds: int
) -> None:
    """Add the milliseconds of a clip, alone and among eight."""
    turns = {
        f"{name} {size}": timed(_work(run, clips[:size]))
        for name, run in runs.items()
        for size in BATCHES
    }
    seconds = take_turns(turns, rounds)
    for name, row in rows.items():
        for size in BATCHES:
            row[f"ms_{size}"] = 1e3 * median(seconds[f"{name} {size}"]) / size
        row["spread_percent"] = spread_percent(seconds[f"{name} {BATCHES[-1]}"])
        row["seconds"] = {size: seconds[f"{name} {size}"] for size in BATCHES}


def _work(run: Run, clips: Tensor) -> Callable[[], None]:
    def work() -> None:
        run(clips)

    return work


if __name__ == "__main__":
    main()
