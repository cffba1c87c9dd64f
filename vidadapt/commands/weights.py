"""`vidadapt weights`: published weights of backbones, and fetching them."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from vidadapt.config import spelt
from vidadapt.console import printable, require_known
from vidadapt.weights import PUBLISHED, Published

DESCRIPTION = """Published weights of backbones: list them, show what is known of one, or fetch it.

Nothing is fetched without --out. Most need no fetching by hand: the options that are shown let
training fetch them into the hub's cache. docs/weights.md has the whole table, with sources.
"""
EPILOG = """examples:
  vidadapt weights
  vidadapt weights videomae-base
  vidadapt weights videomae-base --out videomae_base.safetensors
"""


@dataclass(frozen=True)
class Options:
    """Options of `vidadapt weights`; see `parse`."""

    name: str | None
    out: Path | None


def parse(argv: list[str]) -> Options:
    """Read the options.

    Raises:
        SystemExit: a wrong option, or after --help.
        ValueError: no such weights; names near ones.
    """
    parser = argparse.ArgumentParser(
        prog="vidadapt weights",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the list; default: list all")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="fetch it from the Hugging Face hub to this path"
    )
    options = Options(**vars(parser.parse_args(spelt(argv))))
    if options.out is not None and options.name is None:
        parser.error("--out: give the name of the weights, too")
    if options.name is not None:
        require_known("weights", options.name, PUBLISHED)
    return options


def main(argv: list[str]) -> int:
    """List, show or fetch as the options say; the exit status.

    Raises:
        ValueError: see `weights.fetching.fetch`.
    """
    options = parse(argv)
    if options.name is None:
        print(table())
        return 0
    entry = PUBLISHED[options.name]
    print(shown(options.name, entry))
    if options.out is None:
        return 0
    from vidadapt.weights.fetching import fetch  # the hub's client: not for a list

    done = fetch(options.name, entry, options.out)
    checked = "as stated" if done.checked else "no checksum is stated to compare it with"
    print(
        f"{options.out}: {done.size:,} bytes, {done.name} of revision {done.commit}\n"
        f"  SHA-256 {done.sha256} ({checked})"
    )
    return 0


def table() -> str:
    """Return a line for each published file: name, backbone, licence, size, training data."""
    rows = [("NAME", "MODEL.BACKBONE", "LICENCE", "SIZE", "TRAINED ON")]
    rows += [
        (name, _short(name, entry.backbone), entry.licence or "?", entry.size or "?", entry.data)
        for name, entry in PUBLISHED.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]))
        for row in rows
    ]
    return "\n".join(lines)


def _short(name: str, backbone: str) -> str:
    return "timm/..." if backbone == f"timm/{name}" else backbone


def shown(name: str, entry: Published) -> str:
    """Return all that is known of a published file, and the options that use it."""
    options = " ".join(f"--{key} {shlex.quote(value)}" for key, value in entry.settings.items())
    facts = {
        "made by": entry.maker,
        "trained on": entry.data,
        "licence": entry.licence or "not known",
        "parameters": f"{entry.millions:,} M, without head and decoder",
        "size": entry.said_size,
        "from": entry.place + (f", file {entry.file}" if entry.file else ""),
        "published": entry.figure or "no figure was found",
        "not checked": "; ".join(entry.unverified) or "-",
        "sources": ", ".join(entry.sources),
        "use it with": options,
    }
    width = max(map(len, facts))
    lines = [f"  {key.ljust(width)}  {printable(value)}" for key, value in facts.items()]
    return "\n".join((name, *lines))


def run() -> None:
    """Run this process's command line."""
    from vidadapt import launching  # torch: not for --help

    launching.alone(lambda: main(sys.argv[1:]))
