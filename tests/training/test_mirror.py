"""vidadapt train --mirror: a run's copy in a store, from which it goes on with the same bits."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import warm
from conftest import ALONE, TinySet, launch, load_tool
from object_store import SECRET, forget
from safetensors.torch import load_file

from benchmarks.store_server import Store
from vidadapt.config import ConfigError
from vidadapt.runs import RunError, adapters, checkpoints, mirror

URL = "s3://bucket/runs/a"


@pytest.fixture(autouse=True)
def quick(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "LOOK", 0.02)


@pytest.fixture
def options(tiny_set: TinySet) -> list[str]:
    """A run of 3 epochs with 3 steps each, with an average of the weights and a best epoch."""
    return tiny_set.options(
        train__epochs=3,
        train__ema=0.9,
        model__head="linear",
        train__checkpoint_steps=1,
        train__keep_checkpoints=20,
    )


Train = Callable[..., int]


@pytest.fixture
def train(options: list[str], monkeypatch: pytest.MonkeyPatch) -> Train:
    """Train in a folder, in this process; return the exit status."""

    def run(folder: Path, *more: object) -> int:
        words = ["tools/train.py", *options, "--run_dir", str(folder), *map(str, more)]
        monkeypatch.setattr(sys, "argv", words)
        return load_tool("train").main(ALONE) or 0

    return run


@pytest.fixture
def whole(train: Train, tmp_path: Path) -> Path:
    """A run that nothing interrupts, without a mirror."""
    assert train(tmp_path / "whole") == 0
    return tmp_path / "whole"


def outcome(run: Path) -> tuple[object, ...]:
    """What must not depend on interruptions: weights, best epoch, and the log but for times."""
    tensors = [load_file(run / name / checkpoints.TENSORS) for name in ("last", "best")]
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    kept = ("epoch", "step", "loss", "lr", "train_loss", "dev_top1", "dev_loss")
    return (
        [{name: tensor.tolist() for name, tensor in one.items()} for one in tensors],
        json.loads((run / "summary.json").read_text())["best"],
        [[line.get(key) for key in kept] for line in (*log, *steps)],
    )


def after_steps(whole: Path, steps: int, to: Path) -> Path:
    """The run as it was after so many of its 9 steps, as if it had been killed then."""
    found = sorted(whole.glob("last*"), key=lambda path: path.name)
    by_steps = {checkpoints.load_trainer(path)["progress"]["steps"]: path for path in found}
    to.mkdir()
    for name in ("config.yaml", "environment.json"):
        shutil.copy(whole / name, to / name)
    shutil.copytree(by_steps[steps], to / "last")
    for log in ("log.jsonl", "steps.jsonl"):
        lines = (whole / log).read_text().splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line)["epoch"] <= steps // 3]
        (to / log).write_text("".join(kept))
    if steps >= 3:
        shutil.copytree(whole / "best", to / "best")
    return to


@contextmanager
def begun(folder: Path, resume: bool = False) -> Iterator[mirror.Mirror]:
    """A mirror that uploads when it is told to."""
    with ExitStack() as stack:
        yield mirror._begun(folder, URL, resume, stack)


def secrets_in(folder: Path) -> bool:
    return any(SECRET.encode() in file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_the_mirror_of_a_run_is_its_folder_and_goes_on_elsewhere(
    train: Train, whole: Path, store: Store, tmp_path: Path, capsys
) -> None:
    assert train(tmp_path / "first", "--mirror", URL) == 0
    home = store.folder / "bucket" / "runs" / "a"
    for name in ("last", "best"):
        pointer = json.loads((home / f"{name}.json").read_text())
        assert checkpoints.damage(home / pointer["folder"], to_resume=name == "last") is None
        own = tmp_path / "first" / name
        for file in own.iterdir():
            assert (home / pointer["folder"] / file.name).read_bytes() == file.read_bytes()
        kept = {path.name for path in home.glob(f"{name}-*") if any(path.iterdir())}
        assert kept == {pointer["folder"], *pointer["before"]}
    for name in ("config.yaml", "log.jsonl", "steps.jsonl", "summary.json", "report.html"):
        assert (home / name).read_bytes() == (tmp_path / "first" / name).read_bytes()
    assert outcome(tmp_path / "first") == outcome(whole)
    assert not secrets_in(home) and not secrets_in(tmp_path / "first")
    # A run that has come to its end is fetched, and nothing is left to do.
    assert train(tmp_path / "second", "--mirror", URL, "--resume") == 0
    assert outcome(tmp_path / "second") == outcome(whole)
    # And the copy is a run like any other.
    fetched = adapters.read_adapter(adapters.find_adapter(URL))
    assert fetched.folder.name == "best"
    assert (fetched.folder / checkpoints.TENSORS).read_bytes() == (
        tmp_path / "second" / "best" / checkpoints.TENSORS
    ).read_bytes()


def test_a_kill_at_any_object_leaves_a_whole_checkpoint(
    train: Train, whole: Path, store: Store, tmp_path: Path
) -> None:
    """After 4 steps were copied, the copying of 7 ends after any number of objects."""
    home = store.folder / "bucket" / "runs" / "a"
    earlier, later = (after_steps(whole, n, tmp_path / f"after{n}") for n in (4, 7))
    with begun(earlier) as one:
        mirror.send(one)
        assert not one.problem
    before = shutil.copytree(home, tmp_path / "before")
    found = []
    for number in range(40):
        shutil.rmtree(home)
        shutil.copytree(before, home)
        run = shutil.copytree(later, tmp_path / f"run{number}")
        shutil.copy(earlier / "mirror.json", run / "mirror.json")
        forget()
        store.left = number + 1  # the claim is the first
        with begun(run, resume=True) as one:
            mirror.send(one)
            done = not one.problem
        store.left = None
        forget()
        elsewhere = tmp_path / f"elsewhere{number}"
        with begun(elsewhere, resume=True):
            pass
        assert checkpoints.damage(elsewhere / "last", to_resume=True) is None
        assert checkpoints.damage(elsewhere / "best") is None
        steps = checkpoints.load_trainer(elsewhere / "last")["progress"]["steps"]
        found.append(steps)
        if number in (2, 5) or done:
            forget()
            assert train(elsewhere, "--mirror", URL, "--resume") == 0
            assert outcome(elsewhere) == outcome(whole)
        if done:
            break
    assert found == [4] * (len(found) - 1) + [7] and len(found) > 8


class Killed(BaseException):
    """As a kill, nothing that handles errors sees it."""


@pytest.mark.parametrize("known", [False, True])
def test_a_kill_while_a_run_is_fetched_is_made_good_by_the_next_start(
    whole: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Into an empty folder, or one that was copied to the store and has lost its checkpoints."""
    run = after_steps(whole, 7, tmp_path / "run")
    with begun(run) as one:
        mirror.send(one)
        assert not one.problem
    for number in range(40):
        forget()
        elsewhere = tmp_path / f"elsewhere{number}"
        if known:
            elsewhere.mkdir()
            shutil.copy(run / "mirror.json", elsewhere / "mirror.json")
            shutil.copy(run / "config.yaml", elsewhere / "config.yaml")
        with monkeypatch.context() as patched:
            done = kill_at_replacing(number, elsewhere, patched)
        if done:
            break
        forget()
        with begun(elsewhere, resume=True):
            pass
        for name in ("last", "best"):
            assert checkpoints.damage(elsewhere / name, to_resume=name == "last") is None
        assert not (elsewhere / mirror.FETCHED).exists()
        shutil.copy(elsewhere / "mirror.json", run / "mirror.json")
    assert number > 8


