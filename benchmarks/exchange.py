"""The exchange of gradients: a step of full fine-tuning on several processes of this machine.

    vidadapt                   starts the exchange in the backward pass
    vidadapt, after backward   does all of it after the backward pass
    DistributedDataParallel    torch's, with gradients as views of its buckets, no buffers sent

All take turns in each round, on a random batch of each process, and the slowest process counts. The
second table is that of a slower network: an exchange occupies it for --delay_ms and its bytes, as
a ring would send them, by --mb_per_s, and ends no sooner. That is a stand-in for a network (time
is waited, not computed), the same for all three.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from benchmarks.report import rows_table
from benchmarks.small_runs import check, finish
from benchmarks.step_contenders import Contender, Size, batch, build
from benchmarks.timing import Target, take_turns, times_as_fast
from vidadapt.apps.study.benchmark import spread_percent
from vidadapt.distributed import GradientMeans, World, gradients
from vidadapt.launching import start
from vidadapt.models import SIZES

OURS, AFTER, THEIRS = "vidadapt", "vidadapt, after backward", "DistributedDataParallel"
GOAL = 1.0
NUM_CLASSES = 174
COLUMNS = {
    "network": ("network", ""),
    "step s": ("step_seconds", ".3f"),
    "spread %": ("spread_percent", ".0f"),
    ": DDP": ("times_ddp", ".2f"),
}


class Link:
    """A stand-in for a network, which is free for the next message when the last one has ended."""

    def __init__(self, delay: float, bytes_per_second: float, processes: int) -> None:
        self.delay, self.free = delay, 0.0
        self.seconds_per_byte = 2 * (processes - 1) / processes / bytes_per_second
        self._waiting = ThreadPoolExecutor(1)

    def end_of(self, tensor: Tensor) -> float:
        """Time at which a message that begins now has ended."""
        seconds = self.delay + tensor.nbytes * self.seconds_per_byte
        self.free = max(time.monotonic(), self.free) + seconds
        return self.free

    def all_reduce(self, tensor: Tensor, group: Any = None, async_op: bool = False) -> Any:
        """As `torch.distributed.all_reduce`."""
        work, end = dist.all_reduce(tensor, group=group, async_op=True), self.end_of(tensor)

        def wait() -> None:
            work.wait()
            time.sleep(max(0.0, end - time.monotonic()))

        return SimpleNamespace(wait=wait) if async_op else wait()

    def hook(self, _, bucket):  # type: ignore[no-untyped-def] # torch compares its annotations
        """As DistributedDataParallel's own exchange."""
        buffer = bucket.buffer().div_(dist.get_world_size())
        ended, work = torch.futures.Future[Tensor](), self.all_reduce(buffer, async_op=True)

        def end() -> None:
            work.wait()
            ended.set_result(buffer)

        self._waiting.submit(end)
        return ended


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    check(args, "exchange", {"processes": 2, "batch_size": 2, "rounds": 1})
    if "RANK" not in os.environ:
        sys.exit(under_torchrun("exchange", args.processes, argv))
    world = start.start()
    slow = Link(args.delay_ms / 1e3, args.mb_per_s * 1e6, world.size)
    rows = [
        row
        for network, link in (("this machine's", None), (name_of(args), slow))
        for row in measured(network, link, args, world)
    ]
    if world.is_main:
        targets = [
            Target(f"{OURS} : {THEIRS}, {row['network']} network", GOAL, ">=", row["times_ddp"])
            for row in rows
            if row["name"] == OURS
        ]
        finish(args, "exchange", rows, targets, rows_table(rows, COLUMNS, "exchange"))
    start.stop()


