"""`vidadapt push`: publish a run's adapter on the Hugging Face hub."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from vidadapt.config import spelt
from vidadapt.console import printable

DESCRIPTION = """Publish a run's adapter on the Hugging Face hub, with a model card.

The files are the adapter, its description and checksums, the class names, the protocol of its
figures, and the card: what it is, the figures of the run's evaluations of this very checkpoint, how
to use it, and the licence of the backbone, where it is known (`vidadapt weights`). Nothing else of
the run's folder is read. Files of these names in the repository are replaced.
"""
EPILOG = """examples:
  vidadapt push runs/mine me/kitchen-actions --to card      look at it first; uploads nothing
  vidadapt push runs/mine me/kitchen-actions --private
  vidadapt predict VIDEOS --adapter hub:me/kitchen-actions

It takes a login: `hf auth login`, or a token with the right to write in HF_TOKEN.
"""


@dataclass(frozen=True)
class Options:
    """Options of `vidadapt push`; see `parse`."""

    run: Path
    repository: str
    private: bool
    checkpoint: str | None
    licence: str | None
    to: Path | None


def parse(argv: list[str]) -> Options:
    """Read the options.

    Raises:
        SystemExit: a wrong option, or after --help.
    """
    parser = argparse.ArgumentParser(
        prog="vidadapt push",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, help="run folder, or adapter folder")
    parser.add_argument("repository", metavar="OWNER/NAME", help="made where it is not there")
    parser.add_argument(
        "--private", action="store_true", help="a new repository is private; default: public"
    )
    parser.add_argument(
        "--checkpoint",
        choices=("best", "last"),
        help="of the run; default: best if it has one, else last",
    )
    parser.add_argument(
        "--licence",
        metavar="ID",
        help="of the adapter, by the hub's name, e.g. apache-2.0; default: none is named",
    )
    parser.add_argument(
        "--to", type=Path, metavar="FOLDER", help="write the files there, and upload nothing"
    )
    return Options(**vars(parser.parse_args(spelt(argv))))


def main(argv: list[str]) -> int:
    """Publish as the options say; the exit status.

    Raises:
        ValueError: see `serving.push`.
    """
    options = parse(argv)
    from vidadapt.serving import push, write_published  # torch: not for --help

    if options.to is None:
        done = push(
            options.run,
            options.repository,
            private=options.private,
            checkpoint=options.checkpoint,
            licence=options.licence,
        )
    else:
        done = write_published(
            options.run,
            options.to,
            options.repository,
            checkpoint=options.checkpoint,
            licence=options.licence,
        )
    for name, size in done.files.items():
        print(f"  {name}  {size:,} bytes")
    for line in done.left_out:
        print(printable(f"left out of the card: {line}"))
    print(printable(done.address))
    if done.reference is None:
        print("nothing was uploaded; without --to it is")
    else:
        print(f"use it with --adapter hub:{options.repository}, or exactly {done.reference}")
    return 0


def run() -> None:
    """Run this process's command line."""
    from vidadapt import launching  # torch: not for --help

    launching.alone(lambda: main(sys.argv[1:]))
