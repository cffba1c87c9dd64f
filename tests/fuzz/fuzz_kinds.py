"""KINDS: what is fuzzed, and how many inputs of it a run of 9,000 has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fuzz_files
import fuzz_flips
import fuzz_images
import fuzz_texts
import fuzz_videos
from fuzz_attempts import Job, Tally


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        check: makes the input of a job in a folder, tries it, and counts what came of it.
        share: inputs in a run of 9,000.
        per_job: inputs of one job.
    """

    check: Callable[[Job, Path, Tally], None]
    share: int
    per_job: int = 1


TEXT = fuzz_texts.EXAMPLES
KINDS = {
    "list": Kind(fuzz_texts.check_list, 500, TEXT),
    "names": Kind(fuzz_texts.check_names, 150, TEXT),
    "config": Kind(fuzz_texts.check_config, 200, TEXT),
    "yaml": Kind(fuzz_texts.check_yaml, 100, TEXT),
    "adapter": Kind(fuzz_files.check_adapter, 250, fuzz_files.PER_JOB),
    "scores": Kind(fuzz_files.check_scores, 250, fuzz_files.PER_JOB),
    "metrics": Kind(fuzz_files.check_metrics, 150, fuzz_files.PER_JOB),
    "index": Kind(fuzz_files.check_index, 200, fuzz_files.PER_JOB),
    "packed": Kind(fuzz_files.check_packed, 300, fuzz_files.PER_JOB),
    "flips": Kind(fuzz_flips.check_flips, 400, fuzz_flips.PER_JOB),
    "image": Kind(fuzz_images.check_images, 1500, fuzz_images.PER_JOB),
    "video": Kind(fuzz_videos.check_video, 5000),
}
