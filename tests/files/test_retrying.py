"""Reads that fail for a moment are served, those that fail for good cost little."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
from conftest import ALONE, load_tool

from vidadapt.files.retrying import Patience
from vidadapt.lists import CountJob, count_file, look_at
from vidadapt.runs import checkpoints


def failing(times: int, error: Exception) -> tuple[Callable[[], str], list[int]]:
    """A read that fails so many times, and how often it was called."""
    calls: list[int] = []

    def read() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "served"

    return read, calls


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EAGAIN])
def test_a_moment_is_waited_for(number):
    patience = Patience(0.02)
    read, calls = failing(3, OSError(number, "for a moment"))
    assert patience.call(read) == "served"
    assert len(calls) == 4 and len(patience.again) == 3
    assert patience.call(read) == "served" and patience.again == []


@pytest.mark.parametrize("error", [FileNotFoundError(2, "gone"), PermissionError(13, "no")])
def test_what_lasts_is_told_at_once(error):
    read, calls = failing(1, error)
    with pytest.raises(type(error)):
        Patience().call(read)
    assert len(calls) == 1


def test_a_disk_that_is_gone_costs_little_for_each_file(monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    patience = Patience(10.0)
    for _ in range(1000):
        read, calls = failing(100, OSError(errno.EIO, "gone"))
        with pytest.raises(OSError, match="gone"):
            patience.call(read)
        assert len(calls) == 6
    assert sum(waited) < 2 * 10.0 + 1e-6


class Opening:
    """PyAV's `open`, whose first two calls for a video meet what `fault` does."""

    def __init__(self, fault: Callable[[str], None]) -> None:
        self.fault, self.calls, self.open = fault, 0, av.open

    def __call__(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls <= 2:  # read sparsely, then in sequence
            self.fault(path)
        return self.open(path, *args, **kwargs)


def stale(path: str) -> None:
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)


def moved_away(path: str) -> None:
    """The file is back a moment later."""
    if Path(path).exists():
        aside = Path(path).rename(path + ".aside")
        threading.Timer(0.3, aside.rename, [path]).start()


@pytest.fixture(scope="module")
def trained(tiny_set, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    run = tmp_path_factory.mktemp("trained") / "run"
    options = tiny_set.options(train__epochs=1, data__dev_list=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["tools/train.py", *options, "--run_dir", str(run)])
        load_tool("train").main(ALONE)
    return run, json.loads((run / "summary.json").read_text())


@pytest.mark.parametrize("fault", [stale, moved_away])
def test_an_evaluation_and_a_training_lose_no_video_to_a_moment(
    trained, tiny_set, run_tool, tmp_path, monkeypatch, fault
):
    """The same figures as of an undisturbed run, and the summary says what was met."""
    run, summary = trained
    assert summary["tried_again"] == []
    run_tool("evaluate", "--run_dir", run, "--out", tmp_path / "whole")
    monkeypatch.setattr(av, "open", Opening(fault))
    run_tool("evaluate", "--run_dir", run, "--out", tmp_path / "out")
    whole, found = (
        json.loads((tmp_path / out / "metrics.json").read_text()) for out in ("whole", "out")
    )
    assert found["unreadable"] == [] and found["top1"] == whole["top1"]
    assert any("1 reads were tried again" in line for line in found["warnings"])
    assert whole["warnings"] == []
    monkeypatch.setattr(av, "open", Opening(fault))
    options = tiny_set.options(train__epochs=1, data__dev_list=None)
    run_tool("train", *options, "--run_dir", tmp_path / "run")
    again = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert len(again["tried_again"]) == 1 and again["skipped"] == 0
    assert again["last"]["train_loss"] == summary["last"]["train_loss"]


def test_counting_and_stat_wait_a_moment(tiny_set, monkeypatch):
    file = sorted(tiny_set.root.glob("*.mp4"))[0]
    facts = file.stat()
    opening = Opening(stale)
    opening.calls = 1  # one fault is left
    monkeypatch.setattr(av, "open", opening)
    found = count_file(CountJob(str(file), file.name, "auto", facts.st_size, facts.st_mtime_ns))
    assert (found.error, found.num_frames) == ("", 12) and opening.calls > 2
    looked_at, calls = os.stat, []

    def stat(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        if str(path) == str(file) and not calls:
            calls.append(path)
            stale(str(path))
        return looked_at(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", stat)
    files = look_at(tiny_set.root, [file.name, "gone.mp4"], {})
    assert files.sizes.tolist() == [facts.st_size, -1] and list(files.causes) == [1]
    assert calls


def test_a_moment_sets_no_whole_checkpoint_aside(trained, monkeypatch):
    run, _ = trained
    opened, calls = Path.open, []

    def open_(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == checkpoints.TRAINER and not calls:
            calls.append(path)
            stale(str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_)
    assert checkpoints.find_checkpoint(run / "last", to_resume=True) == run / "last"
    assert calls
