"""Other people's clips and known faults: every frame, in the patterns of the fuzz run."""

import pytest
from fuzz_videos import read_in_patterns
from seed_videos import shared_files

pytestmark = pytest.mark.slow  # whole runs, or files that take long


@pytest.mark.parametrize("file", shared_files(), ids=lambda file: file.name)
def test_every_frame_of_other_peoples_clips_is_exact(file):
    read_in_patterns(file, "auto", 0, most_pixels=1 << 40)
