"""Predict: what one or several adapters see in video files."""

from __future__ import annotations

import argparse
import sys
import time

from vidadapt import launching
from vidadapt.apps.prepare.commands.options import add_time_limit
from vidadapt.apps.report import write_prediction_sheets, write_timeline_page
from vidadapt.config import parse_beside_keys
from vidadapt.serving import film_command, live_command, predict_command


def main(argv: list[str] | None = None) -> int:
    """Predict as the arguments say; the exit status: 1 if some could not be read."""
    options, began = parse(argv), time.monotonic()
    if options.live:
        return live_command.look(options)
    if options.window is not None:
        return _films(options)
    found = predict_command.predictions(options)
    if options.sheet is not None:
        print(f"pictures: {', '.join(map(str, write_prediction_sheets(found, options.sheet)))}")
    return predict_command.conclude(found, time.monotonic() - began, options.json)


def _films(options: argparse.Namespace) -> int:
    status = 0
    for seen in film_command.timelines(options):
        status |= bool(seen.problem)
        if options.timeline is not None and seen.windows:
            page = film_command.timeline_file(options.timeline, seen.video, "html")
            write_timeline_page(seen, page)
            print(f"page: {page}", file=sys.stderr)
    return status


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read and check the options."""
    parser = argparse.ArgumentParser(
        prog="vidadapt predict",
        description="Say what adapters see in videos: the most probable labels of each.",
        epilog=predict_command.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    predict_command.add_options(parser)
    add_time_limit(parser)
    options = parse_beside_keys(parser, argv)
    predict_command.check_options(parser, options)
    return options


def run() -> None:
    """Run this process's command line."""
    launching.alone(main)
