"""A process that fails ends the others, wherever they wait, unless they have left the group."""

from __future__ import annotations

from pathlib import Path

import warm

SCRIPT = """
import sys, time
import torch
import torch.distributed as dist
from vidadapt.launching import joined, launch

sys.modules["vidadapt.launching.start"].GRACE = 1.0
"""


def results_of(script: Path, body: str) -> list[tuple[int | None, str]]:
    """Run a script in two processes as torchrun starts them; return statuses and outputs."""
    script.write_text(SCRIPT + body)
    begun = warm.start_all(script, processes=2)
    said = ["".join(process.communicate(timeout=120)) for process in begun]
    return [(process.returncode, text) for process, text in zip(begun, said, strict=True)]


def test_a_process_that_waits_elsewhere_ends_when_another_fails(tmp_path):
    keeper, failed = results_of(
        tmp_path / "a.py",
        "def main(world):\n"
        "    if world.rank == 1:\n"
        "        raise ValueError('a list that nobody can read')\n"
        "    time.sleep(3600)\n"
        "launch(main)\n",
    )
    assert failed[0] == 2 and "a list that nobody can read" in failed[1]
    assert keeper[0] == 5 and "rank 1: a list that nobody can read" in keeper[1]


def test_a_process_ends_without_the_one_that_keeps_the_store(tmp_path):
    keeper, waiting = results_of(
        tmp_path / "a.py",
        "import os\n"
        "def main(world):\n"
        "    if world.rank == 0:\n"
        "        os._exit(9)\n"
        "    time.sleep(3600)\n"
        "launch(main)\n",
    )
    assert (keeper[0], waiting[0]) == (9, 5)
    assert "lost another process" in waiting[1]


def test_processes_that_have_left_a_failed_block_go_on_and_meet_again(tmp_path):
    both = results_of(
        tmp_path / "a.py",
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
        "print('sum', int(number))\n",
    )
    assert [status for status, _ in both] == [0, 0], both
    assert all("sum 2" in text for _, text in both)
    assert "caught an option that is wrong" in both[1][1]
