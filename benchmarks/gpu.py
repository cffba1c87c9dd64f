"""What a GPU does with this package, in one command and a given number of minutes; `make gpu`.

Parts run in order of worth, each in a process of its own, so that none is harmed by what another
leaves behind. What they find is written at once, a line a row, to `gpu.jsonl` of the folder, which
is only ever added to; `gpu.md` beside it is made from these lines alone after each part. A
measurement that fails is a row with its reason, and the next one is taken; a part that does not fit
into the time left is listed as not run, and can be run later with --only.

    python -m benchmarks.gpu --minutes 9
    python -m benchmarks.gpu --only large --minutes 3
    python -m benchmarks.gpu --page
    python -m benchmarks.gpu --device cpu --tiny --out FOLDER
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_page import FILE, lines_of, page
from benchmarks.gpu_parts import PARTS, Part, Place, Row
from benchmarks.run import environment
from benchmarks.step import free, is_want_of_memory
from benchmarks.step_table import device_name
from vidadapt import runs
from vidadapt.files import write_text

OUT = Path(__file__).parent / "results" / "gpu"
PAGE = Path(__file__).parents[1] / "docs" / "gpu.md"
STOP = 5  # seconds before the end of a part in which no measurement begins


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    raw = args.out / FILE
    try:
        if args.page is not None:
            write_text(args.page, page(raw))
            return
        if args.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device: torch finds no CUDA device here; to try, --device cpu")
        deadline = time.monotonic() + 60 * args.minutes
        args.out.mkdir(parents=True, exist_ok=True)
        begin(raw, args.device, args.tiny)
    except (ValueError, OSError) as error:
        sys.exit(f"gpu: {error}")
    folder = args.folder.absolute() / ("trial" if args.tiny else "full")
    folder.mkdir(parents=True, exist_ok=True)
    place = Place(args.device, args.tiny, folder, deadline)
    problems = run_parts({name: PARTS[name] for name in args.only}, place, raw)
    print(f"results: {raw} and {raw.with_suffix('.md')}")
    if problems:
        sys.exit("\n".join(["gpu: without a figure:", *problems]))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=9, help="for all of it (%(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="try it: small models, few steps")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FOLDER", help="(%(default)s)")
    about = "for generated videos and runs, which are kept (%(default)s)"
    parser.add_argument(
        "--folder", type=Path, default=Path("demo_data/gpu"), metavar="FOLDER", help=about
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    about = "write the page from the lines in the folder, and measure nothing (docs/gpu.md)"
    parser.add_argument("--page", type=Path, nargs="?", const=PAGE, metavar="FILE", help=about)
    return parser.parse_args(argv)


def begin(raw: Path, device: str, tiny: bool) -> None:
    """Add a line with what the figures of this run depend on.

    Raises:
        ValueError: the file holds what was measured on another device.
    """
    here: Row = {"on": device_name(torch.device(device)), "tiny": tiny}
    if raw.exists():
        known = lines_of(raw)[0]
        for key, value in here.items():
            if known[key] != value:
                raise ValueError(
                    f"{raw} has {key} {known[key]}, and this run has {value}; choose another --out"
                )
    memory = torch.cuda.get_device_properties(0).total_memory if device == "cuda" else None
    ours = runs.environment(1, device)
    about = {"git_commit": ours["git_commit"], "platform": ours["platform"]}
    about |= {"cuda": torch.version.cuda if device == "cuda" else None, "memory_bytes": memory}
    add(raw, {"kind": "machine", **here, "time": time.time(), **about, **environment()})


def run_parts(parts: Mapping[str, Part], place: Place, raw: Path) -> list[str]:
    """Run parts one after the other, and write the page after each.

    Args:
        place: whose deadline is that of all parts.

    Returns:
        What has no figure, and why, a line each.
    """
    # A process that has imported everything and computed nothing forks for each part: imports take
    # seconds, and CUDA cannot be used in the fork of a process that has used it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.gpu_parts"])
    for name, part in parts.items():
        began, left = time.monotonic(), place.left()
        if left < part.least * (place.device == "cuda") or left <= STOP:
            needed = f"{left:.0f} s left, it needs {part.least:.0f} or more"
            add(raw, {"kind": "part", "part": name, "problem": f"not run: {needed}"})
        else:
            until = began + min(left, part.most)
            own = replace(place, deadline=until - STOP)
            process = context.Process(target=run_part, args=(name, part, own, raw))
            process.start()
            process.join(until - began)
            problem = end(process)
            seconds = round(time.monotonic() - began, 1)
            add(raw, {"kind": "part", "part": name, "problem": problem, "seconds": seconds})
        write_text(raw.with_suffix(".md"), page(raw))
    return [
        ": ".join(one[key] for key in ("part", "name", "problem") if key in one)
        for one in newest(raw)
        if one.get("problem")
    ]


def run_part(name: str, part: Part, place: Place, raw: Path) -> None:
    """Take the measurements of a part and write the row of each; a process of its own."""
    os.setpgrp()  # with the processes that it starts, to be ended together
    gc.freeze()  # what imports have left: a collection takes 0.25 s, and a row has six
    for row_name, measure in part.measurements(place).items():
        began = time.monotonic()
        row: Row = {"problem": "not run: no time left"}
        if place.left() > 0:
            row = attempted(measure)
        seconds = round(time.monotonic() - began, 1)
        print(f"{name}: {row_name}: {row['problem'] or 'done'}, {seconds} s", flush=True)
        row = {**row, "kind": "row", "part": name, "name": row_name, "row_seconds": seconds}
        add(raw, row)
        free()


def attempted(measure: Any) -> Row:
    """What a measurement finds; `problem` says why it found nothing, whatever it was."""
    try:
        return {"problem": None, **measure()}
    except Exception as error:
        wanting = isinstance(error, RuntimeError) and is_want_of_memory(error)
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return {"problem": "out of memory" if wanting else reason}


def end(process: Any) -> str | None:
    """End a part's process if it still runs; why it was not through."""
    if process.is_alive():
        with suppress(ProcessLookupError):  # it has not begun
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        return "ended: it was not through in its time"
    return None if process.exitcode == 0 else f"ended with status {process.exitcode}"


def add(raw: Path, line: Row) -> None:
    """Add a line to the file."""
    with raw.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def newest(raw: Path) -> Sequence[Row]:
    """Lines of the newest run."""
    lines = lines_of(raw)
    last = max(place for place, one in enumerate(lines) if one["kind"] == "machine")
    return lines[last + 1 :]


if __name__ == "__main__":
    main()
