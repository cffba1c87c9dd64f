"""Features: what a backbone, with or without an adapter, makes of each video of a set."""

from __future__ import annotations

import argparse
import time

from vidadapt import launching
from vidadapt.apps.prepare.commands.options import add_time_limit
from vidadapt.apps.study.feature_accuracy import accuracy_line, with_accuracy
from vidadapt.config import parse_beside_keys
from vidadapt.distributed import World, held_by_main, together
from vidadapt.launching import LISTED, recorded
from vidadapt.runs import check_writable
from vidadapt.serving import extract, features_command


def main(world: World) -> int:
    """Extract as the command line says; the exit status: 1 if some video could not be read."""
    began = time.monotonic()
    with together(world):
        options = parse(None)
        videos = features_command.given_videos(options)
        check_writable("--out", options.out)
    with held_by_main(world, options.out, "--out"), recorded(world, options.out):
        about = extract(options, videos, world)
        with together(world):
            if world.is_main and options.knn:
                about = with_accuracy(options.out, videos, about)
    if world.is_main:
        features_command.say(about, time.monotonic() - began, options.out)
        if options.knn:
            print(accuracy_line(about))
    return LISTED if about["unreadable"] else 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read and check the options."""
    parser = argparse.ArgumentParser(
        prog="vidadapt features",
        description="Write what a backbone, with or without an adapter, makes of each video.",
        epilog=features_command.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    features_command.add_options(parser)
    add_time_limit(parser)
    options = parse_beside_keys(parser, argv)
    features_command.check_options(parser, options)
    return options


def run() -> None:
    """Run this process's command line."""
    launching.launch(main, goes_on="; the same command goes on")
