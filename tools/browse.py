"""The same as `vidadapt browse`, from a checkout."""

import sys

from vidadapt.cli import run

if __name__ == "__main__":
    run("browse", sys.argv[1:])
