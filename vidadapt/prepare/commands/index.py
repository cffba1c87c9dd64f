"""prepare.py index: count frames ahead."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vidadapt.data.frame_index import FrameCount, frame_counts, index_path, truncated
from vidadapt.data.lists import SHOWN, read_list
from vidadapt.data.prepared import known_root
from vidadapt.data.readers import READERS
from vidadapt.data.workers import cores
from vidadapt.naming import printable_lines
from vidadapt.prepare.commands.options import add_outside_root, processes


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
    parser.set_defaults(run=_index)


def _index(args: argparse.Namespace) -> None:
    for list_path in args.lists:
        root = known_root(list_path, getattr(args, "root", None))
        # Labels are the training's business, and a missing file is a line of the summary.
        samples = read_list(
            list_path,
            root,
            num_classes=sys.maxsize,
            check_files=False,
            allow_outside_root=args.allow_outside_root,
        )
        counts = frame_counts(
            list_path,
            root,
            [sample.path for sample in samples],
            reader=args.reader,
            index_dir=args.index_dir,
            num_workers=args.processes,
        )
        print(printable_lines(_summary(list_path, list(counts.values()))))
        print(f"  index: {index_path(list_path, args.index_dir)}")


def _summary(list_path: Path, counts: list[FrameCount]) -> str:
    readable = [count for count in counts if not count.error]
    errors = [count.error for count in counts if count.error]
    cut = [line for line in map(truncated, readable) if line]
    served = [count.reader for count in readable]
    readers = ", ".join(f"{name} ({served.count(name)})" for name in sorted(set(served)))
    lines = [
        f"{list_path}: {len(counts)} videos, {len(readable)} readable, {len(errors)} unreadable, "
        f"{len(cut)} truncated; {sum(count.num_frames for count in readable)} frames",
        f"  readers: {readers or 'none'}",
    ]
    for title, entries in (("unreadable", errors), ("truncated", cut)):
        lines += [f"  {title}: {entry}" for entry in entries[:SHOWN]]
        if len(entries) > SHOWN:
            lines.append(f"  {title}: ... and {len(entries) - SHOWN} more")
    return "\n".join(lines)
