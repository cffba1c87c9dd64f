"""The whole system on generated videos: a frozen tiny backbone adapted to actions it never saw.

    vidadapt demo             linear probe and AdaptFormer, trained and evaluated; a table
    vidadapt demo --compare   every method of configs/demo, its rate from a grid, one seed
    vidadapt demo --study     both of the first, three seeds, one and two times the epochs

Everything runs through vidadapt prepare, vidadapt train and vidadapt evaluate in processes of
their own. What is finished is kept: run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vidadapt import launching
from vidadapt.apps.study.demo import COMPARED, compare, demo, study
from vidadapt.config import spelt


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="vidadapt demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--study", action="store_true", help="grid, seeds and twice the epochs")
    parser.add_argument(
        "--compare", nargs="*", choices=COMPARED, metavar="CONFIG",
        help=f"grid and one seed of these configs; default: all of {', '.join(COMPARED)}",
    )  # fmt: skip
    parser.add_argument("--data", type=Path, default=Path("demo_data/target"))
    parser.add_argument("--out", type=Path, default=None, help="default: runs/demo or runs/study")
    return parser.parse_args(spelt(sys.argv[1:] if argv is None else argv))


def main(argv: list[str] | None = None) -> None:
    """Run the demonstration that the arguments name."""
    options = parse(argv)
    if options.compare is not None:
        methods = options.compare or COMPARED
        compare(methods, options.data, options.out or Path("runs/study"))
    elif options.study:
        study(options.data, options.out or Path("runs/study"))
    else:
        demo(options.data, options.out or Path("runs/demo"))


def run() -> None:
    """Run this process's command line."""
    launching.alone(main, goes_on="; the same command goes on")
