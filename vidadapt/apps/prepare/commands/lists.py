"""vidadapt prepare ssv2, hmdb51, ..., folder, csv: from videos to a folder of lists."""

from __future__ import annotations

import argparse
import copy
import shlex
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

from vidadapt.apps.prepare import archives, folder, table, videos
from vidadapt.apps.prepare.annotations import Annotations
from vidadapt.apps.prepare.build import REPORT, Options, build
from vidadapt.apps.prepare.commands import options
from vidadapt.apps.prepare.folds import build_folds
from vidadapt.apps.prepare.report import Report
from vidadapt.apps.prepare.sources import SOURCES
from vidadapt.apps.prepare.unpacking import RATIO
from vidadapt.apps.prepare.write import check_folder
from vidadapt.config import DataConfig
from vidadapt.console import printable_lines
from vidadapt.data import DATASETS
from vidadapt.lists import (
    FOLDS_FILE,
    IMAGE_ENDINGS,
    LABELS_FILE,
    VIDEO_ENDINGS,
    Prepared,
    class_sizes,
    counts_of,
    read_label_names,
    read_list,
)

EACH_GROUP = "leave-one-group-out"
OWN = {"folder": "custom", "imagefolder": "custom_images"}  # data set of own files in class folders
FRACTIONS = {"test": 0.2, "dev": 0.2}  # where own videos have no splits

ENDINGS, OF_IMAGES = (
    textwrap.fill(", ".join(f".{ending}" for ending in sorted(endings)), 100)
    for endings in (VIDEO_ENDINGS, IMAGE_ENDINGS)
)
WRITTEN = f"""
OUT gets train.txt and its like ('path label'), labels.txt, prepared.json and report.txt, and the
frames of every video are counted. Exit status 1: not all is as the source promises, and the report
says what is not; the lists are written all the same. Videos are files whose names end in
{ENDINGS}.
Images (imagefolder) are files whose names end in
{OF_IMAGES}.
"""


def add(commands: options.Commands[options.Parser]) -> None:
    """Add the sub-commands."""
    for name, source in SOURCES.items():
        title = f"lists of {source.title}" + (", one split or all" if source.splits else "")
        parser = _add_parser(commands, name, title, source.layout, source.example)
        parser.add_argument("--annotations", type=Path, required=True, help="the official files")
        parser.add_argument("--videos", type=Path, required=True, help="folder of the videos")
        if source.download is not None:
            about = "fetch the official files first, if they are not there"
            options.add_switch(parser, "--download", about)
        if source.splits:
            splits = [*map(str, source.splits), "all"]
            about = "official split; all: OUT/split1, OUT/split2 and so on (default: 1)"
            parser.add_argument("--split", choices=splits, default="1", help=about)
        about = "of each class's training videos, taken out into dev.txt, by which models are then "
        about += "selected; clips cut from one film stay together"
        options.add_option(parser, "--dev_fraction", float, 0.0, about)
        parser.set_defaults(test_fraction=0.0)
        _add_shared(parser)

    example, title = "my_videos data/mine", "lists of own videos in one folder per class"
    parser = _add_parser(commands, "folder", title, folder.__doc__, example)
    parser.add_argument("videos", type=Path, metavar="VIDEOS", help="folder of class folders")
    _add_fractions(parser)
    _add_shared(parser)

    example, title = "my_images data/mine", "lists of own images in one folder per class"
    parser = _add_parser(commands, "imagefolder", title, folder.__doc__, example)
    parser.add_argument("videos", type=Path, metavar="IMAGES", help="folder of class folders")
    _add_fractions(parser)
    _add_shared(parser)

    example = "clips.csv --videos my_videos --label_column action data/mine"
    parser = _add_parser(commands, "csv", "lists of own videos in a table", table.__doc__, example)
    parser.add_argument("table", type=Path, metavar="TABLE", help="csv file with a header")
    parser.add_argument("--videos", type=Path, required=True, help="folder of the videos")
    for key, usual in table.COLUMNS.items():
        about = f"name of the {key} column (default: the first there is of {usual})"
        options.add_option(parser, f"--{key}_column", str, None, about)
    about = "file of class names, one a line in label order (default: the table's, sorted)"
    options.add_option(parser, "--label_names", Path, None, about)
    about = f"a cell of the label column holds any number of labels, with {table.SEPARATOR} between"
    options.add_switch(parser, "--multi_label", about)
    about = "multi-label: names of columns of 0 and 1, one for each class, in label order"
    parser.add_argument("--label_columns", nargs="+", default=(), metavar="NAME", help=about)
    _add_fractions(parser)
    _add_shared(parser)


