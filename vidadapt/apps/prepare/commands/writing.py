"""What all commands that write lists share: their options, and the work from annotations on."""

from __future__ import annotations

import argparse
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from vidadapt.apps.prepare import archives, videos
from vidadapt.apps.prepare.build import REPORT, Options
from vidadapt.apps.prepare.commands import options
from vidadapt.apps.prepare.report import Report
from vidadapt.apps.prepare.unpacking import RATIO
from vidadapt.config import DataConfig
from vidadapt.data import DATASETS
from vidadapt.lists import (
    IMAGE_ENDINGS,
    LABELS_FILE,
    VIDEO_ENDINGS,
    Prepared,
    class_sizes,
    counts_of,
    read_label_names,
    read_list,
)

ENDINGS, OF_IMAGES = (
    textwrap.fill(", ".join(f".{ending}" for ending in sorted(endings)), 100)
    for endings in (VIDEO_ENDINGS, IMAGE_ENDINGS)
)
WRITTEN = f"""
OUT gets train.txt and its like ('path label'), labels.txt, prepared.json and report.txt, and the
frames of every video are counted. Exit status 1: not all is as the source promises, and the report
says what is not; the lists are written all the same. Videos are files whose names end in
{ENDINGS}.
Images are files whose names end in
{OF_IMAGES}.
"""


def add_parser(
    commands: options.Commands[options.Parser],
    name: str,
    title: str,
    layout: str | None,
    example: str,
    run: Callable[[argparse.Namespace], None],
) -> options.Parser:
    """Add a sub-command whose help shows the layout of a download.

    Args:
        run: does the work.
    """
    parser = commands.add_parser(
        name,
        help=title,
        description=layout,
        epilog=f"{WRITTEN}\nexample: vidadapt prepare {name} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=name, split="", run=run)
    return parser


def add_seed(parser: options.Parser) -> None:
    """Add the seed of lists that are taken out, beside the options that take some out."""
    options.add_option(parser, "--seed", int, 0, "of lists taken out")


def add_shared(parser: options.Parser) -> None:
    """Add the argument OUT after the existing ones, and the options that all lists share."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    about = "exit with 0 where videos are merely missing; they are reported all the same"
    options.add_switch(parser, "--allow_partial", about)
    options.add_switch(parser, "--unpack", "unpack archives among the videos")
    about = "that may come out of the archives of one folder, in units of 10^9 bytes (default: "
    about += f"{RATIO} times their size)"
    options.add_option(parser, "--unpack_limit", options.size(1e9), None, about)
    about = "leave it to the first training run to count frames, and to find unreadable videos"
    options.add_switch(parser, "--no_index", about)
    options.add_reader(parser)
    options.add_processes(parser, "comparing and counting")
    options.add_time_limit(parser)


def find_files(folder: Path, what: str, args: argparse.Namespace) -> tuple[videos.Files, Report]:
    """Find the files below a folder, after unpacking where that is asked for, and what to report.

    Args:
        what: key of `videos.WANTED`.
        args: of a command with the options of `add_shared`.
    """
    report = Report()
    files = videos.find(folder, report, what)
    packed = archives.find(files.root, files.others)
    if packed and args.unpack:
        report = Report()
        archives.unpack(packed, report, limit=args.unpack_limit)
        files = videos.find(folder, report, what)
    return files, report


def build_options(
    args: argparse.Namespace, fractions: Mapping[str, float], known: Iterable[Path]
) -> Options:
    """Return the options of a preparation as the command line says.

    Args:
        fractions: `dev_fraction` and `test_fraction`.
        known: folders of lists of the same files, whose counts are valid here, too.
    """
    return Options(
        dev_fraction=fractions["dev_fraction"],
        test_fraction=fractions["test_fraction"],
        seed=args.seed,
        reader=args.reader,
        index=not args.no_index,
        known=tuple(known),
        processes=args.processes,
        time_limit=args.time_limit,
    )


def end(problems: bool, missing: bool, allow_partial: bool) -> None:
    """End with status 1 where something is not as the source promises; else return."""
    if problems:
        sys.exit(
            "prepare: the lists are written, but not all is as it should be: see the problems above"
        )
    if missing and not allow_partial:
        sys.exit(
            "prepare: not all is there that the source promises: see what is missing above, or add "
            "--allow_partial where that is meant so"
        )


def summary(out: Path, prepared: Prepared, report: Report) -> str:
    """Return what was written, and what was found."""
    names = read_label_names(out / LABELS_FILE)
    lines = [f"{out}: {prepared.dataset}, {len(names)} classes, videos in {prepared.root}"]
    for name, file in prepared.lists.items():
        several = prepared.multi_label
        samples = read_list(out / file, prepared.root, len(names), multi_label=several)
        sizes = class_sizes(dict(zip(names, counts_of(samples.labels, len(names)), strict=True)))
        lines.append(f"  {file} ({name}): {len(samples):,} videos, {sizes}")
    return "\n".join([*lines, *findings(out, report)])


def findings(out: Path, report: Report) -> list[str]:
    return [report.text(), f"all of it: {out / REPORT}"] if report.text() else []


def benchmark_command(*where: str) -> str:
    """Return the command that compares methods on several folders of lists.

    Args:
        where: the words that name them.
    """
    words = ["bench_frames", "--config", "CONFIG.yaml", "--methods", "linear", "adaptformer"]
    return shlex.join(["vidadapt", *words, *where, "--out", "RUNS"])


def train_command(out: Path, prepared: Prepared) -> str:
    """Return the command that trains on the lists."""
    config = DATASETS[prepared.dataset].config
    if config is None and prepared.multi_label:
        config = "multi_label"
    words = ["vidadapt", "train", "--config", config or "custom"]
    if not config and prepared.dataset != DataConfig.dataset:
        words += ["--data.dataset", prepared.dataset]
    words += ["--data.lists", str(out), "--model.weights", "WEIGHTS", "--run_dir", "RUN"]
    return shlex.join(words)
