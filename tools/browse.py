"""Browse: a few videos of each class as training sees them, as a page and a picture."""

from __future__ import annotations

import sys

from vidadapt import launching, methods
from vidadapt.apps.report import browse_list
from vidadapt.config import parse_browse


def main(argv: list[str] | None = None) -> int:
    """Look at a list as the arguments say; the exit status: 1 if some video cannot be read."""
    words = sys.argv[1:] if argv is None else argv
    return browse_list(*parse_browse(words, methods.METHODS))


if __name__ == "__main__":
    launching.alone(main)
