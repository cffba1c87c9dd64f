"""The same as `vidadapt temporal`, from a checkout."""

import sys

from vidadapt.cli import run

if __name__ == "__main__":
    run("temporal", sys.argv[1:])
