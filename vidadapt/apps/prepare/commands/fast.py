"""vidadapt prepare transcode and frames: copies of a set that load fast."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from vidadapt.apps.prepare.commands import options
from vidadapt.apps.prepare.copied_lists import Originals, read_originals, write_copied
from vidadapt.apps.prepare.copied_parts import (
    DONE,
    joined,
    part_name,
    part_names,
    part_of,
    write_part,
)
from vidadapt.apps.prepare.copies import READER, TABLE, Copy, Settings, write_table
from vidadapt.apps.prepare.copying import claimed, copy_set
from vidadapt.apps.prepare.report import Report
from vidadapt.apps.prepare.speed import gain, loader_rates
from vidadapt.console import printable_lines
from vidadapt.data import count_files
from vidadapt.lists import Sample, Videos, frame_counts
from vidadapt.video import VideoFacts

TIMED_VIDEOS = 64
TIMED_FRAMES = 8
REPORT = "report.txt"

LAYOUT = """\
what is read                      what is written, in the order of the lists
  ssv2/train.txt                    FAST/train.txt, val.txt, labels.txt, prepared.json
  ssv2/val.txt                      FAST/{files}
  ssv2/labels.txt                   FAST/copies.csv: size, frames and PSNR of every copy
                                    FAST/report.txt: what was not copied, and why

Every copy is decoded again and compared with its source, scaled where it is: as many frames, and
no frame below --min_psnr. What fails is a line of the report and of no list, and makes the exit
status 1. A call that was stopped goes on where it was when it is given again.

