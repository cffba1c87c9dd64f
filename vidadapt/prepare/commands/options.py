"""Option types that several sub-commands share."""

from __future__ import annotations

import argparse


def processes(text: str) -> int:
    """A number of processes, from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of processes from 1, got {text!r}")
    return int(text)


def add_outside_root(parser: argparse.ArgumentParser) -> None:
    """The option that `bounds.ALLOW_OUTSIDE` speaks of."""
    parser.add_argument(
        "--allow-outside-root",
        action="store_true",
        help="the lists are trusted: their paths may lead out of the root",
    )
