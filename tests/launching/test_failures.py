"""How tools end: kinds of failure by type, exit status and `failure.json`."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import sys

import pytest
import torch
import warm
from conftest import ALONE, ROOT, launch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vidadapt import launching
from vidadapt.config import ConfigError
from vidadapt.data.skips import TooManySkipped
from vidadapt.distributed import PeerError, Stopped, together
from vidadapt.files.locks import Held
from vidadapt.files.writing import WriteError
from vidadapt.launching.failures import KINDS, kind_of, read_failure, recorded
from vidadapt.lists import frame_counts
from vidadapt.models.precision import NonFinite
from vidadapt.processes import LostProcess
from vidadapt.runs import RunError
from vidadapt.training.log import open_board
from vidadapt.training.state import Progress
from vidadapt.video import ReadError, TransientReadError, check_reader
from vidadapt.video.seekers import load_torchcodec

ERRORS = {
    "usage": [ConfigError("x"), RunError("x"), FileNotFoundError(2, "x"), ImportError("x")],
    "data": [ReadError("x"), TransientReadError("x"), TooManySkipped("x")],
    "diverged": [NonFinite("x")],
    "lost_process": [LostProcess("x"), PeerError("x"), RuntimeError("[/gloo/pair.cc:1] closed")],
    "disk": [WriteError("x"), OSError(errno.ENOSPC, "x"), OSError(errno.EDQUOT, "x")],
    "held": [Held("x")],
    "memory": [MemoryError("x"), torch.OutOfMemoryError("x")],
    "interrupted": [KeyboardInterrupt()],
    "bug": [RuntimeError("x"), KeyError("x"), ModuleNotFoundError("x"), AssertionError()],
}


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_has_a_kind_and_a_status_of_its_own(name):
    for error in ERRORS[name]:
        assert kind_of(error).name == name, error


def test_the_documented_table_is_the_one_that_is_used():
    text = (ROOT / "docs" / "failures.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", text, flags=re.MULTILINE)
    assert {name: int(status) for status, name in rows} == {k.name: k.status for k in KINDS}
    assert len({kind.status for kind in KINDS} | {0, 1, 128 + signal.SIGTERM}) == len(KINDS) + 3


@pytest.mark.parametrize("name", ERRORS)
def test_a_tool_ends_with_the_status_of_what_it_met(name, capsys):
    for error in ERRORS[name]:

        def fail(error: BaseException = error) -> None:
            raise error

        with pytest.raises(SystemExit) as ended:
            launching.alone(fail)
        assert ended.value.code == kind_of(error).status
        assert ("Traceback" in capsys.readouterr().err) == (name == "bug")


def test_what_libraries_catch_is_not_a_stop_and_finally_blocks_run():
    seen = []
    with pytest.raises(Stopped):
        try:
            try:
                raise Stopped(signal.SIGTERM)
            except Exception:
                seen.append("swallowed")
        finally:
            seen.append("finally")
    assert seen == ["finally"]
    with pytest.raises(Stopped), together(ALONE):
        raise Stopped(signal.SIGTERM)
    assert kind_of(Stopped(signal.SIGUSR1)).status == 128 + signal.SIGUSR1


def test_the_first_failure_is_kept_until_the_next_start(tmp_path):
    run = tmp_path / "run"
    for error in (NonFinite("first"), ReadError("second")):
        with pytest.raises(type(error)), recorded(ALONE, run):
            raise error
        found = read_failure(run)
        assert found is not None and found["kind"] == kind_of(error).name
        assert found["message"] == str(error) and "Traceback" in found["traceback"]
    with pytest.raises(LostProcess), recorded(ALONE, run):
        (run / "failure.json").write_text('{"kind": "data"}')  # another process was faster
        raise LostProcess("x")
    assert read_failure(run) == {"kind": "data"}
    with recorded(ALONE, run):
        pass
    assert [*run.iterdir()] == []


def test_a_reader_that_is_not_installed_is_one_line(monkeypatch, capsys):
    load_torchcodec.cache_clear()
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(SystemExit) as ended:
        launching.alone(lambda: check_reader("torchcodec"))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "vidadapt[torchcodec]" in said


@pytest.mark.slow
def test_a_training_that_fails_says_so_in_its_folder(tiny_set, tmp_path):
    """A loss that is not finite; then the same folder, resumed with a rate that works."""
    run = tmp_path / "run"
    options = tiny_set.options(train__checkpoint_steps=1)
    done = launch("train", *options, "--run_dir", run, "--train.base_lr", 1e30, check=False)
    assert done.returncode == 4, done.stderr
    found = read_failure(run)
    assert found is not None
    assert (found["kind"], found["status"], found["rank"]) == ("diverged", 4, 0)
    assert found["epoch"] == 1 and found["step"] >= 1
    assert found["message"] in done.stderr and "Traceback" not in done.stderr


def test_a_step_of_half_precision_without_a_clip_is_said(tiny_set, run_tool, tmp_path):
    """The file breaks after its frames were counted, and is the only one of its batch."""
    root = tmp_path / "videos"
    shutil.copytree(tiny_set.root, root)
    name = "train 3 [x]#.mp4"
    frame_counts(root / "train.txt", root, [name])
    facts = (root / name).stat()
    (root / name).write_bytes(bytes(facts.st_size))
    os.utime(root / name, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    options = tiny_set.options(
        data__root=root, data__train_list=root / "train.txt", data__max_skipped=3,
        data__dev_list=None, data__test_list=None, model__head="linear", train__batch_size=1,
        train__precision="fp16",
    )  # fmt: skip
    with pytest.raises(ReadError, match="every clip of step"):
        run_tool("train", *options, "--run_dir", tmp_path / "run")


def test_what_a_training_that_fails_has_drawn_is_in_tensorboard(tmp_path):
    with pytest.raises(NonFinite), open_board(tmp_path, Progress(), ALONE) as board:
        assert board is not None
        board.add_scalar("loss", 0.5, 7)
        raise NonFinite("x")
    drawn = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(one.step, one.value) for one in drawn.Scalars("loss")] == [(7, 0.5)]


@pytest.mark.slow
def test_under_torchrun_the_last_line_helps(tiny_set, tmp_path):
    """It is the error's own; failure.json tells the kind, as torchrun's status is 1."""
    run = tmp_path / "run"
    options = tiny_set.options(data__max_unreadable=0)
    broken = tmp_path / "train.txt"
    broken.write_text(tiny_set.lists["train"].read_text() + "labels.txt 0\n")
    options += ["--data.train_list", str(broken), "--run_dir", str(run)]
    done = launch("train", *options, processes=2, check=False)
    assert done.returncode == 1
    found = read_failure(run)
    assert found is not None and found["kind"] == "data" and "labels.txt" in found["message"]
    last = [line for line in done.stderr.splitlines() if line.strip(" =")][-1]
    assert last.strip() in found["message"]


def test_a_crash_in_native_code_names_the_calls(tmp_path):
    script = tmp_path / "crash.py"
    script.write_text(
        "import os, signal\n"
        "from vidadapt import launching\n"
        "def crashing(world):\n    os.kill(os.getpid(), signal.SIGSEGV)\n"
        "launching.launch(crashing)\n"
    )
    done = warm.run(script)
    assert done.returncode == -signal.SIGSEGV
    assert "Segmentation fault" in done.stderr and "in crashing" in done.stderr
