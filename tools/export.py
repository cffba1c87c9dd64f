"""The same as `vidadapt export`, from a checkout."""

import sys

from vidadapt.cli import run

if __name__ == "__main__":
    run("export", sys.argv[1:])
