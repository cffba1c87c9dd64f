"""The same as `vidadapt features`, from a checkout."""

import sys

from vidadapt.cli import run

if __name__ == "__main__":
    run("features", sys.argv[1:])