def kill_at_replacing(number: int, folder: Path, patched: pytest.MonkeyPatch) -> bool:
    """Fetch a run, and end before so many files of it are put in their place; whether all were."""
    left, replace, remove = number, Path.replace, shutil.rmtree

    def killed(path: Path, target: Path) -> Path:
        nonlocal left
        if mirror.FETCHED in path.parts:
            left -= 1
            if left < 0:
                patched.setattr(shutil, "rmtree", lambda *a, **k: None)  # nothing is cleaned up
                raise Killed
        return replace(path, target)

    patched.setattr(Path, "replace", killed)
    try:
        with begun(folder, resume=True):
            return True
    except Killed:
        return False
    finally:
        patched.setattr(shutil, "rmtree", remove)


@pytest.mark.slow
def test_a_killed_process_goes_on_elsewhere_with_the_same_bits(
    tiny_set: TinySet, store: Store, tmp_path: Path
) -> None:
    options = tiny_set.options(train__epochs=60, train__checkpoint_steps=3, train__base_lr=0.2)
    home = store.folder / "bucket" / "runs" / "a"

    def started(folder: str, *more: str) -> warm.Started:
        words = [*options, "--run_dir", tmp_path / folder, *more]
        return warm.start(warm.tool("train"), *words)

    assert started("whole").wait(600) == 0
    first = started("first", "--mirror", URL)
    waited(lambda: (home / "last.json").exists())
    store.hang = "trainer.pt"
    waited(lambda: store.hung > 0)
    first.send_signal(signal.SIGKILL)
    first.wait()
    store.hang = ""
    assert started("second", "--mirror", URL, "--resume").wait(600) == 0
    assert outcome(tmp_path / "second") == outcome(tmp_path / "whole")


