"""A process that fails ends the others, wherever they wait, unless they have left the group."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

SCRIPT = """
import sys, time
import torch
import torch.distributed as dist
from vidadapt.launching import joined, launch

sys.modules["vidadapt.launching.start"].GRACE = 1.0
"""


def results_of(body: str) -> list[tuple[int, str]]:
    """Run a script in two processes as torchrun starts them; return statuses and outputs."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT + body],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **shared, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in begun]
    finally:
        for process in begun:
            process.kill()
    return [(process.returncode, text) for process, text in zip(begun, said, strict=True)]


def test_a_process_that_waits_elsewhere_ends_when_another_fails():
    keeper, failed = results_of(
        "def main(world):\n"
        "    if world.rank == 1:\n"
        "        raise ValueError('a list that nobody can read')\n"
        "    time.sleep(3600)\n"
        "launch(main)\n"
    )
    assert failed[0] == 2 and "a list that nobody can read" in failed[1]
    assert keeper[0] == 5 and "rank 1: a list that nobody can read" in keeper[1]


def test_a_process_ends_without_the_one_that_keeps_the_store():
    keeper, waiting = results_of(
        "import os\n"
        "def main(world):\n"
        "    if world.rank == 0:\n"
        "        os._exit(9)\n"
        "    time.sleep(3600)\n"
        "launch(main)\n"
    )
    assert (keeper[0], waiting[0]) == (9, 5)
    assert "lost another process" in waiting[1]


def test_processes_that_have_left_a_failed_block_go_on_and_meet_again():
    both = results_of(
        "try:\n"
        "    with joined() as world:\n"
        "        if world.rank == 1:\n"
        "            raise ValueError('an option that is wrong')\n"
        "except ValueError as error:\n"
        "    print('caught', error)\n"
        "time.sleep(4)\n"
        "with joined() as world:\n"
        "    number = torch.ones(1)\n"
        "    dist.all_reduce(number)\n"
        "    time.sleep(4)\n"
        "print('sum', int(number))\n"
    )
    assert [status for status, _ in both] == [0, 0], both
    assert all("sum 2" in text for _, text in both)
    assert "caught an option that is wrong" in both[1][1]