example: vidadapt prepare {name} ssv2/train.txt ssv2/val.txt --out FAST
"""


def add(commands: options.Commands[options.Parser]) -> None:
    """Add the sub-commands."""
    parser = _add_parser(
        commands,
        "transcode",
        "copy videos to H.264 files that 2 to 4 frames are soon read from",
        "Copy the videos of the lists to H.264 files with a key frame every few frames. They are "
        "smaller than packed frames (`frames`), which load faster.",
        "<path of the video>.mp4",
    )
    about = "frames from one key frame to the next"
    options.add_option(parser, "--gop", options.whole_number(1), 4, about)
    about = "x264's quality, less is better"
    options.add_option(parser, "--crf", options.whole_number(0), 20, about)
    parser.set_defaults(run=_transcode, shard=None, join=None)
    parser = _add_parser(
        commands,
        "frames",
        "pack the frames of videos as JPEGs into a few large files: loads fastest",
        "Pack all frames of the lists' videos as JPEGs into tar files, from which single frames "
        "are read. Any tar program opens them.",
        "shards/00000.tar: <path of the video>/000000.jpg, ...",
    )
    about = "of the JPEGs, up to 100, more is better"
    options.add_option(parser, "--quality", options.whole_number(1), 90, about)
    about = "of one tar file, in units of 10^6 bytes"
    options.add_option(parser, "--shard_size", options.size(1e6), "1000", about)
    part = "pack the I-th of N parts of the videos, I from 1, into OUT/I-of-N"
    options.add_shards(parser, part, "join N parts, which are all done and below OUT")
    parser.set_defaults(run=_frames)


def _add_parser(
    commands: options.Commands[options.Parser], name: str, title: str, about: str, files: str
) -> options.Parser:
    """Add a sub-command with the options that both have; `files` says what it writes."""
    parser = commands.add_parser(
        name,
        help=title,
        description=about,
        epilog=LAYOUT.format(files=files, name=name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_lists(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    about = "of the copies in pixels; nothing is enlarged"
    options.add_option(parser, "--short_side", options.whole_number(2), 256, about)
    about = "floor of the worst frame of every copy in dB; films stay above 33, drawn pictures with"
    about += " sharp coloured edges may come to 28"
    options.add_option(parser, "--min_psnr", float, 30.0, about)
    options.add_processes(parser, "decoding and encoding")
    options.add_time_limit(parser)
    return parser


def _transcode(args: argparse.Namespace) -> None:
    settings = Settings("h264", args.short_side, args.crf, args.min_psnr, gop=args.gop)
    _copy(args, settings, {"crf": args.crf, "gop": args.gop})


def _frames(args: argparse.Namespace) -> None:
    if args.quality > 100:
        raise ValueError(f"--quality: at most 100, not {args.quality}")
    settings = Settings(
        "jpeg", args.short_side, args.quality, args.min_psnr, shard_bytes=args.shard_size
    )
    _copy(args, settings, {"quality": args.quality})


def _copy(args: argparse.Namespace, settings: Settings, claim: Mapping[str, int]) -> None:
    """Copy the lists, or a part of them, or join parts; exit status 1 on problems."""
    originals = read_originals(args.lists, args.root, args.allow_outside_root, args.multi_label)
    command = "transcode" if settings.encoder == "h264" else "frames"
    made_by = {"command": command, "root": str(originals.root), "short_side": args.short_side}
    made_by |= claim
    report = Report()
    if args.shard is not None:
        name = part_name(*args.shard)
        out, originals = args.out / name, part_of(originals, *args.shard)
        with claimed(out, made_by | {"part": name}):
            (out / DONE).unlink(missing_ok=True)
            copies, _ = _copies(args, originals, out, settings, report)
            report.write(out / REPORT)
            write_part(out, originals, copies, report)
        _tell(originals, out, copies, report)
    elif args.join is not None:
        out, parts = args.out, part_names(args.join)
        copies = joined(originals, out, args.join, made_by, report)
        joint = made_by | {"parts": args.join}
        with claimed(out, joint, beside=parts):
            write_table(out, copies.values())
            _write_lists(args, originals, copies, {}, joint, report)
        _tell(originals, out, copies, report)
    else:
        out = args.out
        with claimed(out, made_by):
            copies, facts = _copies(args, originals, out, settings, report)
            counts = _write_lists(args, originals, copies, facts, made_by, report)
        _tell(originals, out, copies, report)
        if copies:
            print(_speed(args, originals, list(copies.values()), counts))
    print(f"report: {out / REPORT}")
    if report.problems:
        sys.exit(1)


def _copies(
    args: argparse.Namespace, originals: Originals, out: Path, settings: Settings, report: Report
) -> tuple[dict[str, Copy], dict[str, VideoFacts]]:
    return copy_set(originals, out, settings, report, num_processes=args.processes, progress=True)


def _write_lists(
    args: argparse.Namespace,
    originals: Originals,
    copies: Mapping[str, Copy],
    facts: Mapping[str, VideoFacts],
    made_by: Mapping[str, Any],
    report: Report,
) -> dict[str, VideoFacts]:
    """Write lists, their indices and the report; return what is known of each copy."""
    copy_of = {path: copy.copy for path, copy in copies.items()}
    write_copied(args.out, originals, copy_of, facts, made_by)
    counts: dict[str, VideoFacts] = {}
    for name, samples in originals.lists.items():
        # Decodes only copies of an earlier call that was stopped before it wrote the index.
        counts |= frame_counts(
            args.out / name,
            args.out,
            [copy_of[sample.path] for sample in samples if sample.path in copy_of],
            READER,
            num_workers=args.processes,
            time_limit=args.time_limit,
            limit_key="--time_limit",
        )
    report.write(args.out / REPORT)
    return counts


def _tell(originals: Originals, out: Path, copies: Mapping[str, Copy], report: Report) -> None:
    """Print findings, numbers of copies, and what they cost."""
    if text := report.text():
        print(text)
    for name, samples in originals.lists.items():
        kept = sum(sample.path in copies for sample in samples)
        where = out / name if (out / name).is_file() else f"{out}: of {name}"  # a part has no lists
        print(f"{where}: {kept} of {len(samples)} videos")
    if copies:
        print(printable_lines(_cost(out, list(copies.values()))))


def _cost(out: Path, copies: Sequence[Copy]) -> str:
    """Return size and quality of the copies, in words."""
    before, after = sum(c.source_bytes for c in copies), sum(c.bytes for c in copies)
    worst = min(copies, key=lambda copy: copy.worst_psnr)
    return (
        f"disk: {before / 1e6:.1f} MB of sources, {after / 1e6:.1f} MB of copies "
        f"({after / before:.2f} times)\n"
        f"PSNR: median {median(copy.psnr for copy in copies):.1f} dB, worst frame "
        f"{worst.worst_psnr:.1f} dB ({worst.path}); table: {out / TABLE}"
    )


def _speed(
    args: argparse.Namespace,
    originals: Originals,
    copies: Sequence[Copy],
    counts: Mapping[str, VideoFacts],
) -> str:
    """Return the gain in loading speed, measured on some videos in this process alone."""
    chosen = copies[:: -(-len(copies) // TIMED_VIDEOS)]
    files = [str(originals.root / copy.path) for copy in chosen]
    before = count_files(files, READER, num_workers=args.processes, time_limit=args.time_limit)
    sets = {
        "source": Videos.of("/", [Sample(file, 0) for file in files], before),
        "copy": Videos.of(str(args.out), [Sample(copy.copy, 0) for copy in chosen], counts),
    }
    rates = loader_rates(sets, TIMED_FRAMES, num_workers=0, clips_per_round=TIMED_VIDEOS)
    old, new = (median(rates[name]) for name in ("source", "copy"))
    return (
        f"speed: {old:.0f} clips/s of a loader process from the sources, {new:.0f} from the copies "
        f"({gain(rates, 'copy', 'source'):.1f} times; {TIMED_FRAMES} frames of 224 px, "
        f"{len(chosen)} videos)"
    )
