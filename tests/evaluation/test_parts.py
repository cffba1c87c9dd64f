"""Evaluations that are stopped and go on."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import warm
from conftest import ALONE, launch, load_tool

from vidadapt.evaluation import PartsError, Scoring, load_scores, parts, take_up
from vidadapt.evaluation import views as evaluate
from vidadapt.evaluation.scores import Entry

PATHS = tuple(f"{number}\u200b é.mp4" for number in range(9))
JOB = Scoring({"model": "abc"}, "cpu", PATHS, (0,) * 9, 3, 2, 1)
VIEWS = ["--eval.num_clips", "2", "--eval.num_crops", "3"]

# Stops one process of tools/evaluate.py while it scores: who, before which video, and how.
STOPPED = """
import os, runpy, signal, sys
from vidadapt.evaluation import parts, views

rank, video, how = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
sys.argv = sys.argv[4:]
parts.SECONDS_BETWEEN_WRITES = 0.0
cut, calls = views.view_chunks, []

def view_chunks(item, *rest):
    calls.append(item)
    if int(os.environ.get("RANK", 0)) == rank and len(calls) > video:
        if how == "raise":
            raise RuntimeError("broken on purpose")
        os.kill(os.getpid(), getattr(signal, how))
    return cut(item, *rest)

views.view_chunks = view_chunks
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def entries(indices: list[int]) -> list[Entry]:
    """Scores of videos, every third of which could not be read."""
    return [
        (i, None, f"cut short: {i} ü")
        if i % 3 == 0
        else (i, np.random.default_rng(i).normal(size=(2, 3)).astype(np.float32), "")
        for i in indices
    ]


def as_bytes(found: list[Entry]) -> dict[int, tuple[bytes | None, str]]:
    assert len({index for index, _, _ in found}) == len(found)
    return {i: (None if v is None else v.tobytes(), error) for i, v, error in found}


def test_what_was_kept_is_found_again_once_each(tmp_path):
    folder = tmp_path / "parts"
    parts = take_up(folder, JOB, ALONE)
    assert (parts.done, parts.left, parts.warnings) == ([], list(range(9)), [])
    parts.keep(entries([0, 4]))
    parts.keep(entries([7]))
    again = take_up(folder, JOB, ALONE)
    assert as_bytes(again.done) == as_bytes(entries([0, 4, 7]))
    assert again.left == [1, 2, 3, 5, 6, 8]
    # Two of them at once, as where the first was thought to be dead: each video counts once.
    again.keep(entries([1, 2]))
    parts.keep(entries([2, 3]))
    last = take_up(folder, JOB, ALONE)
    assert as_bytes(last.done) == as_bytes(entries([0, 1, 2, 3, 4, 7]))
    last.remove()
    assert not folder.exists()


def test_a_file_that_is_cut_or_of_an_older_version_is_named_and_scored_again(tmp_path, capsys):
    folder = tmp_path / "parts"
    kept = entries([1, 3, 2, 6, 8])
    take_up(folder, JOB, ALONE).keep(kept[:2])
    [first] = folder.iterdir()
    take_up(folder, JOB, ALONE).keep(kept[2:])
    [file] = set(folder.iterdir()) - {first}
    (folder / "rank0-0.part").write_bytes(b"vidadapt-parts-1")
    content = file.read_bytes()
    capsys.readouterr()
    for length in range(0, len(content), 7):
        # As a crash of the whole machine may leave it, too: the length of the file, but zeros.
        for rest in (b"", bytes(len(content) - length)):
            if content[:length] + rest == content:  # it ends with zeros
                continue
            file.write_bytes(content[:length] + rest)
            again = take_up(folder, JOB, ALONE)
            assert as_bytes(again.done) == as_bytes(kept[:2])
            assert again.left == [0, 2, 4, 5, 6, 7, 8]
            said = capsys.readouterr().out
            for name in (file, folder / "rank0-0.part"):
                assert f"{name}: " in said
            assert said.count("; the videos in it are scored again") == 2


