"""The same as `vidadapt predict`, from a checkout."""

import sys

from vidadapt.cli import run

if __name__ == "__main__":
    run("predict", sys.argv[1:])
