"""The same as `vidadapt explain`, from a checkout."""

import sys

from vidadapt.cli import run

if __name__ == "__main__":
    run("explain", sys.argv[1:])
