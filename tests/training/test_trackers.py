"""Experiment trackers: what they get, that they go on, and that they never stop a run."""

from __future__ import annotations

import json
import shutil
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import ALONE, ROOT, TinySet
from test_small_data import steps_of, summary_of
from test_training import log_of

from vidadapt.config import ConfigError
from vidadapt.runs import checkpoints
from vidadapt.training import trackers
from vidadapt.training.trackers import TRACKERS, Opened, Sender, open_trackers, require_trackers


class Notebook:
    """A tracker in memory."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.ends: list[bool] = []

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self.lines.append((step, dict(figures)))

    def close(self, whole: bool) -> None:
        self.ends.append(whole)


class Broken(Notebook):
    """One whose every third call fails."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        super().log(step, figures)
        if len(self.lines) % 3 == 0:
            raise ConnectionError("no answer\x1b[2J")


@pytest.fixture
def listed(monkeypatch) -> dict[str, Any]:
    """The trackers there are: those that a test puts there."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(trackers, "TRACKERS", found)
    return found


def expected(run: Path) -> list[tuple[int, dict[str, float]]]:
    """What the logs of a run say, in the form of a tracker."""
    lines, steps = [], steps_of(run)
    for latest in map(json.loads, (run / "log.jsonl").read_text().splitlines()):
        of_epoch = [step for step in steps if step["epoch"] == latest["epoch"]]
        for step in of_epoch:
            curves = {f"train/{k}": v for k, v in step.items() if k not in ("step", "epoch")}
            lines.append((step["step"], curves))
        lines.append((of_epoch[-1]["step"], {f"epoch/{k}": v for k, v in latest.items()}))
    return lines


def test_a_tracker_gets_what_the_logs_have_and_a_resumed_run_its_key(
    tiny_set, run_tool, tmp_path, listed
):
    notebook, keys = Notebook(), []

    def opened(run_dir: Path, key: str | None, settings: Mapping[str, Any]) -> Opened:
        keys.append(key)
        assert settings["train.base_lr"] == 1.0 and settings["global_batch"] == 4
        return Opened(notebook, "my-run", "in memory")

    listed["notebook"] = opened
    options = [*tiny_set.options(), "--train.trackers", "[notebook]"]
    run = tmp_path / "run"
    run_tool("train", *options, "--run_dir", run)
    assert notebook.lines == expected(run) and notebook.ends == [True]
    assert summary_of(run)["trackers"] == {
        "notebook": {"place": "in memory", "calls": 9, "failed": 0}
    }
    run_tool("train", *options, "--run_dir", run, "--resume")
    assert keys == [None, "my-run"]


def test_a_tracker_that_fails_is_said_once_and_counted_and_the_run_is_whole(
    tiny_set, run_tool, tmp_path, listed, capsys
):
    def refused(run_dir: Path, key: str | None, settings: Mapping[str, Any]) -> Opened:
        raise PermissionError("not logged in")

    listed["broken"] = lambda *about: Opened(Broken(), "key", "nowhere")
    listed["closed"] = refused
    run = tmp_path / "run"
    options = [*tiny_set.options(), "--train.trackers", "[broken, closed]"]
    run_tool("train", *options, "--run_dir", run)
    found = summary_of(run)["trackers"]
    assert found["broken"] == {"place": "nowhere", "calls": 9, "failed": 2}
    assert found["closed"] == {"place": None, "calls": 1, "failed": 1}
    said = capsys.readouterr().out
    assert said.count("no answer") == 1 and said.count("not logged in") == 1
    assert "\x1b" not in said
    assert len(log_of(run)) == 2 and (run / "last").is_dir()


def test_a_tracker_that_hangs_is_given_up_and_its_calls_are_counted(capsys):
    released = threading.Event()

    class Hanging(Notebook):
        def log(self, step: int, figures: Mapping[str, float]) -> None:
            super().log(step, figures)
            if step == 1:
                released.wait()

    sender = Sender("slow", Opened(Hanging(), "key", "nowhere"))
    for step in range(3):
        sender.log(step, {"loss": 0.5})
    sender.close(True, patience=0.2)
    assert (sender.handed, sender.failed) == (4, 3)  # those of steps 1 and 2, and its end
    assert "slow: 3 of 4 calls failed" in capsys.readouterr().out
    released.set()


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError])
def test_a_tracker_is_told_whether_the_run_came_to_its_end(tmp_path, listed, error):
    notebook = Notebook()
    listed["notebook"] = lambda *about: Opened(notebook, "key", "in memory")
    try:
        with open_trackers(["notebook"], tmp_path, {}, ALONE) as opened:
            opened.log(0, {"loss": 1.0})
            if error:
                raise error
    except (KeyboardInterrupt, ValueError):
        assert error
    assert notebook.ends == [error is None] and notebook.lines == [(0, {"loss": 1.0})]


def test_timing_steps_opens_no_tracker(tiny_set, run_tool, tmp_path, listed):
    def opened(*about: Any) -> Opened:
        raise AssertionError

    listed["notebook"] = opened
    options = [*tiny_set.options(train__epochs=1), "--train.trackers", "[notebook]"]
    run_tool("train", *options, "--run_dir", tmp_path / "run", "--profile", 1)
    assert not [*tmp_path.rglob(trackers.FILE)]


def test_a_tracker_that_is_unknown_or_not_installed_is_refused_before_training(
    tiny_set, run_tool, tmp_path, monkeypatch
):
    options = tiny_set.options()
    with pytest.raises(ValueError, match=r"train\.trackers: 'wandv' .* wandb"):
        run_tool("train", *options, "--train.trackers", "[wandv]", "--run_dir", tmp_path / "run")
    # A folder of that name is no package.
    monkeypatch.setitem(TRACKERS, "unheard_of", TRACKERS["wandb"])
    monkeypatch.setattr(trackers, "PACKAGES", ("unheard_of",))
    (tmp_path / "unheard_of").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"train\.trackers: .*unheard_of"):
        require_trackers(["unheard_of"])
    assert not (tmp_path / "run" / "last").exists()


def test_the_tracker_of_the_documentation_keeps_lines(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "trackers.md").read_text(encoding="utf-8")
    monkeypatch.setitem(TRACKERS, "lines", None)  # what the example puts there is taken out again
    exec(page.split("```python\n")[1].split("```")[0], {})
    require_trackers(["lines"])
    with open_trackers(["lines"], tmp_path, {}, ALONE) as opened:
        opened.log(0, {"train/loss": 1.5})
        opened.log(1, {"train/loss": 0.5})
    kept = (tmp_path / "lines.txt").read_text().splitlines()
    assert kept == ["0 {'train/loss': 1.5}", "1 {'train/loss': 0.5}"]


# --- the packages themselves, offline -------------------------------------------------------------


@pytest.fixture
def no_account(monkeypatch, tmp_path) -> None:
    """No account, no server and no settings of this user."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.chdir(tmp_path)