def under_torchrun(table: str, processes: int, argv: list[str] | None) -> int:
    """Run a benchmark's command line again in processes that share the cores; its exit status."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), "-m", f"benchmarks.{table}"]
    words = sys.argv[1:] if argv is None else argv
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.run([*command, *words], env=environment, check=False).returncode


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--backbone", choices=SIZES, default="vit_small")
    parser.add_argument("--num_frames", type=int, default=8, metavar="T")
    parser.add_argument("--crop_size", type=int, default=112, metavar="S")
    parser.add_argument("--batch_size", type=int, default=4, help="of a process (%(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="that count (%(default)s)")
    parser.add_argument("--delay_ms", type=float, default=1.0, help="slow network (%(default)s)")
    parser.add_argument("--mb_per_s", type=float, default=100.0, help="slow network (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(argv)


def name_of(args: argparse.Namespace) -> str:
    return f"{args.delay_ms:g} ms, {args.mb_per_s:g} MB/s"


def measured(
    network: str, link: Link | None, args: argparse.Namespace, world: World
) -> list[dict[str, Any]]:
    """A row for each contender; all processes together."""
    gradients.dist = dist if link is None else SimpleNamespace(all_reduce=link.all_reduce)  # type: ignore[assignment]
    size = Size(
        args.backbone, args.num_frames, args.crop_size, NUM_CLASSES, args.batch_size, world.device
    )
    contenders = {
        OURS: ours(size, world, early=True)[1],
        AFTER: ours(size, world, early=False)[1],
        THEIRS: theirs(size, link),
    }
    turns = {name: timed_by_all(step, world) for name, step in contenders.items()}
    seconds = rounds_of(turns, args.rounds, world)
    return [
        {
            "network": network,
            "name": name,
            "step_seconds": median(seconds[name]),
            "spread_percent": spread_percent(seconds[name]),
            "times_ddp": times_as_fast(seconds, name, THEIRS),
            "seconds": seconds[name],
        }
        for name in contenders
    ]


def rounds_of(
    turns: Mapping[str, Callable[[], float]], rounds: int, world: World
) -> dict[str, list[float]]:
    """Seconds of each contender in each round; all processes together, of which one says so."""
    with contextlib.ExitStack() as stack:
        if not world.is_main:
            silent = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(contextlib.redirect_stderr(silent))
        return take_turns(turns, rounds, warmup=3)


def timed_by_all(step: Callable[[], None], world: World) -> Callable[[], float]:
    """Seconds that the slowest process needs for a step, which all begin together."""

    def work() -> float:
        dist.barrier()
        began = time.perf_counter()
        step()
        seconds = torch.tensor(time.perf_counter() - began)
        dist.all_reduce(seconds, dist.ReduceOp.MAX)
        return float(seconds)

    return work


def ours(
    size: Size, world: World, early: bool, method: str = "full"
) -> tuple[nn.Module, Callable[[], None]]:
    """A model, and its step as `training.loop` takes it."""
    model = model_of(size, method)
    means = GradientMeans(world, model, model.head)
    begin = means.begin_in_backward if early else nothing
    return model, step_of(model, size, before=begin, after=lambda: means.average(1.0, ()))


def theirs(size: Size, link: Link | None) -> Callable[[], None]:
    """A step of DistributedDataParallel."""
    parallel = DistributedDataParallel(
        model_of(size), forward_sync_buffers=False, gradient_as_bucket_view=True
    )
    if link is not None:
        parallel.register_comm_hook(None, link.hook)
    return step_of(parallel, size)


def nothing() -> None:
    pass


def model_of(size: Size, method: str = "full") -> Any:
    torch.manual_seed(0)
    return build(Contender("vidadapt", method, "fp32"), size)


def step_of(
    model: nn.Module,
    size: Size,
    before: Callable[[], object] = nothing,
    after: Callable[[], object] = nothing,
) -> Callable[[], None]:
    """A training step; what is done before it, and after its backward pass."""
    clip, labels = batch(size)
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=1e-3, momentum=0.9
    )

    def step() -> None:
        before()
        cross_entropy(model(clip), labels).backward()
        after()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


if __name__ == "__main__":
    main()
