"""Runs of tools/train.py on a small generated set, for benchmarks of whole epochs."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.footage import FOOTAGE, generate
from benchmarks.report import targets_table
from benchmarks.timing import Target
from vidadapt import runs
from vidadapt.apps.study.tool_calls import begin_tools, run_forked, tool_command
from vidadapt.files import write_json, write_text
from vidadapt.models import SIZES

NUM_CLASSES = 10  # of generated footage


def generated(videos: Path, clips: int) -> None:
    """Write `clips` avi videos, train.txt with all of them, and labels.txt to the folder."""
    generate(FOOTAGE["avi"], clips, videos)
    classes = "".join(f"class {number}\n" for number in range(NUM_CLASSES))
    write_text(videos / "labels.txt", classes)


def add_shape(parser: argparse.ArgumentParser) -> None:
    """Add the options of `train` to a benchmark's command line."""
    parser.add_argument("--batch_size", type=int, default=8, help="clips (%(default)s)")
    parser.add_argument("--backbone", choices=SIZES, default="vit_base")
    parser.add_argument("--num_frames", type=int, default=8, metavar="T")
    parser.add_argument("--crop_size", type=int, default=224, metavar="S")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")


def check(args: argparse.Namespace, table: str, least_of: Mapping[str, int]) -> None:
    """End the benchmark with a message if an option is too small or --json cannot be written."""
    try:
        for key, least in least_of.items():
            if getattr(args, key) < least:
                raise ValueError(f"--{key}: expected {least} or more, got {getattr(args, key)}")
        if args.json is not None:
            runs.check_writable("--json", args.json.absolute().parent)
    except (ValueError, OSError) as error:
        sys.exit(f"{table}: {error}")


def finish(
    args: argparse.Namespace,
    table: str,
    rows: Sequence[Mapping[str, Any]],
    targets: Sequence[Target],
    markdown: str,
) -> None:
    """Print a table and its targets, and write both where --json asks for them."""
    reached = [target.as_dict() for target in targets]
    print(markdown)
    if reached:
        print(targets_table(reached), file=sys.stderr)
    if args.json is not None:
        settings = {key: value for key, value in vars(args).items() if key not in ("json", "work")}
        result = {"table": table, "settings": settings, "rows": rows, "targets": reached}
        write_json(args.json, result)


def train(
    args: argparse.Namespace, videos: Path, run_dir: Path, options: Mapping[str, Any]
) -> None:
    """Train on what `generated` wrote, with random weights and without warm-up.

    Args:
        args: `epochs` and what `add_shape` adds.
        options: of tools/train.py, beside these.
    """
    every = options_of(args, videos, run_dir, {"train.epochs": args.epochs, **options})
    tool("train", words_of(every))


def words_of(options: Mapping[str, Any]) -> list[str]:
    """Options as words of a command line."""
    return [str(word) for key, value in options.items() for word in (f"--{key}", value)]


def options_of(
    args: argparse.Namespace, videos: Path, run_dir: Path, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of `train`.

    Videos are read in the training process, so that no start of workers is counted as part of an
    epoch.
    """
    return {
        "run_dir": run_dir,
        "data.root": videos,
        "data.train_list": videos / "train.txt",
        "data.label_names": videos / "labels.txt",
        "data.sampling": "uniform8",
        "data.num_frames": args.num_frames,
        "data.crop_size": args.crop_size,
        "data.num_workers": 0,
        "model.backbone": args.backbone,
        "model.weights": "random",
        "train.batch_size": args.batch_size,
        "train.warmup_epochs": 0,
        "train.precision": args.precision,
        **options,
    }


def tool(name: str, words: Sequence[object]) -> None:
    """Run a tool without its output.

    Raises:
        RuntimeError: it failed; with what it printed.
    """
    begin_tools()
    command = tool_command(name, words)
    with tempfile.NamedTemporaryFile() as output:
        status = run_forked(command, Path(output.name), os.environ)
        if status != 0:
            said = Path(output.name).read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"{shlex.join(command)} ended with status {status}:\n{said}")
