"""Fuzz run: damaged and hostile files of every kind, each read or refused, and never worse.

python tests/fuzz/fuzz_run.py --seed 7                  # 5,000 videos, 1,500 images, 2,500 others
python tests/fuzz/fuzz_run.py --inputs 300 --only video --seed 7
python tests/fuzz/fuzz_run.py --only video --seed 7 --number 123 --save kept    # one job again
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter

from fuzz_attempts import RIGHT, Job, Tally, attempt, campaign
from fuzz_kinds import KINDS
from fuzz_videos import SAVE

from vidadapt.console.progress import duration, track


def jobs_of(inputs: int, seed: int, only: list[str]) -> list[Job]:
    """Jobs of so many inputs, or a few more, shared out over the kinds."""
    total = sum(kind.share for name, kind in KINDS.items() if name in only)
    jobs = []
    for name in only:
        kind = KINDS[name]
        wanted = -(-inputs * kind.share // (total * kind.per_job))
        jobs += [(number / wanted, Job(name, seed, number)) for number in range(wanted)]
    # All kinds from the start, so that a run that is stopped has seen each.
    return [job for _, job in sorted(jobs)]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=9000, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--number", type=int, help="only this job, in this process")
    parser.add_argument("--save", help="folder in which videos and images that fail are kept")
    parser.add_argument("--processes", type=int, default=2, help="default %(default)s")
    args = parser.parse_args(argv)
    if args.save:
        os.environ[SAVE] = os.path.abspath(args.save)  # noqa: PTH100
    if args.number is not None:
        tallies = [attempt(Job(name, args.seed, args.number)) for name in args.only]
        for name, tally in zip(args.only, tallies, strict=True):
            print(name, dict(tally.outcomes), *tally.parts, *tally.defects, sep="\n")
        return 1 if any(tally.defects for tally in tallies) else 0
    began = time.monotonic()
    jobs = jobs_of(args.inputs, args.seed, args.only)
    print(f"seed {args.seed}, {len(jobs)} jobs in {args.processes} processes", flush=True)
    found = {name: Tally() for name in args.only}
    done = campaign(jobs, args.processes)
    for job, tally in track(done, total=len(jobs), label="fuzz", unit="jobs"):
        found[job.kind].add(tally)
        for defect in tally.defects:
            print(f"DEFECT {defect}", flush=True)
    say(found, args.seed, time.monotonic() - began)
    return 1 if any(tally.defects for tally in found.values()) else 0


def say(found: dict[str, Tally], seed: int, seconds: float) -> None:
    for name, tally in found.items():
        say_parts(tally.parts)
        counts = ", ".join(f"{key} {number}" for key, number in tally.outcomes.most_common())
        print(f"{name:8} {tally.outcomes.total():6}: {counts}; {len(tally.defects)} defects")
    inputs = sum(tally.outcomes.total() for tally in found.values())
    defects = sum(len(tally.defects) for tally in found.values())
    rate = f"{inputs / seconds:.1f} inputs/s"
    print(f"fuzz: {inputs} inputs, {defects} defects, seed {seed}, {duration(seconds)}, {rate}")


def say_parts(parts: Counter[tuple[str, str, str]]) -> None:
    """A line for each part of the inputs: how many there were, and how many of them were read."""
    for kind in dict.fromkeys(kind for kind, _, _ in parts):
        for name in sorted({name for of, name, _ in parts if of == kind}):
            counts = {end: n for (of, part, end), n in parts.items() if (of, part) == (kind, name)}
            total = sum(counts.values())
            share = 100 * counts.get(RIGHT, 0) / total
            print(f"  {kind:7} {name:26} {total:6}, {share:3.0f} % read")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
