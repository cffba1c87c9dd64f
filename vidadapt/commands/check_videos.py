"""Check: decode every file of a list once, tell what it is, and quarantine what cannot be read."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vidadapt import launching
from vidadapt.apps.prepare.check import Checked, advice, check, plan_checks, summary
from vidadapt.apps.prepare.commands import options
from vidadapt.apps.prepare.shards import join
from vidadapt.config import spelt
from vidadapt.console import printable_lines

EPILOG = """examples:
  vidadapt check_videos train.txt test.txt --root VIDEOS
  vidadapt check_videos PREPARED/train.txt --processes 16 --out reports
  vidadapt check_videos PREPARED/train.txt --shard 2/8   (on the second of eight machines; then,
                                                          once, with --join 8)

It writes beside each list, or in --out:
  LIST.index           the video index, in which all this is kept: a training run with the same
                       reader decodes nothing first (with --out, give it --data.index_dir)
  LIST.check.csv       a row a file: size, reader used, container, codec, pixel format, width and
                       height as shown, rotation, frame rate, duration, frames in the header and
                       frames that decode, truncated or not, why no reader may seek, first error
  LIST.check.png       histograms of length, duration, size, frame rate and classes
  LIST.quarantine.txt  the files that cannot be read, each with its cause, for --data.quarantine
                       of vidadapt train and vidadapt evaluate

Kill it whenever you like: run again, it goes on where it was. What is known of a file holds while
it keeps its size and modification time (touch it, or delete the index, to have it checked anew). A
file that hangs or kills the process that decodes it is a row with that error, and is tried again by
the next run.
The exit status is 1 if some file cannot be read (others: docs/failures.md).
"""


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="vidadapt check_videos",
        description="Decode every file of the lists once, in processes that may crash or hang.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    options.add_lists(parser)
    options.add_reader(parser)
    options.add_shards(parser)
    options.add_processes(parser, "decoding")
    options.add_time_limit(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: beside each list")
    return parser.parse_args(spelt(sys.argv[1:] if argv is None else argv))


def main(argv: list[str] | None = None) -> int:
    """Check as the arguments say; the exit status: 1 if some file cannot be read."""
    args = parse(argv)
    found: list[Checked] = []
    for path in args.lists:
        join(path, args.join, args.out)
    for plan in plan_checks(
        args.lists, args.root, args.out, args.allow_outside_root, args.multi_label, args.shard
    ):
        found.append(check(plan, args.reader, args.processes, args.time_limit, found))
        print(printable_lines(summary(found[-1])), flush=True)
    print(printable_lines(advice(found)), end="")
    return 1 if any(one.unreadable() for one in found) else 0


def run() -> None:
    """Run this process's command line."""
    launching.alone(main, goes_on="; run it again, and it goes on where it was")