def test_no_flipped_bit_gives_a_wrong_score(tmp_path):
    kept = entries([1, 3, 2])
    take_up(tmp_path / "parts", JOB, ALONE).keep(kept)
    [file] = (tmp_path / "parts").iterdir()
    content, refused = file.read_bytes(), 0
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        done = take_up(tmp_path / "parts", JOB, ALONE).done
        assert not done or as_bytes(done) == as_bytes(kept)
        refused += not done
    assert refused > len(content) / 2  # the others are in what the archive says of its files


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"model": "x"}}, r"stopped; model: 'abc' there, 'x' here\."),
        ({"settings": {}}, "model: 'abc' there, None here"),
        ({"num_crops": 3}, "views: '2 clips x 1 crops' there, '2 clips x 3 crops' here"),
        ({"paths": (*PATHS, "x.mp4"), "labels": (0,) * 10}, "num_videos: 9 there, 10 here"),
    ],
)
def test_parts_of_another_evaluation_are_refused_and_left_alone(tmp_path, changes, message):
    take_up(tmp_path / "parts", JOB, ALONE).keep(entries([1]))
    with pytest.raises(PartsError, match=message):
        take_up(tmp_path / "parts", Scoring(**{**vars(JOB), **changes}), ALONE)
    assert len(take_up(tmp_path / "parts", JOB, ALONE).done) == 1


def test_scores_of_another_machine_are_taken_with_a_warning(tmp_path, capsys):
    take_up(tmp_path / "parts", JOB, ALONE).keep(entries([1, 2]))
    other = Scoring(**{**vars(JOB), "machine": "a GPU"})
    found = take_up(tmp_path / "parts", other, ALONE)
    assert as_bytes(found.done) == as_bytes(entries([1, 2]))
    [warning] = found.warnings
    assert warning.startswith("2 videos were scored on cpu before")
    assert warning in capsys.readouterr().out


RESULTS = {"metrics.json", "scores.npz", "predictions.csv", "confusion.csv", "report.html"}


def run_here(name: str, *arguments: object) -> None:
    """A tool in this process, with one thread as `launch` and torchrun have it.

    On the CPU the last bits of scores depend on the number of threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"tools/{name}.py", *map(str, arguments)])
        try:
            load_tool(name).main(ALONE)
        finally:
            torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def command(tiny_set, tmp_path_factory) -> list[object]:
    """An evaluation of a trained run, but for --out."""
    run = tmp_path_factory.mktemp("trained") / "run"
    run_here("train", *tiny_set.options(train__epochs=1), "--run_dir", run)
    return ["--run_dir", run, *VIEWS]


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory) -> Path:
    """The results of one that was left alone."""
    out = tmp_path_factory.mktemp("whole")
    run_here("evaluate", *command, "--out", out)
    return out


@pytest.fixture(scope="module")
def killed(command, tmp_path_factory) -> Path:
    """What one leaves that was killed before the fifth of seven videos."""
    out = tmp_path_factory.mktemp("killed") / "out"
    done = stop(command, out, "0", "4", "SIGKILL")
    assert done.returncode == -signal.SIGKILL
    return out


def assert_same(one: Path, other: Path) -> None:
    found = [json.loads((out / "metrics.json").read_text()) for out in (one, other)]
    for metrics in found:
        del metrics["seconds"], metrics["seconds_per_video"]
    assert found[0] == found[1]
    (first, about), (second, its_about) = (load_scores(out / "scores.npz") for out in (one, other))
    assert first.logits.tobytes() == second.logits.tobytes()
    assert (first.paths, first.errors, about) == (second.paths, second.errors, its_about)


def stop(
    command: list[object], out: Path, *how: str, script: str = STOPPED, processes: int = 1
) -> subprocess.CompletedProcess[str]:
    """Run vidadapt evaluate under a script that stops it, with the script's arguments."""
    file = out.with_suffix(".py")
    file.write_text(script)
    words = [*how, warm.tool("evaluate"), *command, "--out", out]
    done = warm.run(file, *words, processes=processes)
    assert done.returncode != 0
    assert not (out / "metrics.json").exists()
    assert any((out / "parts").iterdir())
    return done


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_evaluation_goes_on_to_the_same_bits(
    command, whole, killed, tmp_path, capsys, processes
):
    out = tmp_path / "out"
    shutil.copytree(killed, out)
    if processes == 1:
        run_here("evaluate", *command, "--out", out)
        said = capsys.readouterr().out
    else:
        said = launch("evaluate", *command, "--out", out, processes=processes).stdout
    assert f"going on with {out}/parts: 4 of 7 videos are scored" in said
    assert_same(out, whole)
    assert {path.name for path in out.iterdir()} == RESULTS


