"""vidadapt prepare ssv2, hmdb51, ..., folder, csv: from videos to a folder of lists."""

from __future__ import annotations

import argparse
import copy
from functools import partial
from pathlib import Path
from typing import Any

from vidadapt.apps.prepare import folder, table, videos
from vidadapt.apps.prepare.annotations import Annotations
from vidadapt.apps.prepare.build import Options, build
from vidadapt.apps.prepare.commands import options
from vidadapt.apps.prepare.commands.writing import (
    add_parser,
    add_seed,
    add_shared,
    benchmark_command,
    build_options,
    end,
    find_files,
    findings,
    summary,
    train_command,
)
from vidadapt.apps.prepare.folds import build_folds
from vidadapt.apps.prepare.report import Report
from vidadapt.apps.prepare.sources import SOURCES
from vidadapt.apps.prepare.write import check_folder
from vidadapt.console import printable_lines
from vidadapt.lists import FOLDS_FILE, Prepared

EACH_GROUP = "leave-one-group-out"
OWN = {"folder": "custom", "imagefolder": "custom_images"}  # data set of own files in class folders
FRACTIONS = {"test": 0.2, "dev": 0.2}  # where own videos have no splits


def add(commands: options.Commands[options.Parser]) -> None:
    """Add the sub-commands."""
    for name, source in SOURCES.items():
        title = f"lists of {source.title}" + (", one split or all" if source.splits else "")
        parser = add_parser(commands, name, title, source.layout, source.example, _run)
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
        add_seed(parser)
        add_shared(parser)

    example, title = "my_videos data/mine", "lists of own videos in one folder per class"
    parser = add_parser(commands, "folder", title, folder.__doc__, example, _run)
    parser.add_argument("videos", type=Path, metavar="VIDEOS", help="folder of class folders")
    _add_fractions(parser)
    add_shared(parser)

    example, title = "my_images data/mine", "lists of own images in one folder per class"
    parser = add_parser(commands, "imagefolder", title, folder.__doc__, example, _run)
    parser.add_argument("videos", type=Path, metavar="IMAGES", help="folder of class folders")
    _add_fractions(parser)
    add_shared(parser)

    example = "clips.csv --videos my_videos --label_column action data/mine"
    parser = add_parser(
        commands, "csv", "lists of own videos in a table", table.__doc__, example, _run
    )
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
    add_shared(parser)


def _add_fractions(parser: options.Parser) -> None:
    """Add the fractions of own videos, whose default depends on the splits that there are."""
    for name, of in (("test", "videos"), ("dev", "remaining training videos")):
        about = (
            f"of each class's {of}, taken out into {name}.txt (default: {FRACTIONS[name]}, or 0 "
        )
        options.add_option(
            parser, f"--{name}_fraction", float, None, f"{about}where splits are given)"
        )
    add_seed(parser)
    about = (
        f"for cross-validation: that many, or {EACH_GROUP}; OUT/fold1, OUT/fold2 and so on get "
        "lists, each with other groups as its test list, and OUT/folds.csv names them"
    )
    parser.add_argument("--folds", type=_folds, metavar=f"K|{EACH_GROUP}", help=about)


def _folds(text: str) -> int | str:
    """Read a number of folds."""
    return text if text == EACH_GROUP else options.whole_number(2, "a number of folds")(text)


def _run(args: argparse.Namespace) -> None:
    """Write the lists; end with status 1 where something is not as the source promises."""
    end(*_write(args), args.allow_partial)


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
    what = "images" if args.command == "imagefolder" else "videos"
    if source := SOURCES.get(args.command):
        what = "images" if source.images else "videos"
        if source.download is not None and args.download:
            source.download(args.annotations)
        if source.write_images is not None:
            source.write_images(args.annotations, args.videos)
    files, common = find_files(args.videos, what, args)
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
        how = build_options(args, fractions, splits)
        made_by = {"command": args.command, **given, **fractions}
        made_by |= {"seed": args.seed, "allow_partial": args.allow_partial}
        write = build if folds is None else partial(_write_folds, folds=folds)
        prepared = write(annotations, files, out, report, options=how, made_by=made_by)
        if folds is None:
            print(printable_lines(summary(out, prepared, report)))
        if advise:
            go_on = train_command(out, prepared)
            if folds is not None:
                go_on = benchmark_command("--folds", str(out))
            print(printable_lines(f"\nto go on:\n  {go_on}"))
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
        print(printable_lines(summary(folder_of_fold, prepared, own)))
        report.problems.update(own.problems)
    print(printable_lines("\n".join([*findings(out, report), f"every video: {out / FOLDS_FILE}"])))
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
