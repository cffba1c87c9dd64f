"""The same as `vidadapt bench_frames`, from a checkout."""

import sys

from vidadapt.cli import run

if __name__ == "__main__":
    run("bench_frames", sys.argv[1:])
