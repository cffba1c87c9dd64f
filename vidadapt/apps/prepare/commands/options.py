"""Options and option types that several sub-commands share."""

from __future__ import annotations

import argparse
import math


def processes(text: str) -> int:
    """A number of processes, from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of processes from 1, got {text!r}")
    return int(text)


def add_time_limit(parser: argparse.ArgumentParser) -> None:
    """Add the option that limits the time to count the frames of a file."""
    parser.add_argument(
        "--time-limit",
        type=seconds,
        default=300.0,
        metavar="S",
        help="seconds after which the decoding of one file counts as hung, `inf`: never (default: "
        "300)",
    )


def seconds(text: str) -> float | None:
    """A time above 0; None for `inf`."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, or inf, got {text!r}")
    return None if math.isinf(value) else value


def add_outside_root(parser: argparse.ArgumentParser) -> None:
    """Add the option that `bounds.ALLOW_OUTSIDE` names."""
    parser.add_argument(
        "--allow-outside-root",
        action="store_true",
        help="the lists are trusted: their paths may lead out of the root",
    )
