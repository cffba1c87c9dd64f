"""Prepare data: each sub-command writes files that tools/train.py and tools/evaluate.py read."""

from __future__ import annotations

import argparse

from vidadapt import launching
from vidadapt.apps.prepare.commands import fast, index, lists, synthetic


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="The exit status is 1 where something is not as the source promises (others: "
        "docs/failures.md).",
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    for module in (lists, synthetic, index, fast):
        module.add(commands)
    args = parser.parse_args(argv)
    args.run(args)


if __name__ == "__main__":
    launching.alone(main)
