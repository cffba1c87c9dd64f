"""The same as `vidadapt prepare`, from a checkout."""

import sys

from vidadapt.cli import run

if __name__ == "__main__":
    run("prepare", sys.argv[1:])
