"""The bounded part of fuzz_run.py: a few hundred inputs of a fixed seed."""

import os

import container_damage
import fuzz_videos
import numpy as np
import pytest
import stream_damage
from fuzz_attempts import RIGHT, Defect, Job, Tally, attempt, campaign, judged
from fuzz_kinds import KINDS
from fuzz_videos import Case, made, patterns, read_in_patterns, slow_decode
from seed_videos import RECIPES, SHARED, seeds, shared_files

JOBS = {"list": 4, "names": 2, "video": 80}  # of the others one each
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir() and "VIDADAPT_NEED_CLIPS" not in os.environ,
    reason="the clips are third-party files that lie beside the repository",
)


def test_no_input_does_worse_than_a_documented_error():
    jobs = [Job(name, 0, number) for name in KINDS for number in range(JOBS.get(name, 1))]
    found = {name: Tally() for name in KINDS}
    for job, tally in campaign(jobs, 1):
        found[job.kind].add(tally)
        assert not tally.defects, tally.defects[0]
    for name, tally in found.items():
        assert tally.outcomes.total() == KINDS[name].per_job * JOBS.get(name, 1)
        assert len(tally.outcomes) > 1, f"{name}: every input is {tally.outcomes}"
    videos = found["video"].outcomes
    assert videos[RIGHT] >= 0.6 * videos.total(), f"the damage is too much: {videos}"


@needs_shared
@pytest.mark.parametrize("file", shared_files(), ids=lambda file: file.name)
def test_every_frame_of_other_peoples_clips_is_exact(file):
    read_in_patterns(file, "auto", 0, most_pixels=1 << 40)


@pytest.mark.parametrize("name", fuzz_videos.SHARES)
def test_each_damage_changes_videos_most_of_which_still_decode(tmp_path, name):
    changed = decodable = 0
    for place, seed in enumerate(seeds()[: len(RECIPES)]):
        ending, data = made(Case(place, ((name, place),), "auto", 0))
        if data != seed.data:
            (tmp_path / f"v.{ending}").write_bytes(data)
            changed, decodable = (
                changed + 1,
                decodable + bool(slow_decode(tmp_path / f"v.{ending}")),
            )
    assert changed >= 3 and decodable > changed / 2


def test_every_damage_is_drawn():
    assert {*stream_damage.DAMAGES, *container_damage.DAMAGES} == set(fuzz_videos.SHARES)


def test_a_file_is_read_in_many_patterns_that_meet_every_frame():
    drawn = list(patterns(np.random.default_rng(0), 9, 60))
    assert len(drawn) == 60 and {index for wanted in drawn for index in wanted} == set(range(9))


def test_a_wrong_frame_is_found_and_its_case_made_small(monkeypatch):
    right = fuzz_videos.slow_decode

    def exchanged(path):
        frames = right(path)
        if len(frames) > 4:
            frames[3], frames[4] = frames[4], frames[3]
        return frames

    monkeypatch.setattr(fuzz_videos, "slow_decode", exchanged)
    numbers = (n for n in range(99) if len(fuzz_videos.drawn(Job("video", 1, n).rng()).damages) > 1)
    defects = [d for number in numbers for d in attempt(Job("video", 1, number)).defects][:1]
    assert "WrongFrame" in defects[0]
    assert "packets 5\n" in defects[0] and "damages ()" in defects[0]
    assert "pattern (3,)" in defects[0] or "pattern (4,)" in defects[0]


def test_the_same_job_has_the_same_outcome():
    job = Job("scores", 3, 0)
    assert attempt(job).outcomes == attempt(job).outcomes != attempt(Job("scores", 4, 0)).outcomes
    video = fuzz_videos.drawn(Job("video", 3, 5).rng())
    assert made(video) == made(fuzz_videos.drawn(Job("video", 3, 5).rng()))


def test_what_is_not_documented_is_a_defect():
    def fails(error):
        raise error

    assert judged(lambda: 5, (ValueError,)) == ("right", 5)
    assert (
        judged(lambda: fails(ValueError("a.txt: bad")), (ValueError,), "a.txt")[0] == "ValueError"
    )
    for error in (
        ValueError(""),
        ValueError("b.txt"),
        ValueError("a.txt \x1b"),
        UnicodeError("a.txt"),
    ):
        with pytest.raises(Defect):
            judged(lambda error=error: fails(error), (ValueError,), "a.txt")
    with pytest.raises(KeyError):
        judged(lambda: fails(KeyError("a.txt")), (ValueError,), "a.txt")
    assert attempt(Job("no such kind", 0, 0)).defects