def waited(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not until():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_checkpoints_that_are_replaced_while_files_are_listed_do_no_harm(
    whole: Path, store: Store, tmp_path: Path, monkeypatch
) -> None:
    run = after_steps(whole, 4, tmp_path / "run")
    (run / "last.5").mkdir()
    (run / "plots").mkdir()
    (run / "plots" / "curve.txt").write_text("1")
    listed = os.scandir

    def gone(folder: Any = ".") -> Any:
        if str(folder).endswith("last.5"):
            raise FileNotFoundError(2, "No such file or directory", str(folder))
        return listed(folder)

    with begun(run) as one:
        monkeypatch.setattr(os, "scandir", gone)
        mirror.send(one)
        assert not one.problem
    home = store.folder / "bucket" / "runs" / "a"
    assert json.loads((home / "last.json").read_text())["files"].count("plots/curve.txt") == 1
    assert not (home / "last.5").exists()


def test_a_store_that_is_away_for_a_while_is_tried_at_the_next_checkpoint(
    whole: Path, store: Store, tmp_path: Path, capsys
) -> None:
    run = after_steps(whole, 4, tmp_path / "run")
    with begun(run) as one:
        store.fail = 10**6
        mirror.send(one)
        assert (one.problem and "503" not in one.problem.replace("503", "", 0)) or one.problem
        assert URL in capsys.readouterr().err
        store.fail = 0
        forget()
        shutil.rmtree(run / "last")
        later = after_steps(whole, 7, tmp_path / "later")
        shutil.copytree(later / "last", run / "last")
        mirror.send(one)
        assert not one.problem
    home = store.folder / "bucket" / "runs" / "a"
    pointer = json.loads((home / "last.json").read_text())
    saved = checkpoints.load_trainer(home / pointer["folder"])
    assert saved["progress"]["steps"] == 7


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/outside.txt", "a/../../outside.txt"])
def test_names_that_lead_out_of_the_run_are_refused(
    train: Train, whole: Path, store: Store, tmp_path: Path, name: str
) -> None:
    assert train(tmp_path / "run", "--mirror", URL) == 0
    place = store.folder / "bucket" / "runs" / "a" / "last.json"
    pointer = json.loads(place.read_text())
    place.write_text(json.dumps({**pointer, "files": [*pointer["files"], name]}))
    forget()
    with pytest.raises(RunError, match=re.escape(name)):
        train(tmp_path / "other" / "run", "--mirror", URL, "--resume")
    assert not (tmp_path / "other" / "outside.txt").exists()


def test_a_store_that_is_away_at_the_end_is_status_1_and_loses_nothing(
    train: Train, whole: Path, store: Store, tmp_path: Path, capsys
) -> None:
    store.broken = "last.json"
    assert train(tmp_path / "run", "--mirror", URL) == 1
    assert outcome(tmp_path / "run") == outcome(whole)
    lines = [line for line in capsys.readouterr().err.splitlines() if "--mirror" in line]
    assert lines and "--resume" in lines[-1] and SECRET not in "".join(lines)
    store.broken = ""
    forget()
    assert train(tmp_path / "run", "--mirror", URL, "--resume") == 0
    assert train(tmp_path / "other", "--mirror", URL, "--resume") == 0
    assert outcome(tmp_path / "other") == outcome(whole)


def test_two_runs_at_one_url(whole: Path, store: Store, tmp_path: Path, train: Train) -> None:
    first = after_steps(whole, 4, tmp_path / "first")
    with begun(first) as one:
        mirror.send(one)
        with pytest.raises(RunError, match="--resume"):
            train(tmp_path / "second", "--mirror", URL)
        assert not (tmp_path / "second").exists()
        other = after_steps(whole, 7, tmp_path / "other")  # which was never copied there
        with pytest.raises(RunError, match="two runs"), begun(other, resume=True):
            pass
        # Whoever resumes takes it over; the run before it learns of that, and copies no more.
        with begun(tmp_path / "third", resume=True) as three:
            shutil.rmtree(first / "last")
            shutil.copytree(other / "last", first / "last")
            puts = len(store.puts)
            mirror.send(one)
            assert one.lost and one.problem and len(store.puts) == puts
            mirror.send(one)
            assert len(store.puts) == puts
            mirror.send(three)
            assert not three.problem
    # Where it went on elsewhere, the folder that began it takes that over when it resumes.
    with begun(first, resume=True):
        assert checkpoints.load_trainer(first / "last")["progress"]["steps"] == 4


@pytest.mark.slow
def test_two_processes_have_one_mirror(tiny_set: TinySet, tmp_path: Path) -> None:
    options = tiny_set.options(train__epochs=2, train__batch_size=2)
    there = f"file://{tmp_path / 'store' / 'a'}"
    for folder, more in (("first", ()), ("second", ("--resume",))):
        run = ("--run_dir", tmp_path / folder, "--mirror", there)
        launch("train", *options, *run, *more, processes=2)
    assert outcome(tmp_path / "first") == outcome(tmp_path / "second")
    pointer = json.loads((tmp_path / "store" / "a" / "last.json").read_text())
    home = tmp_path / "store" / "a" / pointer["folder"]
    assert checkpoints.damage(home, to_resume=True) is None


@pytest.mark.parametrize(
    "words",
    [
        ["--mirror", "https://host/runs"],
        ["--mirror", "runs/a"],
        ["--mirror", "s3://me:pass1234@bucket/runs"],
        ["--mirror", URL, "--profile", "3"],
        ["--mirror", URL, "--grid.base_lr", "[0.1,0.3]"],
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(
    train: Train, tmp_path: Path, store: Store, words: list[str]
) -> None:
    with pytest.raises((ValueError, ConfigError), match="--mirror") as told:
        train(tmp_path / "run", *words)
    assert "pass1234" not in str(told.value)
    assert not (tmp_path / "run").exists() and not store.puts


@pytest.mark.slow
def test_results_of_an_evaluation_are_copied(
    train: Train, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert train(run) == 0
    words = ["evaluate", "--run_dir", str(run), "--mirror", "s3://bucket/results"]
    monkeypatch.setattr(sys, "argv", words)
    assert not load_tool("evaluate").main(ALONE)
    [own] = run.glob("eval_*")
    for name in ("metrics.json", "scores.npz"):
        there = store.folder / "bucket" / "results" / name
        assert there.read_bytes() == (own / name).read_bytes()
    store.refuse = True
    assert load_tool("evaluate").main(ALONE) == 1


def test_results_that_are_copied_in_part_have_no_metrics_of_others(
    store: Store, tmp_path: Path
) -> None:
    out, home = tmp_path / "eval", store.folder / "bucket" / "results"
    out.mkdir()
    for content in ("earlier", "later"):
        for name in ("a.txt", "metrics.json", "scores.npz"):
            (out / name).write_text(content)
        problem = mirror.copy_results(out, "s3://bucket/results", "metrics.json")
        if content == "earlier":
            assert not problem and (home / "metrics.json").read_text() == "earlier"
            store.left = 1
            forget()
    assert problem
    assert sorted((home / one).read_text() for one in ("a.txt", "scores.npz")) == [
        "earlier",
        "later",
    ]
    assert not (home / "metrics.json").exists()
