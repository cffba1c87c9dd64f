"""Two agents of torchrun on one machine, and what happens when parts of the job are killed."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import ROOT
from test_resuming import assert_same_run

pytestmark = pytest.mark.slow  # whole runs in processes of their own

STEPS = 12  # of an epoch: 12 videos, four times, on four processes


@dataclass
class Job:
    """A training under two agents with two processes each; they write into one file."""

    options: list[str]
    run: Path
    nodes: str = "2"
    restarts: str = "3"
    script: str = str(ROOT / "tools" / "train.py")
    agents: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            self.port = free.getsockname()[1]
        self.output = self.run.with_suffix(".txt")

    def start_agent(self, **more: str) -> subprocess.Popen[bytes]:
        """The first one hosts the rendezvous, and is waited for."""
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes", self.nodes),
            *("--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-id", "job"),
            *("--rdzv-endpoint", f"localhost:{self.port}", "--max-restarts", self.restarts),
            *(self.script, *self.options, "--run_dir", str(self.run), "--resume"),
        ]
        with self.output.open("ab") as file:
            agent = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", **more},
            )
        self.agents.append(agent)
        self.wait_for(self.has_host)
        return agent

    def has_host(self) -> bool:
        try:
            socket.create_connection(("localhost", self.port)).close()
        except OSError:
            return False
        return True

    def said(self) -> str:
        return self.output.read_text()

    def wait_for(self, there: Callable[[], bool], seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not there():
            assert time.monotonic() < deadline, self.said()
            assert all(agent.poll() is None for agent in self.agents), self.said()
            time.sleep(0.005)

    def ended(self, seconds: float = 240) -> list[int]:
        """Exit statuses of the agents."""
        deadline = time.monotonic() + seconds
        try:
            return [agent.wait(max(0.0, deadline - time.monotonic())) for agent in self.agents]
        except subprocess.TimeoutExpired:
            states = [agent.poll() for agent in self.agents]
            pytest.fail(f"after {seconds:g} s the agents are {states}:\n{self.said()}")

    def workers(self, agent: subprocess.Popen[bytes]) -> list[int]:
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                words = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(words[1]) == agent.pid:
                found.append(int(stat.parent.name))
        return found

    def has_checkpoint(self) -> bool:
        return (self.run / "last").exists()


@pytest.fixture
def jobs():
    """Makes jobs; nothing of them stays."""
    made: list[Job] = []

    def make(*words: object, **more: str) -> Job:
        made.append(Job(*words, **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for job in made:
        for agent in job.agents:
            for worker in job.workers(agent) if agent.poll() is None else []:
                os.kill(worker, signal.SIGKILL)
            agent.kill()
            agent.wait()


@pytest.fixture(scope="module")
def options(tiny_set) -> list[str]:
    return tiny_set.options(
        train__batch_size=1,
        train__optimizer="adamw",
        train__base_lr=0.05,
        method__dropout=0.3,
        model__head="linear",
        data__repeated_augmentation=4,
        train__checkpoint_steps=1,
    )


@pytest.fixture(scope="module")
def whole(options, tmp_path_factory) -> Path:
    job = Job(options, tmp_path_factory.mktemp("whole") / "run")
    job.start_agent()
    job.start_agent()
    assert job.ended() == [0, 0], job.said()
    return job.run


def test_a_killed_worker_is_replaced_and_nothing_differs(options, whole, jobs, tmp_path):
    job = jobs(options, tmp_path / "run")
    job.start_agent()
    second = job.start_agent()
    job.wait_for(job.has_checkpoint)
    os.kill(job.workers(second)[0], signal.SIGKILL)
    assert job.ended() == [0, 0], job.said()
    assert "resuming" in job.said()
    assert_same_run(job.run, whole)


def test_a_rank_that_raises_ends_all_with_its_error(options, jobs, tmp_path):
    script = tmp_path / "raising.py"
    script.write_text(
        "import os, runpy, sys\n"
        f"sys.path.insert(0, {str(ROOT / 'tools')!r})\n"
        "from vidadapt.data import clips\n"
        "known = clips.TrainClips.__getitem__\n"
        "def broken(self, key):\n"
        "    if os.environ['RANK'] == '2' and key[1] == 5:\n"
        "        raise ZeroDivisionError('what the third process met')\n"
        "    return known(self, key)\n"
        "clips.TrainClips.__getitem__ = broken\n"
        f"runpy.run_path({str(ROOT / 'tools' / 'train.py')!r}, run_name='__main__')\n"
    )
    job = jobs(options, tmp_path / "run", restarts="0", script=str(script))
    job.start_agent()
    job.start_agent()
    assert job.ended() == [1, 1], job.said()
    assert "ZeroDivisionError: what the third process met" in job.said()


@pytest.mark.chaos
def test_a_killed_agent_started_again_takes_part_again(options, whole, jobs, tmp_path):
    job = jobs(options, tmp_path / "run")
    apart = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # see tools/slurm/train.sbatch
    first, second = job.start_agent(**apart), job.start_agent(**apart)
    job.wait_for(job.has_checkpoint)
    second.kill()
    second.wait()
    job.agents = [first]
    job.start_agent(**apart)
    assert job.ended() == [0, 0], job.said()
    assert_same_run(job.run, whole)


@pytest.mark.chaos
def test_without_the_host_all_end_and_a_relaunch_goes_on(options, whole, jobs, tmp_path):
    job = jobs(options, tmp_path / "run")
    host, other = job.start_agent(), job.start_agent()
    job.wait_for(job.has_checkpoint)
    workers = job.workers(host) + job.workers(other)
    assert len(workers) == 4
    host.kill()
    assert other.wait(60) != 0
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    again = jobs(options, tmp_path / "run")
    again.start_agent()
    again.start_agent()
    assert again.ended() == [0, 0], again.said()
    assert_same_run(job.run, whole)


@pytest.mark.chaos
def test_a_process_that_hangs_is_named_and_replaced(options, whole, jobs, tmp_path):
    job = jobs([*options, "--train.patience_minutes", "0.1"], tmp_path / "run")
    job.start_agent()
    second = job.start_agent()
    job.wait_for(job.has_checkpoint)
    os.kill(job.workers(second)[0], signal.SIGSTOP)
    assert job.ended() == [0, 0], job.said()
    assert re.search(r"\[rank \d\] .*step \d+: rank \d does not answer", job.said())
    assert_same_run(job.run, whole)


@pytest.mark.chaos
def test_fewer_machines_go_on_with_every_sample_once(options, jobs, tmp_path):
    job = jobs(options, tmp_path / "run", nodes="1:2")
    job.start_agent()
    second = job.start_agent()
    job.wait_for(job.has_checkpoint)
    job.wait_for(lambda: len(job.workers(second)) == 2)
    second.kill()
    assert job.agents[0].wait(240) == 0, job.said()
    assert (
        "2 processes after 4: batch_size 1, accumulation 2; the global batch stays 4" in job.said()
    )
    steps = (job.run / "steps.jsonl").read_text().splitlines()
    assert len(steps) == 2 * STEPS
