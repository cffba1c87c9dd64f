"""prepare.py transcode and frames: copies of a set that load fast."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from vidadapt.apps.prepare.commands.options import add_outside_root, add_time_limit, processes
from vidadapt.apps.prepare.copies import TABLE, Copy
from vidadapt.apps.prepare.copying import Copied, Settings, claimed, pack_set, transcode_set
from vidadapt.apps.prepare.report import Report
from vidadapt.apps.prepare.sources import READER, Sources, read_sources, write_copied
from vidadapt.apps.prepare.speed import Timed, gain, loader_rates
from vidadapt.console.naming import printable_lines
from vidadapt.data import count_files
from vidadapt.data.workers import cores
from vidadapt.lists.counting import frame_counts
from vidadapt.lists.reading import Sample
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
no frame below --min-psnr. What fails is a line of the report and of no list, and makes the exit
status 1. A call that was stopped goes on where it was when it is given again.

example: {example}
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-commands."""
    transcode = commands.add_parser(
        "transcode",
        help="copy videos to H.264 files that 2 to 4 frames are soon read from",
        description="Copy the videos of the lists to H.264 files with a key frame every few "
        "frames. They are smaller than packed frames (`frames`), which load faster.",
        epilog=LAYOUT.format(
            files="<path of the video>.mp4",
            example="python tools/prepare.py transcode ssv2/train.txt ssv2/val.txt --out ssv2_fast",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_common(transcode)
    transcode.add_argument(
        "--gop",
        type=_at_least(1),
        default=4,
        metavar="N",
        help="frames from one key frame to the next (default: %(default)s)",
    )
    transcode.add_argument(
        "--crf",
        type=_at_least(0),
        default=20,
        metavar="N",
        help="x264's quality, less is better (default: %(default)s)",
    )
    transcode.set_defaults(run=_transcode)
    frames = commands.add_parser(
        "frames",
        help="pack the frames of videos as JPEGs into a few large files: loads fastest",
        description="Pack all frames of the lists' videos as JPEGs into tar files, from which "
        "single frames are read. Any tar program opens them.",
        epilog=LAYOUT.format(
            files="shards/00000.tar: <path of the video>/000000.jpg, ...",
            example="python tools/prepare.py frames ssv2/train.txt ssv2/val.txt --out ssv2_frames",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_common(frames)
    frames.add_argument(
        "--quality",
        type=_at_least(1),
        default=90,
        metavar="Q",
        help="of the JPEGs, up to 100, more is better (default: %(default)s)",
    )
    frames.add_argument(
        "--shard-size",
        type=_megabytes,
        default=1000.0,
        metavar="MB",
        help="of one tar file, in units of 10^6 bytes (default: %(default)s)",
    )
    frames.set_defaults(run=_frames)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lists", type=Path, nargs="+", metavar="LIST", help="'path label' list")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--root",
        type=Path,
        help="folder that the paths are relative to (default: what the prepared folder says that "
        "the list lies in)",
    )
    add_outside_root(parser)
    parser.add_argument(
        "--short-side",
        type=_at_least(2),
        default=256,
        metavar="PIXELS",
        help="of the copies; nothing is enlarged (default: %(default)s)",
    )
    parser.add_argument(
        "--min-psnr",
        type=float,
        default=30.0,
        metavar="DB",
        help="floor of the worst frame of every copy; films stay above 33, drawn pictures with "
        "sharp coloured edges may come to 28 (default: %(default)s)",
    )
    parser.add_argument(
        "--processes",
        type=processes,
        default=cores(),
        help="of decoding and encoding (default: %(default)s)",
    )
    add_time_limit(parser)


def _transcode(args: argparse.Namespace) -> None:
    settings = Settings(args.short_side, args.crf, args.min_psnr, gop=args.gop)
    claim = {"short_side": args.short_side, "crf": args.crf, "gop": args.gop}
    _copy(args, "transcode", transcode_set, settings, claim)


def _frames(args: argparse.Namespace) -> None:
    if args.quality > 100:
        raise ValueError(f"--quality: at most 100, not {args.quality}")
    size = round(args.shard_size * 1e6)
    settings = Settings(args.short_side, args.quality, args.min_psnr, shard_bytes=size)
    claim = {"short_side": args.short_side, "quality": args.quality}
    _copy(args, "frames", pack_set, settings, claim)


def _copy(
    args: argparse.Namespace,
    command: str,
    copy_set: Callable[..., Copied],
    settings: Settings,
    claim: dict[str, int],
) -> None:
    """Copy, write lists and report, and print costs and gain; exit status 1 on problems."""
    sources = read_sources(args.lists, args.root, args.allow_outside_root)
    made_by = {"command": command, "root": str(sources.root), **claim}
    report = Report()
    with claimed(args.out, made_by):
        copied = copy_set(
            sources, args.out, settings, report, num_processes=args.processes, progress=True
        )
        copy_of = {path: copy.copy for path, copy in copied.copies.items()}
        lists = write_copied(args.out, sources, copy_of, copied.counts, made_by)
        counts: dict[str, VideoFacts] = {}
        for written, samples in zip(lists.values(), sources.lists.values(), strict=True):
            paths = [copy_of[sample.path] for sample in samples if sample.path in copy_of]
            # Decodes only copies of an earlier call that was stopped before it wrote the index.
            counts |= frame_counts(
                written,
                args.out,
                paths,
                READER,
                num_workers=args.processes,
                time_limit=args.time_limit,
                limit_key="--time-limit",
            )
        report.write(args.out / REPORT)
    if text := report.text():
        print(text)
    for name, samples in sources.lists.items():
        kept = sum(sample.path in copy_of for sample in samples)
        print(f"{args.out / name}: {kept} of {len(samples)} videos")
    if copied.copies:
        copies = list(copied.copies.values())
        print(printable_lines(_cost(args.out, copies)))
        print(_speed(args, sources, copies, counts))
    print(f"report: {args.out / REPORT}")
    if report.problems:
        sys.exit(1)


def _cost(out: Path, copies: list[Copy]) -> str:
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
    sources: Sources,
    copies: list[Copy],
    counts: Mapping[str, VideoFacts],
) -> str:
    """Return the gain in loading speed, measured on some videos in this process alone."""
    chosen = copies[:: -(-len(copies) // TIMED_VIDEOS)]
    files = [str(sources.root / copy.path) for copy in chosen]
    before = count_files(files, READER, num_workers=args.processes, time_limit=args.time_limit)
    sets = {
        "source": Timed("/", [Sample(file, 0) for file in files], before),
        "copy": Timed(str(args.out), [Sample(copy.copy, 0) for copy in chosen], counts),
    }
    rates = loader_rates(sets, TIMED_FRAMES, num_workers=0, clips_per_round=TIMED_VIDEOS)
    old, new = (median(rates[name]) for name in ("source", "copy"))
    return (
        f"speed: {old:.0f} clips/s of a loader process from the sources, {new:.0f} from the copies "
        f"({gain(rates, 'copy', 'source'):.1f} times; {TIMED_FRAMES} frames of 224 px, "
        f"{len(chosen)} videos)"
    )


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a number from {least}, got {text!r}")
        return int(text)

    return number


def _megabytes(text: str) -> float:
    if not (size := float(text)) > 0:
        raise ValueError
    return size
