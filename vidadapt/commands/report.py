"""Report: training runs and their evaluations as one HTML file."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from vidadapt import launching
from vidadapt.apps.report.run_report import write_report
from vidadapt.config import spelt

DESCRIPTION = """Show training runs and their evaluations as one HTML file.

    vidadapt report runs/mine
    vidadapt report runs/linear runs/adaptformer runs/lora --out compared.html
    vidadapt report runs/mine --no_pictures --out to_share.html

Curves, what was trained on what, cost, results with their protocol, confusion matrix, accuracy by
class, calibration, the most confidently wrong videos, and files that were skipped, truncated,
changed or unreadable. The page opens without a network. A training run and an evaluation write
it at their end, as report.html in the run's folder.
"""


@dataclass(frozen=True)
class ReportOptions:
    """Options of a report.

    Attributes:
        runs: folders of training runs, or of evaluations.
        out: the HTML file; None: report.html in the folder of the only run.
        pictures: show thumbnails of videos.
    """

    runs: tuple[Path, ...]
    out: Path | None
    pictures: bool


def parse(argv: list[str]) -> ReportOptions:
    """Parse the command line.

    Raises:
        SystemExit: after --help, or for unknown options.
    """
    parser = argparse.ArgumentParser(
        prog="vidadapt report",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder of a training run or evaluation"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE.html",
        help="default: report.html in the folder, if there is one RUN",
    )  # fmt: skip
    parser.add_argument(
        "--no_pictures", action="store_true",
        help="leave out thumbnails of videos, e.g. where the data may not be passed on",
    )  # fmt: skip
    found = parser.parse_args(spelt(argv))
    return ReportOptions(tuple(found.runs), found.out, not found.no_pictures)


def main(argv: list[str] | None = None) -> int:
    """Write the page; the exit status is 0.

    Raises:
        ValueError, OSError: a run, a file of it or the page's place cannot be used.
    """
    options = parse(sys.argv[1:] if argv is None else argv)
    path = write_report(options.runs, options.out, pictures=options.pictures)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


def run() -> None:
    """Run this process's command line."""
    launching.alone(main)
