"""prepare.py index: count frames ahead of training."""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from vidadapt.apps.prepare.check_table import COLUMNS, cells
from vidadapt.apps.prepare.commands.options import add_outside_root, add_time_limit, processes
from vidadapt.console.naming import printable, printable_lines
from vidadapt.data.workers import cores
from vidadapt.lists.counting import counted_videos
from vidadapt.lists.index import index_path, read_index
from vidadapt.lists.prepared import known_root
from vidadapt.lists.reading import SHOWN, read_list
from vidadapt.lists.videos import Videos
from vidadapt.video import READERS

SHOWN_COLUMNS = tuple(name for name in COLUMNS if name != "holds")
WIDEST = 60  # characters of a cell of a printed table


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "index",
        help="count the frames of listed videos, before a training does",
        description="Decode every video of the lists once and keep its exact number of frames in "
        "an index beside the list. Run again, it counts only what is new or changed.",
        epilog="example: python tools/prepare.py index train.txt test.txt --root /data/ssv2",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("lists", type=Path, nargs="+", metavar="LIST", help="'path label' list")
    parser.add_argument(
        "--root",
        type=Path,
        default=argparse.SUPPRESS,
        help="folder that the paths are relative to (data.root; default: what prepared.json beside "
        "the list says)",
    )
    add_outside_root(parser)
    parser.add_argument(
        "--reader",
        choices=list(READERS),
        default="auto",
        help="as data.reader of the training: each reader has rows of its own",
    )
    parser.add_argument("--processes", type=processes, default=cores(), help="decoding processes")
    parser.add_argument(
        "--index-dir",
        type=Path,
        default=None,
        help="as data.index_dir of the training: folder of the index where the list's cannot be "
        "written",
    )
    add_time_limit(parser)
    parser.add_argument("--show", action="store_true", help="print the index as a table instead")
    parser.add_argument("--csv", action="store_true", help="the same, as CSV")
    parser.set_defaults(run=_index)


def _index(args: argparse.Namespace) -> None:
    for list_path in args.lists:
        if args.show or args.csv:
            _show(list_path, args)
            continue
        root = known_root(list_path, getattr(args, "root", None))
        # Labels matter only to training, and a missing file is a line of the summary.
        samples = read_list(list_path, root, sys.maxsize, args.allow_outside_root)
        videos = counted_videos(
            list_path,
            root,
            samples,
            args.reader,
            index_dir=args.index_dir,
            num_workers=args.processes,
            time_limit=args.time_limit,
            limit_key="--time-limit",
        )
        print(printable_lines(_summary(list_path, videos)))
        print(f"  index: {index_path(list_path, args.index_dir)}")


def _show(list_path: Path, args: argparse.Namespace) -> None:
    """Print the index of a list, a row a video, in the order of their paths."""
    path = index_path(list_path, args.index_dir)
    index = read_index(path)
    if index is None:
        raise ValueError(f"{path}: there is no such index; leave out --show, and it is made")
    known = [index[row] for row in index.newest().tolist()]
    rows = [
        [facts.path, *cells(facts, SHOWN_COLUMNS)]
        for facts in sorted(known, key=lambda one: (one.path, one.requested))
    ]
    table = [["path", *SHOWN_COLUMNS], *rows]
    if args.csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows(
            [printable(cell) for cell in row] for row in table
        )
        return
    short = [[printable(cell)[:WIDEST] for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*short, strict=True)]
    for row in short:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def _summary(list_path: Path, videos: Videos) -> str:
    frames, promised = videos.column("num_frames"), videos.column("header_frames")
    errors = [videos.facts(place).error for place in np.flatnonzero(frames == 0).tolist()]
    short = np.flatnonzero((frames > 0) & (promised > frames)).tolist()
    cut = [line for line in (videos.facts(place).truncated for place in short) if line]
    readable = videos.at(np.flatnonzero(frames > 0))
    served = Counter(readable.readers())
    readers = ", ".join(f"{name} ({number})" for name, number in sorted(served.items()))
    lines = [
        f"{list_path}: {len(videos)} videos, {len(readable)} readable, {len(errors)} unreadable, "
        f"{len(cut)} truncated; {frames.sum()} frames",
        f"  readers: {readers or 'none'}",
    ]
    for title, entries in (("unreadable", errors), ("truncated", cut)):
        lines += [f"  {title}: {entry}" for entry in entries[:SHOWN]]
        if len(entries) > SHOWN:
            lines.append(f"  {title}: ... and {len(entries) - SHOWN} more")
    return "\n".join(lines)
