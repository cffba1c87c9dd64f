"""The same as `vidadapt report`, from a checkout."""

import sys

from vidadapt.cli import run

if __name__ == "__main__":
    run("report", sys.argv[1:])
