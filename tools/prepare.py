"""Prepare data: each sub-command writes files that tools/train.py and tools/evaluate.py read."""

from __future__ import annotations

import argparse
import sys

from vidadapt.naming import printable_lines
from vidadapt.prepare.commands import fast, index, lists, own_lists, synthetic


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for module in (lists, own_lists, synthetic, index, fast):
        module.add(commands)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(printable_lines(f"prepare: {error}"))


if __name__ == "__main__":
    main()
