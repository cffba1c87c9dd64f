"""The bounded part of fuzz_run.py: a few hundred inputs of a fixed seed."""

import pytest
from fuzz_attempts import Defect, Job, Tally, attempt, campaign, judged
from fuzz_kinds import KINDS

JOBS = {"list": 4, "names": 2, "video": 25}  # of the others one each


def test_no_input_does_worse_than_a_documented_error():
    jobs = [Job(name, 0, number) for name in KINDS for number in range(JOBS.get(name, 1))]
    found = {name: Tally() for name in KINDS}
    for job, tally in campaign(jobs, 1):
        found[job.kind].outcomes.update(tally.outcomes)
        assert not tally.defects, tally.defects[0]
    for name, tally in found.items():
        assert tally.outcomes.total() == KINDS[name].per_job * JOBS.get(name, 1)
        assert len(tally.outcomes) > 1, f"{name}: every input is {tally.outcomes}"


def test_the_same_job_has_the_same_outcome():
    job = Job("scores", 3, 0)
    assert attempt(job).outcomes == attempt(job).outcomes != attempt(Job("scores", 4, 0)).outcomes


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
