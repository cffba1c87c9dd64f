"""The same as `vidadapt weights`, from a checkout."""

import sys

from vidadapt.cli import run

if __name__ == "__main__":
    run("weights", sys.argv[1:])
