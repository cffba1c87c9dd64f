"""Two commands on one folder: one has it, and the other says who does, or waits."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT, run_program

from vidadapt.files.locks import Held, Pace, held, held_folder
from vidadapt.runs.checkpoints import CheckpointWriter
from vidadapt.training.state import Progress, Saving

pytestmark = pytest.mark.slow  # whole runs in processes of their own


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def held_by_another(folder: Path) -> int:
    """A process that has the folder until it is killed."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        held(folder, "another")
        os.write(told, b"1")
        signal.alarm(240)
        signal.pause()
    os.close(told)
    os.read(ready, 1)
    os.close(ready)
    return child


def test_of_two_trainings_on_one_folder_one_goes_on_with_the_bits_of_one_alone():
    run_program(str(ROOT / "tests" / "chaos" / "pairs.py"), "--pairs", "5")


@pytest.mark.parametrize("more", [(), ("--resume",), ("--profile", "5")])
def test_a_training_writes_nothing_to_a_folder_in_use(tiny_set, run_tool, tmp_path, more):
    run = tmp_path / "run"
    with held_folder(run, "run_dir"):
        (run / "log.jsonl").write_text("{}\n")
        before = content_of(run)
        with pytest.raises(Held, match=f"run_dir: .*process {os.getpid()} on "):
            run_tool("train", *tiny_set.options(), "--run_dir", run, *more)
        assert content_of(run) == before


def test_a_training_that_cannot_begin_leaves_no_folder(tiny_set, run_tool, tmp_path):
    options = tiny_set.options(data__label_names=tmp_path / "none.txt")
    with pytest.raises((ValueError, OSError), match=r"none\.txt"):
        run_tool("train", *options, "--run_dir", tmp_path / "new" / "run")
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_writes_nothing_to_a_folder_in_use(tiny_set, run_tool, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    run_tool("train", *tiny_set.options(train__epochs=1), "--run_dir", run)
    command = ("evaluate", "--run_dir", run, "--out", out)
    with held_folder(out, "--out"):
        before = content_of(out)
        with pytest.raises(Held, match=f"--out: .*process {os.getpid()} on "):
            run_tool(*command)
        assert content_of(out) == before
    run_tool(*command)
    assert {path.name for path in out.iterdir()} == {
        *("metrics.json", "scores.npz", "predictions.csv", "confusion.csv", "report.html")
    }


def test_a_second_filler_of_a_cache_waits_for_the_first(tiny_set, run_tool, tmp_path):
    folder, output = tmp_path / "cache" / "train", tmp_path / "said.txt"
    folder.mkdir(parents=True)
    child = held_by_another(folder)

    def end_the_first() -> None:
        while f"is in use by process {child} on " not in output.read_text():
            time.sleep(0.05)
        os.kill(child, signal.SIGKILL)

    options = tiny_set.options(
        train__epochs=1, method__name="linear", cache__dir=tmp_path / "cache"
    )
    with output.open("w") as file, contextlib.redirect_stdout(file):
        threading.Thread(target=end_the_first, daemon=True).start()
        run_tool("train", *options, "--run_dir", tmp_path / "run")
    os.waitpid(child, 0)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["cache"]["clips"] == 12 + 5


def test_nothing_is_saved_once_another_process_has_taken_the_folder(tmp_path):
    lock = held(tmp_path, "run_dir", pace=Pace(renewal=3600))
    record = json.loads((tmp_path / ".lock").read_text())
    (tmp_path / ".lock").write_text(json.dumps({**record, "token": "another's"}))
    with CheckpointWriter() as writer:
        saving = Saving(writer, None, tmp_path, {}, {}, keep=1, minutes=0, lock=lock)
        with pytest.raises(Held, match="taken over"):
            saving.save(({}, {}), Progress())
    lock.release()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
