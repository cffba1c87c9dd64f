"""`--profile` says where the time of a step goes, in the loop of a real run; it trains nothing."""

from __future__ import annotations

import gzip
import json
import re
import time

import pytest
import torch

from vidadapt.training.profiling import (
    TRACED,
    WAIT,
    WARM_UP,
    ProfileDone,
    Repeated,
    StepProfiler,
    table,
)

PHASES = [WAIT, "copy", "forward", "backward", "exchange", "optimiser"]


def test_a_profile_is_told_and_traced_and_leaves_the_folder_free(
    tiny_set, run_tool, tmp_path, capsys
):
    run = tmp_path / "run"
    options = tiny_set.options(
        train__precision="bf16", train__batch_size=2, train__accumulation=2, train__clip_grad=1.0
    )
    run_tool("train", *options, "--run_dir", run, "--profile", 4)
    printed = capsys.readouterr().out
    rows = dict(re.findall(r"^([a-z ]+?) +(-?[\d.]+) +-?[\d.]+$", printed, re.MULTILINE))
    assert list(rows) == [*PHASES, "other", "step"]
    times = {name: float(value) for name, value in rows.items()}
    assert sum(times.values()) == pytest.approx(2 * times["step"], abs=0.5)
    assert "steps timed: 4" in printed and str(run / "profile" / "trace.json.gz") in printed

    assert [path.name for path in run.iterdir()] == ["profile"]
    names = sorted(path.name for path in (run / "profile").iterdir())
    assert names == ["profile.json", "trace.json.gz"]
    written = json.loads((run / "profile" / "profile.json").read_text())
    assert {name: f"{1000 * value:.1f}" for name, value in written["seconds"].items()} == rows
    clips = written["clips_per_second"] * written["seconds"]["step"]
    assert written["steps"] == 4 and clips == pytest.approx(4)
    with gzip.open(run / "profile" / "trace.json.gz") as file:
        names = [event.get("name") for event in json.load(file)["traceEvents"]]
    for phase in ("forward", "backward"):
        assert names.count(phase) >= 2 * TRACED
    assert names.count("optimiser") == TRACED

    run_tool("train", *options, "--run_dir", run)
    assert (run / "last" / "adapter.safetensors").is_file()
    before = {path: path.read_bytes() for path in (run / "last").iterdir()}
    run_tool("train", *options, "--run_dir", run, "--profile", 1)
    assert {path: path.read_bytes() for path in (run / "last").iterdir()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--profile", 0), "--profile: .* got 0"),
        (("--profile", 5, "--resume"), "leave one out"),
    ],
)
def test_what_cannot_be_profiled_is_told(tiny_set, run_tool, tmp_path, words, message):
    with pytest.raises(ValueError, match=message):
        run_tool("train", *tiny_set.options(), "--run_dir", tmp_path / "run", *words)
    assert not (tmp_path / "run").exists()


def test_time_is_put_down_to_the_phase_that_takes_it():
    """Warm-up and traced steps, which are slower here, count for nothing."""
    profiler = StepProfiler(3, 2, torch.device("cpu"), None)
    assert profiler.batches == (WARM_UP + 3 + TRACED) * 2
    done = 0

    def step(batch: int) -> None:
        timed = WARM_UP * 2 <= batch < (WARM_UP + 3) * 2
        with profiler.phase(WAIT):
            time.sleep(0.004 if timed else 0.02)
        with profiler.phase("forward"):
            time.sleep(0.008 if timed else 0.02)
        time.sleep(0.002)

    with pytest.raises(ProfileDone):
        for batch in range(100):
            step(batch)
            done += 1
    assert done == profiler.batches
    seconds = profiler.seconds()
    assert list(seconds) == [WAIT, "forward", "other", "step"]
    assert seconds[WAIT] >= 0.008 and seconds["forward"] >= 0.016 and seconds["other"] >= 0.004
    assert seconds["step"] == pytest.approx(sum(seconds.values()) - seconds["step"])
    assert table(seconds)[-1].endswith(" 100.0")


def test_a_short_loader_begins_again():
    class Loader:
        batch_sampler = "its own"

        def __iter__(self):
            return iter("abc")

    repeated = Repeated(Loader(), 7)
    assert len(repeated) == 7 and repeated.batch_sampler == "its own"
    batches = iter(repeated)
    assert "".join(next(batches) for _ in range(7)) == "abcabca"
