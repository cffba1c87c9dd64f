"""The whole system on generated videos: a frozen tiny backbone adapted to actions it never saw.

    python tools/demo.py             linear probe and AdaptFormer, trained and evaluated; a table
    python tools/demo.py --compare   every method of configs/demo, its rate from a grid, one seed
    python tools/demo.py --study     both of the first, three seeds, one and two times the epochs

Everything runs through tools/prepare.py, tools/train.py and tools/evaluate.py in processes of
their own. What is finished is kept: run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from vidadapt.apps.study.demo import COMPARED, compare, demo, study


def main() -> None:
    """Run the demonstration that the arguments name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", action="store_true", help="grid, seeds and twice the epochs")
    parser.add_argument(
        "--compare", nargs="*", choices=COMPARED, metavar="CONFIG",
        help=f"grid and one seed of these configs; default: all of {', '.join(COMPARED)}",
    )  # fmt: skip
    parser.add_argument("--data", type=Path, default=Path("demo_data/target"))
    parser.add_argument("--out", type=Path, default=None, help="default: runs/demo or runs/study")
    options = parser.parse_args()
    os.chdir(Path(__file__).parents[1])
    if options.compare is not None:
        methods = options.compare or COMPARED
        compare(methods, options.data, options.out or Path("runs/study"))
    elif options.study:
        study(options.data, options.out or Path("runs/study"))
    else:
        demo(options.data, options.out or Path("runs/demo"))


if __name__ == "__main__":
    main()
