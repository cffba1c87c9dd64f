"""prepare.py folder, csv: from your own videos to a folder of lists."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from vidadapt.apps.prepare import folder, table
from vidadapt.apps.prepare.annotations import Annotations
from vidadapt.apps.prepare.commands.list_options import add_parser, add_shared, prepare

FRACTIONS = {"test": 0.2, "dev": 0.1}  # where the source has no splits


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-commands."""
    parser = add_parser(
        commands,
        "folder",
        "lists of own videos in one folder per class",
        folder.__doc__,
        "python tools/prepare.py folder my_videos data/mine",
    )
    parser.add_argument("videos", type=Path, metavar="VIDEOS", help="folder of class folders")
    _add_fractions(parser)
    add_shared(parser, _folder)

    parser = add_parser(
        commands,
        "csv",
        "lists of own videos in a table",
        table.__doc__,
        "python tools/prepare.py csv clips.csv --videos my_videos --label-column action data/mine",
    )
    parser.add_argument("table", type=Path, metavar="TABLE", help="csv file with a header")
    parser.add_argument("--videos", type=Path, required=True, help="folder of the videos")
    for key, usual in table.COLUMNS.items():
        parser.add_argument(
            f"--{key}-column",
            metavar="NAME",
            help=f"default: the first there is of {', '.join(usual.split())}",
        )
    parser.add_argument(
        "--label-names",
        type=Path,
        metavar="FILE",
        help="class names, one a line in label order (default: the table's, sorted)",
    )
    _add_fractions(parser)
    add_shared(parser, _table)


def _add_fractions(parser: argparse.ArgumentParser) -> None:
    for name, of in (("test", "videos"), ("dev", "remaining training videos")):
        parser.add_argument(
            f"--{name}-fraction",
            type=float,
            default=None,
            help=f"of each class's {of}, taken out into {name}.txt (default: {FRACTIONS[name]}, "
            "or 0 where splits are given)",
        )


def _folder(args: argparse.Namespace) -> None:
    prepare(args, {args.out: folder.read}, fractions=partial(_fractions, args))


def _table(args: argparse.Namespace) -> None:
    columns = {key: getattr(args, f"{key}_column") for key in table.COLUMNS}
    read = partial(table.read, args.table, columns=columns, label_names=args.label_names)
    prepare(args, {args.out: read}, fractions=partial(_fractions, args))


def _fractions(args: argparse.Namespace, annotations: Annotations) -> tuple[float, float]:
    """Return the fractions of dev and test, as given or by default."""
    given = set(annotations.splits) != {"train"}
    asked = {"dev": args.dev_fraction, "test": args.test_fraction}
    dev, test = (
        (0.0 if given else FRACTIONS[name]) if value is None else value
        for name, value in asked.items()
    )
    return dev, test
