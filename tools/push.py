"""The same as `vidadapt push`, from a checkout."""

import sys

from vidadapt.cli import run

if __name__ == "__main__":
    run("push", sys.argv[1:])
