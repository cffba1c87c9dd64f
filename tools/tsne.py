"""The same as `vidadapt tsne`, from a checkout."""

import sys

from vidadapt.cli import run

if __name__ == "__main__":
    run("tsne", sys.argv[1:])
