"""KINDS: what is fuzzed, and how many inputs of it a run of 10,000 has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fuzz_files
import fuzz_texts
import fuzz_videos
from fuzz_attempts import Job, Tally


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        check: makes the input of a job in a folder, tries it, and counts what came of it.
        share: inputs in a run of 10,000.
        per_job: inputs of one job.
    """

    check: Callable[[Job, Path, Tally], None]
    share: int
    per_job: int = 1


TEXT = fuzz_texts.EXAMPLES
KINDS = {
    "list": Kind(fuzz_texts.check_list, 2500, TEXT),
    "names": Kind(fuzz_texts.check_names, 750, TEXT),
    "config": Kind(fuzz_texts.check_config, 1000, TEXT),
    "yaml": Kind(fuzz_texts.check_yaml, 500, TEXT),
    "adapter": Kind(fuzz_files.check_adapter, 1250, fuzz_files.PER_JOB),
    "scores": Kind(fuzz_files.check_scores, 1250, fuzz_files.PER_JOB),
    "metrics": Kind(fuzz_files.check_metrics, 250, fuzz_files.PER_JOB),
    "index": Kind(fuzz_files.check_index, 500, fuzz_files.PER_JOB),
    "packed": Kind(fuzz_files.check_packed, 500, fuzz_files.PER_JOB),
    "video": Kind(fuzz_videos.check_video, 2000),
}
