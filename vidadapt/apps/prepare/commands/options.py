"""Options and option types that several commands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vidadapt.data import cores
from vidadapt.files import is_url
from vidadapt.video import READERS

Parser = argparse.ArgumentParser
Commands = argparse._SubParsersAction  # of `Parser`


def add_option(parser: Parser, name: str, kind: Any, default: Any, about: str) -> None:
    """Add an option whose help ends with its default; None has no value to tell."""
    ending = "" if default is None else " (default: %(default)s)"
    parser.add_argument(name, type=kind, default=default, help=about + ending)


def add_switch(parser: Parser, name: str, about: str) -> None:
    """Add an option without a value."""
    parser.add_argument(name, action="store_true", help=about)


def add_lists(parser: Parser) -> None:
    """Add the lists to work on, and where their videos are."""
    parser.add_argument("lists", type=local, nargs="+", metavar="LIST", help="'path label' list")
    about = "folder, or its URL in a store, that the paths are relative to (default: what "
    about += "prepared.json beside a list says)"
    add_option(parser, "--root", folder_or_url, None, about)
    about = "the lists are trusted: their paths may lead out of the root"
    add_switch(parser, "--allow_outside_root", about)
    about = "lines are 'path 3,17,42' (default: what prepared.json beside a list says)"
    add_switch(parser, "--multi_label", about)


def local(text: str) -> Path:
    """Return the path of a file or folder that cannot be a URL."""
    if is_url(text):
        about = "a URL, but this command writes beside its lists; copy them here, with the store's"
        raise argparse.ArgumentTypeError(f"{about} own tool, e.g. aws s3 cp")
    return Path(text)


def folder_or_url(text: str) -> Path | str:
    """Return the path of a folder, or a URL as it is."""
    return text if is_url(text) else Path(text)


def add_shards(
    parser: Parser,
    part: str = "take the I-th of N parts of each list, I from 1: its index is LIST.I-of-N.index",
    join: str = "first put the indices of N parts, which are all done, into that of the list",
) -> None:
    """Add the options that share the work among machines, which need not see each other."""
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--shard", type=shard, metavar="I/N", help=part)
    one.add_argument("--join", type=whole_number(1, "a number of parts"), metavar="N", help=join)


def shard(text: str) -> tuple[int, int]:
    """Read I/N.

    >>> shard("2/8")
    (2, 8)
    """
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
        raise argparse.ArgumentTypeError(f"{text!r}; expected I/N, e.g. 2/8, with I from 1 to N")
    return int(first), int(second)


def add_reader(parser: Parser) -> None:
    """Add the option that chooses a reader."""
    about = "as data.reader of the training run: each reader has its own rows in the index "
    about += "(default: %(default)s)"
    parser.add_argument("--reader", choices=list(READERS), default="auto", help=about)


def add_processes(parser: Parser, work: str) -> None:
    """Add the option that sets the number of processes that do some work."""
    kind = whole_number(1, "a number of processes")
    add_option(parser, "--processes", kind, cores(), f"for {work}; one per processor")


def add_time_limit(parser: Parser) -> None:
    """Add the option that limits the time to count the frames of a file."""
    about = "seconds after which the decoding of one file counts as hung, `inf`: never"
    add_option(parser, "--time_limit", seconds, 300.0, about)


def seconds(text: str) -> float | None:
    """Read a time above 0; None for `inf`."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, or inf, got {text!r}")
    return None if math.isinf(value) else value


def whole_number(least: int, what: str = "a number") -> Callable[[str], int]:
    """Return the type of a whole number from `least`."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected {what} from {least}, got {text!r}")
        return int(text)

    return number


def size(unit: float) -> Callable[[str], int]:
    """Return the type of a size above 0 that is given in units of so many bytes."""

    def number_of_bytes(text: str) -> int:
        if not (value := float(text)) > 0:
            raise argparse.ArgumentTypeError(f"expected a size above 0, got {text!r}")
        return round(value * unit)

    return number_of_bytes
