"""The same as `vidadapt cost`, from a checkout."""

import sys

from vidadapt.cli import run

if __name__ == "__main__":
    run("cost", sys.argv[1:])
