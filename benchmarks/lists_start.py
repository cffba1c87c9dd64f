"""A training process of `lists`, under torchrun: from its command to its first batch."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from benchmarks.lists_worker import own_bytes
from vidadapt import data, distributed, launching, methods
from vidadapt.config import parse_train
from vidadapt.data import SkipLog
from vidadapt.distributed import World
from vidadapt.lists import counting
from vidadapt.training import load_lists


def resident(key: str) -> float:
    """A figure of /proc/self/status in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(key + ":")]
    return int(line.split()[1]) * 1024 / 1e9


def main(world: World) -> None:
    looks: list[None] = []
    honest = counting._stat
    counting._stat = lambda file: looks.append(None) or honest(file)  # type: ignore[func-returns-value]
    cfg, _ = parse_train(sys.argv[1:], methods.METHODS)
    plan = data.resolve(cfg.data, cfg.eval)
    began = time.time()
    lists = distributed.from_main(world, lambda: load_lists(cfg, plan, cfg.train, world.size))
    looked_up = time.time() - began
    loader = data.loaders_of(cfg, plan, lists, world.rank, world.size, world.device)["train"]
    with tempfile.TemporaryDirectory() as folder:
        loader.log = SkipLog(Path(folder) / "skipped.jsonl", lists["train"].samples, 0)
        with closing(loader):
            next(iter(loader))
            found = {
                "looked_up_seconds": looked_up,
                "start_seconds": time.time() - began,
                "first_batch_seconds": time.time() - float(os.environ["BENCHMARK_BEGAN"]),
                "process_gb": resident("VmHWM"),
                "private_gb": own_bytes() / 1e9,
                "looks": len(looks),
            }
            everyones = distributed.gather_objects(world, found)
    if world.is_main:
        worst = {key: max(one[key] for one in everyones) for key in found}
        print(json.dumps(worst | {"looks": sum(one["looks"] for one in everyones)}), flush=True)


def run() -> None:
    """Start this process."""
    launching.launch(main)


if __name__ == "__main__":
    run()
