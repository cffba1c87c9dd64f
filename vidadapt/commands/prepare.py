"""Prepare data: each sub-command writes files that vidadapt train and vidadapt evaluate read."""

from __future__ import annotations

import argparse
import sys

from vidadapt import launching
from vidadapt.apps.prepare.commands import fast, image_tasks, index, lists, synthetic
from vidadapt.config import spelt


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the options of the command line; `run` of the result does the work."""
    parser = argparse.ArgumentParser(
        prog="vidadapt prepare",
        description=__doc__,
        epilog="The exit status is 1 where something is not as the source promises (others: "
        "docs/failures.md).",
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    for module in (lists, image_tasks, synthetic, index, fast):
        module.add(commands)
    return parser.parse_args(spelt(sys.argv[1:] if argv is None else argv))


def main(argv: list[str] | None = None) -> None:
    """Prepare as the arguments say."""
    args = parse(argv)
    args.run(args)


def run() -> None:
    """Run this process's command line."""
    launching.alone(main)