def trained_and_resumed(tiny_set: TinySet, run_tool, run: Path, tracker: str) -> str:
    """Train two epochs, lose the second, and resume; the key of the tracker's run."""
    options = tiny_set.options(train__checkpoint_steps=1, train__keep_checkpoints=20)
    options += ["--train.trackers", f"[{tracker}]", "--run_dir", str(run)]
    run_tool("train", *options)
    first = json.loads((run / trackers.FILE).read_text())[tracker]
    for folder in run.glob("last*"):
        if checkpoints.load_trainer(folder)["progress"]["epoch"] > 1:
            shutil.rmtree(folder)
    run_tool("train", *options, "--resume")
    assert summary_of(run)["trackers"][tracker]["failed"] == 0
    assert json.loads((run / trackers.FILE).read_text())[tracker] == first
    return first


@pytest.mark.slow
def test_mlflow_keeps_the_curves_in_the_run_folder_and_goes_on(
    tiny_set, run_tool, tmp_path, no_account, capsys
):
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow, an optional extra")
    run = tmp_path / "run"
    key = trained_and_resumed(tiny_set, run_tool, run, "mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{run / 'mlflow.db'}")
    kept = client.get_run(key)
    assert kept.info.status == "FINISHED" and kept.data.params["train.base_lr"] == "1.0"
    for name in ("train/loss", "train/top1", "epoch/dev_loss", "epoch/train_top1"):
        wanted = {(step, figures[name]) for step, figures in expected(run) if name in figures}
        assert len(wanted) == (6 if name.startswith("train/") else 2)
        # What was trained twice has the same bits, and stands there twice.
        history = client.get_metric_history(key, name)
        assert {(one.step, one.value) for one in history} == wanted
    assert str(run / "mlflow.db") in capsys.readouterr().out


def histories(folder: Path) -> list[tuple[int, dict[str, Any]]]:
    """Steps and figures in wandb's file: LevelDB's log of protocol buffers."""
    from wandb.proto import wandb_internal_pb2

    [file] = folder.glob("run-*.wandb")
    content, place, joined, found = file.read_bytes(), 7, b"", []
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # no header fits into the rest of a block
            place += 32768 - place % 32768
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        joined += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(joined)
            joined = b""
            if items := record.history.item:
                names = {item.key or ".".join(item.nested_key): item.value_json for item in items}
                figures = {k: json.loads(v) for k, v in names.items() if not k.startswith("_")}
                found.append((record.history.step.num, figures))
    return found


@pytest.mark.slow
def test_wandb_keeps_the_curves_in_the_run_folder_and_goes_on(
    tiny_set, run_tool, tmp_path, no_account, capsys
):
    pytest.importorskip("wandb", reason="needs wandb, an optional extra")
    run = tmp_path / "run"
    key = trained_and_resumed(tiny_set, run_tool, run, "wandb")
    first, second = sorted((run / "wandb").glob("offline-run-*"))
    assert first.name.endswith(key) and second.name.endswith(key)
    wanted: dict[int, dict[str, float]] = {}
    for step, figures in expected(run):
        wanted.setdefault(step, {}).update(figures)
    begun = [(step, figures) for step, figures in histories(first) if step < 3]
    assert len(begun) == 3 and [*begun, *histories(second)] == [*wanted.items()]
    assert f"wandb sync {second}" in capsys.readouterr().out
