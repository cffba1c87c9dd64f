"""The same as `vidadapt demo`, from a checkout."""

import sys

from vidadapt.cli import run

if __name__ == "__main__":
    run("demo", sys.argv[1:])
