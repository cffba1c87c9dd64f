"""One holder at a time, whatever becomes of it, on one machine and on a disk that several share."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vidadapt.files import locks
from vidadapt.files.holders import Holder, this_process
from vidadapt.files.locks import Held, Pace, held, lock_file
from vidadapt.files.writing import WriteError

QUICK = Pace(renewal=0.05, looks=8)


def elsewhere(name: str) -> Holder:
    """This process as another machine would show it."""
    return replace(this_process(), host=name, machine=f"boot of {name}")


def holding(path: Path, then: Callable[[], None] = signal.pause) -> int:
    """A child that holds a lock and waits to be killed."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        held(path, "out")
        os.write(told, b"1")
        then()
        os._exit(0)
    os.close(told)
    assert os.read(ready, 1) == b"1"
    os.close(ready)
    return child


@pytest.mark.parametrize(("tasks", "torchrun", "hint"), [("2", 0, 1), ("2", 1, 0), ("1", 0, 0)])
def test_tasks_of_srun_that_are_not_together_are_told_how(
    tmp_path, monkeypatch, tasks: str, torchrun: int, hint: int
):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", tasks)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if torchrun:
        monkeypatch.setenv("WORLD_SIZE", "2")
    child = holding(tmp_path)
    try:
        with pytest.raises(Held) as refused:
            held(tmp_path, "run_dir")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ("torchrun" in str(refused.value)) == bool(hint)


