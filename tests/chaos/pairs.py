"""Starts trainings in pairs on one run folder: one goes on, the other says who has the folder.

    python tests/chaos/pairs.py [--pairs 200] [--seed 0]

Both of a pair are processes that are forked from this one, which has imported everything, and begin
at the same moment, or one a moment later. The folder is fresh, or that of a run that was stopped or
killed; either command has `--resume` where that is possible. The run that goes on must have the
bits of one that was left alone. The last line counts; the exit status is 1 unless all is as it
should be, and then the runs stay.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from inject_faults import Bench, Child, load_tool, make_tiny_set, start

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from test_resuming import assert_same_run  # noqa: E402

from vidadapt.console.progress import duration  # noqa: E402

# Folder, and whether either command has --resume.
KINDS = (
    ("fresh", (False, False)),
    ("fresh", (True, True)),
    ("fresh", (True, False)),
    ("stopped", (True, True)),
    ("killed", (True, True)),
)


def output_of(run: Path, number: int) -> Path:
    """Beside the run, where `Child` writes: a name of its own for either of a pair."""
    return run.with_name(f"{run.name}_{number}.txt")


def cut_short(bench: Bench, words: list[str], by: int) -> Path:
    """A run that a signal ended in mid-epoch."""
    while True:
        run = bench.new_run()
        child = start(words, run)
        while not (run / "last").exists():
            time.sleep(0.002)
        os.kill(child.pid, by)
        if child.wait() != 0:
            return run


def both(words: list[str], run: Path, resume: tuple[bool, bool], pause: float) -> list[Child]:
    """Two trainings on one folder, in processes of their own."""
    children = []
    for number, one in enumerate(resume):
        children.append(Child(words, run, None, resume=one, output=output_of(run, number)))
        time.sleep(pause if number == 0 else 0)
    return children


def pair(bench: Bench, kind: str, resume: tuple[bool, bool], begun: dict[str, Path]) -> list[str]:
    """Start two trainings on one folder; what is wrong with their ends."""
    words = bench.words("plain", train__epochs=2)
    run = bench.new_run()
    if kind in begun:
        shutil.copytree(begun[kind], run)
    children = both(words, run, resume, bench.rng.choice((0.0, bench.rng.uniform(0.0, 0.2))))
    status = [child.wait() for child in children]
    said = [child.said() for child in children]
    wrong = []
    if sorted(map(bool, status)) != [False, True]:
        wrong.append(f"exit status {status}, where one should have gone on")
    else:
        on, off = (0, 1) if status[0] == 0 else (1, 0)
        if f"is in use by process {children[on].pid} on " not in said[off]:
            wrong.append("the other does not say who has the folder")
        if "Traceback" in said[off] or len(said[off].strip().splitlines()) != 1:
            wrong.append("the other says more than one line")
        try:
            assert_same_run(run, begun["alone"])
            left = {path.name for path in run.iterdir()}
            assert left == {path.name for path in begun["alone"].iterdir()}, left
        except (AssertionError, OSError, ValueError) as error:
            wrong.append(f"the end is not that of a run alone: {error!s:.300}")
    if not wrong:
        shutil.rmtree(run.parent)
        return []
    return [f"{kind}, --resume {resume}: {'; '.join(wrong)}; {run.parent}", *said]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    load_tool("train")  # so that no child has to import
    folder = Path(tempfile.mkdtemp(prefix="vidadapt_pairs_"))
    bench = Bench(folder, make_tiny_set(folder / "tiny_set"), random.Random(args.seed))
    began = time.monotonic()
    words = bench.words("plain", train__epochs=2)
    begun = {"alone": bench.new_run()}
    child = start(words, begun["alone"])
    assert child.wait() == 0, child.said()
    begun["stopped"] = cut_short(bench, words, signal.SIGTERM)
    begun["killed"] = cut_short(bench, words, signal.SIGKILL)
    right = 0
    for number in range(args.pairs):
        kind, resume = KINDS[number % len(KINDS)]
        wrong = pair(bench, kind, resume, begun)
        right += not wrong
        if wrong:
            print("WRONG:", "\n".join(wrong), flush=True)
        if (number + 1) % 20 == 0:
            took = duration(time.monotonic() - began)
            print(f"{right} of {number + 1} pairs are right, {took}", flush=True)
    if right == args.pairs:
        shutil.rmtree(folder)
    print(
        f"pairs: {args.pairs}; one went on, the other named it, and the run has the bits of one "
        f"alone: {right}"
    )
    return int(right < args.pairs)


if __name__ == "__main__":
    sys.exit(main())
