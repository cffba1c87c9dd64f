"""What processes need to start, and what is left of a call that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest
from conftest import ROOT, processes_with

from vidadapt.processes import Pool, Work

COUNT = """
from vidadapt.processes import run_isolated
if __name__ == "__main__":
    print([result for _, result, _ in run_isolated(abs, [-3], 1, 60.0)])
"""

BEGUN_BEFORE = """
import sys
from vidadapt.processes import run_isolated, start_server

def has(module):
    return module in sys.modules

if __name__ == "__main__":
    start_server("sqlite3")
    print([result for _, result, _ in run_isolated(has, ["sqlite3", "wave"], 1, 60.0)])
"""


@pytest.mark.slow
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
        try:
            deadline = time.monotonic() + 120
            while not (run_dir / "log.jsonl").exists():
                assert child.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            assert len(processes_with(mark)) >= 3
            child.send_signal(end)
            child.wait(120)
        finally:
            child.kill()
    deadline = time.monotonic() + 30
    while processes_with(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_with(mark) == []


def test_a_folder_for_sockets_that_is_too_long_is_named(monkeypatch):
    with tempfile.TemporaryDirectory() as short:
        fits = Path(short) / ("x" * (75 - len(short) - 1))
        fits.mkdir()
        (fits / "count.py").write_text(COUNT)
        told = subprocess.run(
            [sys.executable, fits / "count.py"],
            env={**os.environ, "TMPDIR": str(fits), "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        assert told.stdout == "[3]\n", told.stderr
        monkeypatch.setattr(tempfile, "tempdir", f"{fits}x")
        work = Work(abs, lambda values: (values, ()))
        with pytest.raises(OSError, match=f"^TMPDIR: {fits}x is too long .* 75 bytes at most"):
            Pool(work, num_workers=1, limit=60.0)
        with closing(Pool(work, num_workers=0, limit=60.0)) as pool:
            assert [done.result for done in pool.results([[-3], [2, -1]])] == [[3], [2, 1]]


def test_workers_of_a_server_that_was_started_before_have_its_imports(tmp_path):
    (tmp_path / "begun.py").write_text(BEGUN_BEFORE)
    told = subprocess.run(
        [sys.executable, tmp_path / "begun.py"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert told.stdout == "[True, False]\n", told.stderr