def _add_parser(
    commands: options.Commands[options.Parser],
    name: str,
    title: str,
    layout: str | None,
    example: str,
) -> options.Parser:
    """Add a sub-command whose help shows the layout of a download."""
    parser = commands.add_parser(
        name,
        help=title,
        description=layout,
        epilog=f"{WRITTEN}\nexample: vidadapt prepare {name} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=name, split="", run=_run)
    return parser


def _add_fractions(parser: options.Parser) -> None:
    """Add the fractions of own videos, whose default depends on the splits that there are."""
    for name, of in (("test", "videos"), ("dev", "remaining training videos")):
        about = (
            f"of each class's {of}, taken out into {name}.txt (default: {FRACTIONS[name]}, or 0 "
        )
        options.add_option(
            parser, f"--{name}_fraction", float, None, f"{about}where splits are given)"
        )
    about = (
        f"for cross-validation: that many, or {EACH_GROUP}; OUT/fold1, OUT/fold2 and so on get "
        "lists, each with other groups as its test list, and OUT/folds.csv names them"
    )
    parser.add_argument("--folds", type=_folds, metavar=f"K|{EACH_GROUP}", help=about)


def _folds(text: str) -> int | str:
    """Read a number of folds."""
    return text if text == EACH_GROUP else options.whole_number(2, "a number of folds")(text)


def _add_shared(parser: options.Parser) -> None:
    """Add the argument OUT after the existing ones, and the options that all lists share."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    options.add_option(parser, "--seed", int, 0, "of lists taken out")
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


def _run(args: argparse.Namespace) -> None:
    """Write the lists; end with status 1 where something is not as the source promises."""
    problems, missing = _write(args)
    if problems:
        sys.exit(
            "prepare: the lists are written, but not all is as it should be: see the problems above"
        )
    if missing and not args.allow_partial:
        sys.exit(
            "prepare: not all is there that the source promises: see what is missing above, or add "
            "--allow_partial where that is meant so"
        )


def prepare_folder(folder_of_videos: Path, out: Path) -> None:
    """Write lists of own videos, a folder for each class, as `vidadapt prepare folder` does.

    What it found is printed; what cannot be used is left out, and is in OUT/report.txt.

    Raises:
        ValueError: fewer than two classes, no videos, or a folder `out` that holds something else.
    """
    parser = argparse.ArgumentParser()
    add(parser.add_subparsers())
    words = ["folder", str(folder_of_videos.absolute()), str(out.absolute())]
    _write(parser.parse_args(words), advise=False)


def _write(args: argparse.Namespace, advise: bool = True) -> tuple[bool, bool]:
    """Find the videos, write each folder of lists, and print a summary of each.

    Args:
        advise: print the command that trains on it, too.

    Returns:
        Whether there are problems, and whether files are missing.
    """
    folds = getattr(args, "folds", None)
    several = getattr(args, "multi_label", False) or getattr(args, "label_columns", ())
    if folds is not None and several:
        raise ValueError("--folds: is for lists with one label a video; leave it out")
    if folds is not None and args.test_fraction:
        raise ValueError("--test_fraction: the folds of --folds are the test lists; leave it out")
    splits = {args.out: args.split}
    if args.split == "all":
        splits = {args.out / f"split{n}": str(n) for n in SOURCES[args.command].splits}
    for out in splits if folds is None else ():
        check_folder(out, args.command)
    common = Report()
    what = "images" if args.command == "imagefolder" else "videos"
    if source := SOURCES.get(args.command):
        what = "images" if source.images else "videos"
        if source.download is not None and args.download:
            source.download(args.annotations)
        if source.write_images is not None:
            source.write_images(args.annotations, args.videos)
    files = videos.find(args.videos, common, what)
    packed = archives.find(files.root, files.others)
    if packed and args.unpack:
        common = Report()
        archives.unpack(packed, common, limit=args.unpack_limit)
        files = videos.find(args.videos, common, what)
    sources = ("annotations", "table", "label_names")
    given = {name: str(getattr(args, name)) for name in sources if getattr(args, name, None)}
    problems = missing = False
    for out, split in splits.items():
        report = copy.deepcopy(common)
        try:
            annotations = _read(args, split, files, report)
        except ValueError as error:
            if not common.problems:
                raise
            raise ValueError(f"{error}\n{common.text()}") from error  # they may be the cause
        fractions = {f"{name}_fraction": _fraction(args, name, annotations) for name in FRACTIONS}
        how = Options(
            dev_fraction=fractions["dev_fraction"],
            test_fraction=fractions["test_fraction"],
            seed=args.seed,
            reader=args.reader,
            index=not args.no_index,
            known=tuple(splits),
            processes=args.processes,
            time_limit=args.time_limit,
        )
        made_by = {"command": args.command, **given, **fractions}
        made_by |= {"seed": args.seed, "allow_partial": args.allow_partial}
        write = build if folds is None else partial(_write_folds, folds=folds)
        prepared = write(annotations, files, out, report, options=how, made_by=made_by)
        if folds is None:
            print(printable_lines(_summary(out, prepared, report)))
        if advise:
            print(printable_lines(f"\nto go on:\n  {_command(out, prepared, folds)}"))
        problems |= bool(report.problems)
        missing |= bool(report.missing)
    return problems, missing


def _write_folds(
    annotations: Annotations,
    files: videos.Files,
    out: Path,
    report: Report,
    *,
    folds: int | str,
    options: Options,
    made_by: dict[str, Any],
) -> Prepared:
    """Write the folders of a cross-validation, and print a summary of each."""
    found = build_folds(
        annotations,
        files,
        out,
        report,
        num_folds=None if folds == EACH_GROUP else int(folds),
        options=options,
        made_by=made_by,
    )
    for folder_of_fold, prepared, own in found:
        print(printable_lines(_summary(folder_of_fold, prepared, own)))
        report.problems.update(own.problems)
    print(printable_lines("\n".join([*_findings(out, report), f"every video: {out / FOLDS_FILE}"])))
    return prepared


def _read(args: argparse.Namespace, split: str, files: videos.Files, report: Report) -> Annotations:
    """Read the annotations of the videos, from the source that the sub-command names."""
    if args.command in OWN:
        return folder.read(files, report, OWN[args.command])
    if args.command == "csv":
        columns = {key: getattr(args, f"{key}_column") for key in table.COLUMNS}
        if args.label_columns and (args.label_column or args.label_names or args.multi_label):
            raise ValueError(
                "--label_columns: says all labels; leave --label_column, --label_names and "
                "--multi_label out"
            )
        return table.read(
            args.table,
            files,
            report,
            columns=columns,
            label_names=args.label_names,
            multi_label=args.multi_label,
            label_columns=args.label_columns,
        )
    if not args.annotations.exists():
        raise ValueError(f"{args.annotations}: no such folder; expected the official files")
    return SOURCES[args.command].read(args.annotations, int(split or 1), files, report)


def _fraction(args: argparse.Namespace, name: str, annotations: Annotations) -> float:
    """Return the fraction of dev or test: as given, or else one for videos without splits."""
    given: float | None = getattr(args, f"{name}_fraction")
    if given is not None or (name == "test" and getattr(args, "folds", None)):
        return given or 0.0
    return FRACTIONS[name] if set(annotations.splits) == {"train"} else 0.0


def _summary(out: Path, prepared: Prepared, report: Report) -> str:
    """Return what was written, and what was found."""
    names = read_label_names(out / LABELS_FILE)
    lines = [f"{out}: {prepared.dataset}, {len(names)} classes, videos in {prepared.root}"]
    for name, file in prepared.lists.items():
        several = prepared.multi_label
        samples = read_list(out / file, prepared.root, len(names), multi_label=several)
        sizes = class_sizes(dict(zip(names, counts_of(samples.labels, len(names)), strict=True)))
        lines.append(f"  {file} ({name}): {len(samples):,} videos, {sizes}")
    return "\n".join([*lines, *_findings(out, report)])


def _findings(out: Path, report: Report) -> list[str]:
    return [report.text(), f"all of it: {out / REPORT}"] if report.text() else []


def _command(out: Path, prepared: Prepared, folds: int | str | None) -> str:
    """Return the command that trains on the lists, or on each of the folds."""
    if folds is not None:
        words = ["bench_frames", "--config", "CONFIG.yaml", "--methods", "linear", "adaptformer"]
        return shlex.join(["vidadapt", *words, "--folds", str(out), "--out", "RUNS"])
    if prepared.multi_label:
        config: str | None = "multi_label"
    else:
        config = DATASETS[prepared.dataset].config
    words = ["vidadapt", "train", "--config", config or "custom"]
    if not config and prepared.dataset != DataConfig.dataset:
        words += ["--data.dataset", prepared.dataset]
    words += ["--data.lists", str(out), "--model.weights", "WEIGHTS", "--run_dir", "RUN"]
    return shlex.join(words)
