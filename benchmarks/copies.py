"""How fast videos load: clips a second of the training loader from originals and from copies.

Without arguments a few mp4 files like Kinetics', webm files like Something-Something's and avi
files like HMDB51's are generated, transcoded and packed (tools/prepare.py transcode, frames), which
is kept in --folder for the next call. With lists or prepared folders, those are compared instead:
they must list the same videos in the same order, the first is what the others are compared with.

Rates mean little, since they depend on the machine and on what else it does; ratios come from one
run in which the sets take turns. The last table tells how many cores a GPU of some clips a second
needs, if every core yields what it does here with as many loader processes as cores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.footage import FOOTAGE, generate
from benchmarks.loader import GPU_RATES, cores_needed
from vidadapt import runs
from vidadapt.apps.prepare.speed import gain, loader_rates
from vidadapt.apps.report import markdown_table
from vidadapt.data import cores
from vidadapt.files import write_json
from vidadapt.lists import (
    PREPARED_FILE,
    Videos,
    counted_videos,
    known_root,
    read_list,
    read_prepared,
)
from vidadapt.video import file_of

FRAMES = (2, 8)
FILES = {"mp4": 8, "webm": 24, "avi": 16}
PREPARE = Path(__file__).parents[1] / "tools" / "prepare.py"
COPIES = {"transcoded": "transcode", "packed": "frames"}


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    try:
        if args.sets:
            if len(args.sets) < 2:
                raise ValueError("give two or more lists or folders to compare, or none")
            comparisons = {"sets": [read_set(path, args.root) for path in args.sets]}
        else:
            comparisons = generated_sets(args)
        if args.json is not None:
            runs.check_writable("--json", args.json.absolute().parent)
        rows = [
            row
            for title, sets in comparisons.items()
            for row in compare(title, dict(sets), args.frames, args)
        ]
    except (ValueError, OSError) as error:
        sys.exit(f"copies: {error}")
    print("\n\n".join(["\n".join(table(rows)), cores_table(rows)]))
    if args.json is not None:
        settings = {k: v for k, v in vars(args).items() if k != "json"}
        settings |= {"sets": [str(path) for path in args.sets], "folder": str(args.folder)}
        settings["root"] = args.root and str(args.root)
        result = {"table": "copies", "settings": settings, "rows": rows, "targets": []}
        write_json(args.json, result)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""examples:
  python -m benchmarks.copies --webm 500 --avi 200 --mp4 0 --frames 2 4 8 16 --rounds 5 --clips 256
  python -m benchmarks.copies ssv2/train.txt ssv2_fast/train.txt ssv2_frames/train.txt""",
    )
    parser.add_argument("sets", type=Path, nargs="*", metavar="LIST|FOLDER")
    parser.add_argument("--root", type=Path, help="of lists that lie in no prepared folder")
    parser.add_argument(
        "--folder", type=Path, default=Path("demo_data/bench_loader"), help="(%(default)s)"
    )
    for kind, number in FILES.items():
        parser.add_argument(
            f"--{kind}", type=int, default=number, help="files to generate (%(default)s)"
        )
    parser.add_argument("--frames", type=int, nargs="+", default=FRAMES, help="of a clip (2 8)")
    parser.add_argument("--workers", type=int, default=cores(), help="of the loader (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="that count (%(default)s)")
    parser.add_argument("--clips", type=int, default=64, help="in a round (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="with the rates of all rounds")
    return parser.parse_args(argv)


def compare(
    title: str, sets: Mapping[str, Videos], frames: Sequence[int], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row for each number of frames: the rates of all rounds, and the gain over the first set."""
    first, *others = sets
    number = len(sets[first])
    for name in others:
        if sets[name].labels.tolist() != sets[first].labels.tolist():
            raise ValueError(f"{name} does not list the same videos as {first}")
    rows = []
    for num_frames in frames:
        rates = loader_rates(
            sets,
            num_frames,
            num_workers=args.workers,
            rounds=args.rounds,
            clips_per_round=args.clips,
        )
        row = {
            "set": title,
            "videos": number,
            "frames": num_frames,
            "workers": args.workers,
            "bytes": {name: size_of(videos) for name, videos in sets.items()},
            "rates": rates,
            "gains": {name: gain(rates, name, first) for name in others},
        }
        print(f"{title}, {num_frames} frames: done", file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown, a line for each set and number of frames."""
    lines = []
    names: list[str] = []
    for row in rows:
        if list(row["rates"]) != names:
            names = list(row["rates"])
            cells = ["videos", "frames", *(f"{name}, clips/s" for name in names)]
            cells += [f"{name} : {names[0]}" for name in names[1:]]
            lines += ["", f"| {' | '.join(cells)} |", "|---" * len(cells) + "|"]
        rates = [f"{median(values):.0f}" for values in row["rates"].values()]
        gains = [f"{value:.1f}" for value in row["gains"].values()]
        cells = [f"{row['videos']} {row['set']}", str(row["frames"]), *rates, *gains]
        lines.append(f"| {' | '.join(cells)} |")
    sizes = {row["set"]: row["bytes"] for row in rows}
    for title, found in sizes.items():
        first, *others = found
        parts = [f"{name} {found[name] / found[first]:.1f} times" for name in others]
        lines += ["", f"{title}: {first} {found[first] / 1e6:.0f} MB, {', '.join(parts)} as large"]
    lines += ["", f"{rows[0]['workers']} loader processes, crops of 224 px, medians of rounds"]
    return lines[1:]


def cores_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Cores that a GPU needs, by set, frames and copy."""
    lines = []
    for row in rows:
        processes = max(row["workers"], 1)
        for name, rates in row["rates"].items():
            per_core = median(rates) / processes
            needed = [str(cores_needed(rate, per_core)) for rate in GPU_RATES]
            lines.append(
                [f"{row['set']}, {row['frames']} frames", name, f"{per_core:.0f}", *needed]
            )
    headings = ["cores needed for", "files", "clips/s a core"]
    return markdown_table(headings + [f"{rate:,} clips/s" for rate in GPU_RATES], lines)


def read_set(path: Path, root: Path | None) -> tuple[str, Videos]:
    """A list, or the training list of a prepared folder, with its frames counted."""
    if path.is_dir():
        name = read_prepared(path).lists.get("train")
        if name is None:
            raise ValueError(f"{path / PREPARED_FILE} names no training list; give the list itself")
        path = path / name
    known = known_root(path, root)
    samples = read_list(path, known, sys.maxsize)
    videos = counted_videos(path, known, samples, "auto", num_workers=cores())
    if errors := [one.error for one in map(videos.facts, range(len(videos))) if one.error]:
        raise ValueError(errors[0])
    return str(path), videos


def size_of(videos: Videos) -> int:
    """Bytes on disk of what a set reads."""
    files = {file_of(videos.file(place)) for place in range(len(videos))}
    return sum(Path(file).stat().st_size for file in files)


def generated_sets(args: argparse.Namespace) -> dict[str, list[tuple[str, Videos]]]:
    """Generate what is missing, copy it with the commands, and read all."""
    comparisons = {}
    for name in FILES:
        number = getattr(args, name)
        if not number:
            continue
        folder = args.folder / f"{name}_{number}"
        listed = generate(FOOTAGE[name], number, args.folder / name)
        sets = [("originals", read_set(listed, listed.parent)[1])]
        for title, command in COPIES.items():
            out = folder / title
            call = [
                sys.executable,
                str(PREPARE),
                command,
                str(listed),
                "--root",
                str(listed.parent),
            ]
            subprocess.run([*call, "--out", str(out)], check=True, stdout=sys.stderr)
            sets.append((title, read_set(out / listed.name, out)[1]))
        comparisons[name] = sets
    return comparisons


if __name__ == "__main__":
    main()
