"""Run as a program: the same work by the first 1, 2, 3 and 5 of five processes, for tests.

Arguments: a folder for the results, a run's folder, and the options of vidadapt train.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from conftest import load_tool

from vidadapt import data, distributed, launching, methods, training
from vidadapt.config import command_line
from vidadapt.distributed import World, total_over_ranks
from vidadapt.models.batchnorm import over_all_processes, without_clips
from vidadapt.models.heads import HEADS

SIZES = (1, 2, 3, 5)
CLIPS = (4, 0, 1, 3, 2)  # of each process
WIDTH = 6


def evaluated(world: World, out: Path, run: str) -> None:
    """vidadapt evaluate on each list of the folder."""
    for listed in ("broken", "short"):
        sys.argv = [
            "evaluate.py", "--run_dir", run, "--data.root", str(out),
            "--data.test_list", str(out / f"{listed}.txt"),
            "--eval.num_clips", "2", "--eval.num_crops", "3",
            "--out", str(out / f"{listed}_{world.size}"),
        ]  # fmt: skip
        load_tool("evaluate").main(world)


def validated(world: World, out: Path, options: list[str]) -> None:
    """What vidadapt train asks for at the end of an epoch."""
    cfg, _ = command_line.parse_train(
        [
            *(*options, "--run_dir", "none", "--data.root", str(out)),
            *("--data.dev_list", str(out / "broken.txt"), "--data.test_list", "null"),
        ],
        methods.METHODS,
    )
    plan = data.resolve(cfg.data, cfg.eval)
    setup = training.set_up(world, cfg, plan, None)
    validation = training.validation_of(setup, world)
    found = validation.results(setup.model)
    if world.is_main:
        (out / f"validated_{world.size}.json").write_text(json.dumps(found))


def normalised(world: World, out: Path, dtype: torch.dtype) -> None:
    """Two steps through a BatchNorm over all processes, of unequal numbers of clips."""
    torch.manual_seed(0)
    head = HEADS["batchnorm_linear"](WIDTH, 3).to(dtype)
    over_all_processes(head, lambda tensor: total_over_ranks(world, tensor))
    first = sum(CLIPS[: world.rank])
    rows = slice(first, first + CLIPS[world.rank])
    for step in range(2):
        x, weights = batch(step, dtype)
        x, weights = x[rows].requires_grad_(), weights[rows]
        head.zero_grad()
        if len(x) == 0 and step == 1:
            y, x.grad = torch.zeros(0, 3, dtype=dtype), torch.zeros_like(x)
            without_clips(head)
        else:
            y = head(x)
            (y * weights).sum().backward()
        torch.save(
            {"y": y.detach(), "x.grad": x.grad, "weight.grad": head[1].weight.grad,
             **head.state_dict()},
            out / f"{dtype}_{step}_{world.rank}.pt",
        )  # fmt: skip


def batch(step: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """All processes' features, with a mean far from 0 and one feature that is constant."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(sum(CLIPS), WIDTH, generator=generator, dtype=torch.float64) * 2 + 30
    x[:, 1] = 0.5
    weights = torch.randn(sum(CLIPS), 3, generator=generator, dtype=torch.float64)
    return x.to(dtype), weights.to(dtype)


def main(world: World) -> None:
    out, run, *options = sys.argv[1:]
    for dtype in (torch.float32, torch.float64):
        normalised(world, Path(out), dtype)
    for size in SIZES:
        group = dist.new_group(list(range(size)), backend="gloo")
        if world.rank < size:
            part = replace(world, size=size, control=group)
            validated(part, Path(out), options)
            evaluated(part, Path(out), run)
        distributed.gather_objects(world, None)


def forked(work: Callable[[World], None], processes: int) -> int:
    """Work done by forks of this process, as importing torch takes longer; the exit status."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    running = set()
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            os.environ["RANK"] = str(rank)
            launching.launch(work)
            os._exit(0)
        running.add(child)
    failed = 0
    while running:
        child, status = os.wait()
        running.discard(child)
        if status and not failed:
            failed = os.waitstatus_to_exitcode(status)
            for other in running:
                os.kill(other, signal.SIGKILL)
    return failed


if __name__ == "__main__":
    sys.exit(forked(main, len(CLIPS)))