def test_the_second_is_refused_with_the_name_of_the_first_and_nothing_is_left(tmp_path):
    for path in (tmp_path, tmp_path / "train.index"):
        with held(path, "data.index_dir"):
            with pytest.raises(Held) as refused, held(path, "data.index_dir"):
                pass
            said = str(refused.value)
            assert said.startswith("data.index_dir: ")
            for word in (path, this_process().host, os.getpid(), sys.argv[0][:100]):
                assert str(word) in said
            assert len(said.splitlines()) == 1
        with held(path, "data.index_dir"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_process_holds_its_lock_and_a_killed_one_does_not(tmp_path):
    child = holding(tmp_path)
    os.kill(child, signal.SIGSTOP)
    with pytest.raises(Held, match=str(child)), held(tmp_path, "out"):
        pass
    os.kill(child, signal.SIGKILL)
    while Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    with held(tmp_path, "out"):  # nobody has waited for the dead one yet
        pass
    os.waitpid(child, 0)
    child = holding(tmp_path, then=lambda: None)  # ends by os._exit
    os.waitpid(child, 0)
    with held(tmp_path, "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_another_process_has_got_is_not_the_holder(tmp_path):
    earlier = replace(this_process(), started=this_process().started - 1)
    held(tmp_path, "out", here=earlier)._over.set()
    with held(tmp_path, "out") as lock:
        lock.check()


def test_children_neither_keep_a_lock_nor_give_it_back(tmp_path):
    """Forks and programs that outlive their parent, as workers of a loader do."""
    script = (
        "import os, subprocess, sys, time\n"
        "from pathlib import Path\n"
        "from vidadapt.files.locks import held\n"
        "lock = held(Path(sys.argv[1]), 'out')\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    lock.release()\n"
        "    time.sleep(60)\n"
        "program = subprocess.Popen(['sleep', '60'], close_fds=False, stdout=subprocess.DEVNULL)\n"
        "print(child, program.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    children = [int(number) for number in parent.stdout.readline().split()]
    try:
        time.sleep(0.2)
        with pytest.raises(Held), held(tmp_path, "out"):
            pass
        parent.kill()
        parent.wait()
        assert all(Path(f"/proc/{child}").exists() for child in children)
        with held(tmp_path, "out"):
            pass
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        parent.stdout.close()


def test_one_who_waits_gets_it_after_the_first(tmp_path, capsys):
    child = holding(tmp_path, then=lambda: time.sleep(0.3))
    with held(tmp_path, "out", wait=60):
        pass
    os.waitpid(child, 0)
    assert str(child) in capsys.readouterr().out


@pytest.mark.parametrize("links", [True, False])
def test_of_many_processes_one_takes_over_what_a_dead_one_left(tmp_path, monkeypatch, links):
    """And with a dead one that was taking over; on a disk without hard links, too."""
    if not links:

        def refused(*arguments: object) -> None:
            raise PermissionError(1, "no links here")

        monkeypatch.setattr(os, "link", refused)
    for number in range(6):
        folder = tmp_path / str(number)
        folder.mkdir()
        for file in (".lock", ".lock.takeover")[: 1 + number % 2]:
            child = holding(folder)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            (folder / ".lock").rename(folder / f"kept{file}")
        for kept in folder.glob("kept*"):
            kept.rename(folder / kept.name.removeprefix("kept"))
        start, go = os.pipe()
        children = []
        for _ in range(12):
            children.append(os.fork())
            if children[-1] == 0:
                os.close(go)
                os.read(start, 1)
                try:
                    held(folder, "out")
                except Held:
                    os._exit(3)
                except BaseException:
                    os._exit(4)
                signal.alarm(60)
                signal.pause()
        os.close(start)
        os.close(go)
        ended = dict(os.wait() for _ in range(11))
        [winner] = set(children) - set(ended)
        assert {os.waitstatus_to_exitcode(status) for status in ended.values()} == {3}
        assert [path.name for path in folder.iterdir()] == [".lock"]
        assert json.loads((folder / ".lock").read_text())["process"] == winner
        os.kill(winner, signal.SIGKILL)
        os.waitpid(winner, 0)


def test_on_another_machine_a_lock_that_is_renewed_is_respected(tmp_path, capsys):
    with held(tmp_path, "out", pace=QUICK, here=elsewhere("first")) as lock:
        for _ in range(3):
            with (
                pytest.raises(Held, match="on first"),
                held(tmp_path, "out", pace=QUICK, here=elsewhere("second")),
            ):
                pass
        lock.check()
    with held(tmp_path, "out", pace=QUICK, here=elsewhere("second")):
        pass


def test_on_another_machine_a_lock_that_is_not_renewed_is_taken_over_and_missed(tmp_path, capsys):
    cut_off = held(tmp_path, "out", pace=replace(QUICK, renewal=3600), here=elsewhere("first"))
    got = []

    def second(name: str) -> None:
        try:
            got.append(held(tmp_path, "out", pace=QUICK, here=elsewhere(name)))
        except Held as error:
            got.append(error)

    threads = [threading.Thread(target=second, args=(f"m{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [lock] = [one for one in got if not isinstance(one, Held)]
    assert capsys.readouterr().out.count("on first") == 4
    lock.check()
    with pytest.raises(Held, match=lock.holder.host):
        cut_off.check()
    cut_off.release()  # which takes nothing from the one who has it
    lock.check()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_deleted_by_hand_is_taken_back(tmp_path):
    with held(tmp_path, "out", pace=QUICK) as lock:
        (tmp_path / ".lock").unlink()
        while not (tmp_path / ".lock").exists():
            time.sleep(0.01)
        with pytest.raises(Held), held(tmp_path, "out"):
            pass
        lock.check()
    time.sleep(3 * QUICK.renewal)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[" * 10_000,
        lambda text: "null",
        lambda text: json.dumps({**json.loads(text), "process": -1}),
        lambda text: json.dumps({**json.loads(text), "process": "1"}),
        lambda text: json.dumps({**json.loads(text), "more": 1}),
    ],
)
def test_a_lock_file_that_says_nothing_is_watched_and_then_taken_over(tmp_path, capsys, change):
    with held(tmp_path, "out"):
        text = (tmp_path / ".lock").read_text()
    (tmp_path / ".lock").write_text(change(text))
    with held(tmp_path, "out", pace=QUICK):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_copy_of_a_folder_in_use_is_not_in_use(tmp_path):
    (tmp_path / "one").mkdir()
    with held(tmp_path / "one", "out"):
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        with held(tmp_path / "two", "out", pace=QUICK) as lock:
            lock.check()


def test_what_a_lock_file_says_cannot_move_the_cursor(tmp_path):
    named = replace(this_process(), command="\x1b[2J\n" + 1000 * "x")
    with held(tmp_path, "out", here=named), pytest.raises(Held) as refused, held(tmp_path, "out"):
        pass
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 700


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    with pytest.raises(OSError, match="missing") as error, held(tmp_path / "missing/x", "out"):
        pass
    assert not isinstance(error.value, Held)
    assert lock_file(tmp_path / "missing/x").parent == tmp_path / "missing"
    assert locks.LOCK == ".lock"


@pytest.mark.parametrize("room", [0, 100])
def test_a_full_disk_is_named_and_no_half_of_a_lock_stays(tmp_path, room):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(WriteError) as refused, held(tmp_path, "run_dir"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(tmp_path / ".lock") in str(refused.value)
    assert [*tmp_path.iterdir()] == []
