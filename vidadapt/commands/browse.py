"""Browse: a few videos of each class as training sees them, as a page and a picture."""

from __future__ import annotations

import sys

from vidadapt import launching, methods
from vidadapt.apps.report import browse_list
from vidadapt.config import BrowseOptions, Config, parse_browse


def parse(argv: list[str]) -> tuple[Config, BrowseOptions]:
    """Read the configuration of training and the other options."""
    return parse_browse(argv, methods.METHODS)


def main(argv: list[str] | None = None) -> int:
    """Look at a list as the arguments say; the exit status: 1 if some video cannot be read."""
    words = sys.argv[1:] if argv is None else argv
    return browse_list(*parse(words))


def run() -> None:
    """Run this process's command line."""
    launching.alone(main)
