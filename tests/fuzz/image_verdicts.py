"""What another process says of images: as the indexes' workers, and in a process of its own.

python tests/fuzz/image_verdicts.py < FILES, one a line; prints JSON.
"""

from __future__ import annotations

import json
import sys

from vidadapt.lists import CountJob, count_file

Verdict = list[object]


def verdict(file: str) -> Verdict:
    """Frames, checksums, reader, error, and whether it holds: all that a count says of pixels."""
    facts = count_file(CountJob(file, file, "auto", 0, 0))
    checks = [int(check) for check in facts.checks]
    return [facts.num_frames, checks, facts.reader, facts.error, facts.holds]


if __name__ == "__main__":
    print(json.dumps({line: verdict(line) for line in sys.stdin.read().splitlines()}))
