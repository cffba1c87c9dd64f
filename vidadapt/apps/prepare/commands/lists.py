"""prepare.py ssv2, hmdb51, ucf101, kinetics: from an official download to a folder of lists."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from vidadapt.apps.prepare import hmdb51, kinetics, ssv2, ucf101
from vidadapt.apps.prepare.annotations import Annotations
from vidadapt.apps.prepare.commands.list_options import Read, add_parser, add_shared, prepare
from vidadapt.apps.prepare.report import Report
from vidadapt.apps.prepare.videos import Files
from vidadapt.lists.names import without_ending

PROGRAM = "python tools/prepare.py"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-commands."""
    parser = add_parser(
        commands,
        "ssv2",
        "lists of Something-Something V2",
        ssv2.__doc__,
        f"{PROGRAM} ssv2 --annotations labels --videos 20bn-something-something-v2 data/ssv2",
    )
    _finish(parser)
    parser = add_parser(
        commands,
        "hmdb51",
        "lists of HMDB51, one split or all three",
        hmdb51.__doc__,
        f"{PROGRAM} hmdb51 --annotations testTrainMulti_7030_splits --videos hmdb51_org \\\n"
        "  --split all --dev-fraction 0.1 data/hmdb51",
    )
    _finish(parser, has_splits=True)
    parser = add_parser(
        commands,
        "ucf101",
        "lists of UCF101, one split or all three",
        ucf101.__doc__,
        f"{PROGRAM} ucf101 --annotations ucfTrainTestlist --videos UCF-101 data/ucf101",
    )
    _finish(parser, has_splits=True)
    parser = add_parser(
        commands,
        "kinetics",
        "lists of Kinetics-400, -600 or -700",
        kinetics.__doc__,
        f"{PROGRAM} kinetics --annotations annotations --videos k400 --allow-partial data/k400",
    )
    _finish(parser)


def _finish(parser: argparse.ArgumentParser, has_splits: bool = False) -> None:
    parser.add_argument("--annotations", type=Path, required=True, help="the official files")
    parser.add_argument("--videos", type=Path, required=True, help="folder of the videos")
    if has_splits:
        parser.add_argument(
            "--split",
            choices=("1", "2", "3", "all"),
            default="1",
            help="official split; all: OUT/split1, OUT/split2 and OUT/split3 (default: 1)",
        )
    parser.add_argument(
        "--dev-fraction",
        type=float,
        default=0.0,
        help="of each class's training videos, taken out into dev.txt, by which models are then "
        "selected; clips cut from one film stay together (default: 0)",
    )
    add_shared(parser, _run)


def _run(args: argparse.Namespace) -> None:
    if not args.annotations.exists():
        raise ValueError(f"{args.annotations}: no such folder; expected the official files")
    reads: dict[Path, Read]
    if args.command == "ssv2":
        reads = {args.out: partial(_ssv2, args.annotations)}
    elif args.command == "kinetics":
        reads = {args.out: partial(_kinetics, args.annotations)}
    else:
        split_of = {args.out: int(args.split)} if args.split != "all" else {}
        split_of = split_of or {args.out / f"split{split}": split for split in (1, 2, 3)}
        module = {"hmdb51": hmdb51, "ucf101": ucf101}[args.command]
        reads = {
            out: partial(_numbered, module.read, args.annotations, split)
            for out, split in split_of.items()
        }
    prepare(args, reads, fractions=lambda annotations: (args.dev_fraction, 0.0))


def _ssv2(folder: Path, files: Files, report: Report) -> Annotations:
    return ssv2.read(folder, report)


def _numbered(
    read: Callable[[Path, int, Report], Annotations],
    folder: Path,
    split: int,
    files: Files,
    report: Report,
) -> Annotations:
    return read(folder, split, report)


def _kinetics(path: Path, files: Files, report: Report) -> Annotations:
    stems = (without_ending(video).rpartition("/")[2] for video in files.videos)
    return kinetics.read(path, report, by_id=kinetics.named_by_id(stems))
