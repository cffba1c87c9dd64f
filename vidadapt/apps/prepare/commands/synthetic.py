"""vidadapt prepare synthetic: render action videos from nothing."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from vidadapt.apps.prepare.commands import options
from vidadapt.apps.synthetic import CODECS, FAMILIES, contact_sheet, labels, make_set

_COUNT = re.compile(r"(?P<split>\w+)=(?P<number>[0-9]+)")


def _counts(text: str) -> dict[str, int]:
    """'train=1000,test=400' -> {'train': 1000, 'test': 400}."""
    pairs = [_COUNT.fullmatch(part) for part in text.split(",")]
    counts = {pair["split"]: int(pair["number"]) for pair in pairs if pair}
    if len(counts) < len(pairs):
        raise argparse.ArgumentTypeError(
            f"expected splits, each once, with numbers such as train=1000,dev=200,test=400, got "
            f"{text!r}"
        )
    return counts


def _difficulty(text: str) -> float | tuple[float, float]:
    """'0.3' -> 0.3; '0,0.5' -> (0.0, 0.5)."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) == 1:
        return values[0]
    if len(values) == 2:
        return values[0], values[1]
    raise argparse.ArgumentTypeError(f"expected one number or a range such as 0,0.5, got {text!r}")


def add(commands: options.Commands[options.Parser]) -> None:
    """Add the sub-command."""
    parser = commands.add_parser(
        "synthetic",
        help="render action videos with lists, from nothing",
        description="Render short action videos procedurally, with 'path label' lists beside them. "
        "Run again, it keeps what is there and renders what is missing.",
        epilog="example: vidadapt prepare synthetic demo_data/target --family target "
        "--counts train=1400,dev=280,test=420 --difficulty 0,0.4",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    about = "folder to write: videos/, labels.txt and a list a split"
    parser.add_argument("out", type=Path, help=about)
    about = "source, target: actions, most in mirrored or time-reversed pairs that a frame of "
    about += "unknown time cannot tell apart, with no class, shape, colour range or background in "
    about += "common; together: two actions of target at once, so that a video has two labels; "
    about += "appearance: classes told apart by one frame"
    families = list(FAMILIES)
    parser.add_argument("--family", choices=families, default="source", help=about)
    about = "splits and how many videos each gets; classes take turns"
    options.add_option(parser, "--counts", _counts, "train=1000,dev=200,test=400", about)
    options.add_option(parser, "--seed", int, 0, "same seed, same frames")
    about = "a number or a range within [0, 1]: 0 is a plain background and a steady camera, 1 "
    about += "strong texture, distractors and camera shake"
    options.add_option(parser, "--difficulty", _difficulty, "0,0.5", about)
    layouts, about = ("flat", "class_folders"), "class_folders: as HMDB51"
    parser.add_argument("--layout", choices=layouts, default="flat", help=about)
    suffixes, about = list(CODECS), "container: H.264, VP9 or MPEG-4"
    parser.add_argument("--suffix", choices=suffixes, default=".mp4", help=about)
    options.add_processes(parser, "rendering")
    about = "also write a PNG of frames of every class"
    options.add_option(parser, "--sheet", Path, None, about)
    parser.set_defaults(run=_synthetic)


def _synthetic(args: argparse.Namespace) -> None:
    out = make_set(
        args.out,
        args.family,
        args.counts,
        seed=args.seed,
        difficulty=args.difficulty,
        layout=args.layout,
        suffix=args.suffix,
        num_processes=args.processes,
        progress=True,
    )
    if args.sheet is not None:
        contact_sheet(args.family, args.sheet, seed=args.seed)
    lists = ", ".join(f"{split}.txt ({number})" for split, number in args.counts.items())
    names = labels(args.family)
    print(f"{out}: {sum(args.counts.values())} videos of {len(names)} classes; {lists}; labels.txt")
