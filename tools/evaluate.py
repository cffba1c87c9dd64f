"""The same as `vidadapt evaluate`, from a checkout."""

import sys

from vidadapt.cli import run

if __name__ == "__main__":
    run("evaluate", sys.argv[1:])
