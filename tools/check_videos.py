"""The same as `vidadapt check_videos`, from a checkout."""

import sys

from vidadapt.cli import run

if __name__ == "__main__":
    run("check_videos", sys.argv[1:])