def test_a_terminated_one_too(command, whole, tmp_path, capsys):
    out = tmp_path / "out"
    assert stop(command, out, "0", "2", "SIGTERM").returncode == -signal.SIGTERM
    run_here("evaluate", *command, "--out", out)
    assert "2 of 7 videos are scored" in capsys.readouterr().out
    assert_same(out, whole)


@pytest.mark.slow
def test_one_process_goes_on_where_one_of_two_broke(command, whole, tmp_path, capsys):
    out = tmp_path / "out"
    stop(command, out, "1", "2", "raise", processes=2)
    run_here("evaluate", *command, "--out", out)
    assert " of 7 videos are scored" in capsys.readouterr().out
    assert_same(out, whole)


def test_stopped_again_and_again(command, whole, monkeypatch, tmp_path):
    """After each video, with a half-written end each time; then before the results are written."""
    out, cut = tmp_path / "out", evaluate.view_chunks
    monkeypatch.setattr(parts, "SECONDS_BETWEEN_WRITES", 0.0)
    calls: list[object] = []

    def one_video(item, *rest):
        calls.append(item)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return cut(item, *rest)

    monkeypatch.setattr(evaluate, "view_chunks", one_video)
    for _ in range(6):
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            run_here("evaluate", *command, "--out", out)
        newest = max((out / "parts").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        with newest.open("ab") as file:
            file.write(b"\x40\0\0\0half")
    monkeypatch.setattr(evaluate, "view_chunks", cut)
    (out / "scores.npz").mkdir()
    with pytest.raises(OSError, match="directory"):
        run_here("evaluate", *command, "--out", out)
    (out / "scores.npz").rmdir()

    def none(*_):
        raise AssertionError("all videos are scored")

    monkeypatch.setattr(evaluate, "view_chunks", none)
    run_here("evaluate", *command, "--out", out)
    assert_same(out, whole)
    assert {path.name for path in out.iterdir()} == RESULTS


def test_parts_of_another_precision_are_refused(command, killed):
    before = [path.read_bytes() for path in (killed / "parts").iterdir()]
    with pytest.raises(PartsError, match=r"precision: 'fp32' there, 'bf16' here\. Give the same"):
        run_here("evaluate", *command, "--train.precision", "bf16", "--out", killed)
    assert [path.read_bytes() for path in (killed / "parts").iterdir()] == before


LIMITED = """
import resource, runpy, signal, sys
from vidadapt.evaluation import parts

parts.SECONDS_BETWEEN_WRITES = 0.0
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
save_scores, calls = parts.save_scores, []

def limited(*arguments, **options):
    calls.append(arguments)
    if len(calls) > 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1100, 1100))
    save_scores(*arguments, **options)

parts.save_scores = limited
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_full_disk_is_one_error_after_which_it_goes_on(command, whole, tmp_path, capsys):
    """As far as a limit on the size of files can stand for a full disk."""
    out = tmp_path / "out"
    done = stop(command, out, script=LIMITED)
    assert done.returncode == 6
    [line] = [line for line in done.stderr.splitlines() if "error" in line]
    assert line.startswith("error: ") and f"{out}/parts" in line and "free some space" in line
    run_here("evaluate", *command, "--out", out)
    said = capsys.readouterr().out
    assert "2 of 7 videos are scored" in said
    assert "scored again" not in said  # nothing half-written is left
    assert_same(out, whole)
