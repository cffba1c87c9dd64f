"""A loader worker of `lists`: loads the data set from standard input, and looks some videos up."""

from __future__ import annotations

import json
import pickle
import sys
import time
from pathlib import Path

import numpy as np

from vidadapt.data import TrainClips

LOOKED_UP = 2000  # videos, before memory is measured


def own_bytes() -> int:
    """Memory of this process that no other one shares."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    kinds = ("Private_Clean:", "Private_Dirty:")
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(kinds))


def main() -> None:
    content = sys.stdin.buffer.read()
    before, began = own_bytes(), time.perf_counter()
    clips: TrainClips = pickle.loads(content)
    seconds = time.perf_counter() - began
    for place in np.random.default_rng(0).integers(0, len(clips), LOOKED_UP).tolist():
        clips.samples.facts(place)
    print(json.dumps({"mb": (own_bytes() - before) / 1e6, "seconds": seconds}))


if __name__ == "__main__":
    main()
