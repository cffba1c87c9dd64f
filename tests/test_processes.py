"""What is left of a call that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, processes_with


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_loader_processes_end_with_a_killed_training(tiny_set, tmp_path, end):
    variable = "VIDADAPT_KILLED"
    mark = f"{variable}={os.getpid()}_{end}"
    run_dir = tmp_path / "run"
    words = tiny_set.options(data__num_workers=2, train__epochs=1000)
    with subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "train.py"), "--run_dir", str(run_dir), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", variable: mark.partition("=")[2]},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as child:
        deadline = time.monotonic() + 120
        while not (run_dir / "log.jsonl").exists():
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        assert len(processes_with(mark)) >= 3
        child.send_signal(end)
    deadline = time.monotonic() + 30
    while processes_with(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_with(mark) == []
