"""The same as `vidadapt serve`, from a checkout."""

import sys

from vidadapt.cli import run

if __name__ == "__main__":
    run("serve", sys.argv[1:])
