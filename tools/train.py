"""The same as `vidadapt train`, from a checkout."""

import sys

from vidadapt.cli import run

if __name__ == "__main__":
    run("train", sys.argv[1:])
