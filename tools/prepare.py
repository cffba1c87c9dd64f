"""Prepare data: each sub-command writes files that tools/train.py and tools/evaluate.py read."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vidadapt.data import synthetic
from vidadapt.data.frame_index import FrameCount, frame_counts, index_path, truncated
from vidadapt.data.lists import SHOWN, read_list
from vidadapt.data.readers import READERS


def _counts(text: str) -> dict[str, int]:
    """'train=1000,test=400' -> {'train': 1000, 'test': 400}."""
    try:
        return {
            split: int(number) for split, number in (part.split("=") for part in text.split(","))
        }
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected splits with numbers such as train=1000,dev=200,test=400, got {text!r}"
        ) from None


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


def _processes(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of processes from 1, got {text!r}")
    return int(text)


def _add_synthetic(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "synthetic",
        help="render action videos with lists, from nothing",
        description="Render short action videos procedurally, with 'path label' lists beside them. "
        "Run again, it keeps what is there and renders what is missing.",
        epilog="example: python tools/prepare.py synthetic demo_data/target --family target "
        "--counts train=1400,dev=280,test=420 --difficulty 0,0.4",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "out", type=Path, help="folder to write: videos/, labels.txt and a list a split"
    )
    parser.add_argument(
        "--family",
        choices=list(synthetic.FAMILIES),
        default="source",
        help="source, target: actions, most in mirrored or time-reversed pairs that a frame of "
        "unknown time cannot tell apart, with no class, shape, colour range or background in "
        "common; appearance: classes told apart by one frame",
    )
    parser.add_argument(
        "--counts",
        type=_counts,
        default="train=1000,dev=200,test=400",
        help="splits and how many videos each gets; classes take turns",
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same frames")
    parser.add_argument(
        "--difficulty",
        type=_difficulty,
        default="0,0.5",
        help="a number or a range within [0, 1]: 0 is a plain background and a steady camera, "
        "1 strong texture, distractors and camera shake",
    )
    parser.add_argument(
        "--layout",
        choices=("flat", "class_folders"),
        default="flat",
        help="class_folders: as HMDB51",
    )
    parser.add_argument(
        "--suffix",
        choices=list(synthetic.CODECS),
        default=".mp4",
        help="container: H.264, VP9 or MPEG-4",
    )
    parser.add_argument(
        "--processes",
        type=_processes,
        default=synthetic.cores(),
        help="rendering processes",
    )
    parser.add_argument(
        "--sheet", type=Path, default=None, help="also write a PNG of frames of every class"
    )
    parser.set_defaults(run=_synthetic)


def _synthetic(args: argparse.Namespace) -> None:
    out = synthetic.make_set(
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
        synthetic.contact_sheet(args.family, args.sheet, seed=args.seed)
    lists = ", ".join(f"{split}.txt ({number})" for split, number in args.counts.items())
    names = synthetic.labels(args.family)
    print(f"{out}: {sum(args.counts.values())} videos of {len(names)} classes; {lists}; labels.txt")


def _add_index(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "index",
        help="count the frames of listed videos, before a training does",
        description="Decode every video of the lists once and keep its exact number of frames in "
        "an index beside the list. Run again, it counts only what is new or changed.",
        epilog="example: python tools/prepare.py index train.txt test.txt --root /data/ssv2",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("lists", type=Path, nargs="+", metavar="LIST", help="'path label' list")
    parser.add_argument(
        "--root", type=Path, required=True, help="folder that the paths are relative to (data.root)"
    )
    parser.add_argument(
        "--reader",
        choices=list(READERS),
        default="decord",
        help="as data.reader of the training: each reader has rows of its own",
    )
    parser.add_argument(
        "--processes", type=_processes, default=synthetic.cores(), help="decoding processes"
    )
    parser.add_argument(
        "--index-dir",
        type=Path,
        default=None,
        help="as data.index_dir of the training: folder of the index where the list's cannot be "
        "written",
    )
    parser.set_defaults(run=_index)


def _index(args: argparse.Namespace) -> None:
    for list_path in args.lists:
        # Labels are the training's business, and a missing file is a line of the summary.
        samples = read_list(list_path, args.root, num_classes=sys.maxsize, check_files=False)
        counts = frame_counts(
            list_path,
            args.root,
            [sample.path for sample in samples],
            reader=args.reader,
            index_dir=args.index_dir,
            num_workers=args.processes,
        )
        print(_summary(list_path, list(counts.values())))
        print(f"  index: {index_path(list_path, args.index_dir)}")


def _summary(list_path: Path, counts: list[FrameCount]) -> str:
    readable = [count for count in counts if not count.error]
    errors = [count.error for count in counts if count.error]
    cut = [
        f"{count.path}: the header promises {count.header_frames} frames, {count.num_frames} decode"
        for count in readable
        if truncated(count)
    ]
    served = [count.reader for count in readable]
    readers = ", ".join(f"{name} ({served.count(name)})" for name in sorted(set(served)))
    lines = [
        f"{list_path}: {len(counts)} videos, {len(readable)} readable, {len(errors)} unreadable, "
        f"{len(cut)} truncated; {sum(count.num_frames for count in readable)} frames",
        f"  readers: {readers or 'none'}",
    ]
    for title, entries in (("unreadable", errors), ("truncated", cut)):
        lines += [f"  {title}: {entry}" for entry in entries[:SHOWN]]
        if len(entries) > SHOWN:
            lines.append(f"  {title}: ... and {len(entries) - SHOWN} more")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_synthetic(commands)
    _add_index(commands)
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"prepare: {error}")


if __name__ == "__main__":
    main()
