"""Run as a program: two processes, of which one hangs while the other waits for its numbers.

Arguments: which one hangs, what they exchange (numbers or objects), and a file for what the other
says.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
from on_five_processes import forked

from vidadapt import distributed
from vidadapt.distributed import LostProcess, World, exchange, with_patience


def main(world: World) -> None:
    _, hanging, what, file = sys.argv
    distributed.world.ANSWER = 1.0
    world = with_patience(world, minutes=0.02)

    def exchanged() -> None:
        if what == "numbers":
            distributed.sum_over_ranks(world, torch.ones(3))
        else:
            distributed.gather_objects(world, "told")

    with exchange(world, lambda: "step 0"):
        exchanged()
    if world.rank == int(hanging):
        time.sleep(1000)
    try:
        with exchange(world, lambda: "step 1"):
            exchanged()
    except LostProcess as error:
        Path(file).write_text(str(error))
        os._exit(3)  # the other one is ended for it


if __name__ == "__main__":
    sys.exit(0 if forked(main, 2) == 3 else 1)
