"""How many processes load videos, and how they are started."""

from __future__ import annotations

import os
from typing import Any

import torch

from vidadapt.processes.children import check_temporary_folder, end_with_parent

# Each holds two batches ahead in shared memory, 77 MB apiece for 64 clips of 8 frames.
MOST_CHOSEN = 32


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def loader_processes(asked: int | None) -> int:
    """`data.num_workers`, or if it is None a number that suits this machine.

    The cores that this process may use are shared among the training processes of the machine (as
    torchrun counts them in LOCAL_WORLD_SIZE). Where a GPU computes, all but one of a share load,
    32 at most. Where the CPU computes, one in eight does, since more would slow the model down: a
    training step of ViT-B on 8 frames takes about 1 core-second a clip (AdaptFormer-64, bf16) and
    loading the clip 0.025. At least 1.
    """
    if asked is not None:
        return asked
    share = cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return chosen(share, gpu=torch.cuda.is_available())


def chosen(share: int, gpu: bool) -> int:
    """Loader processes for a training process whose share is `share` cores.

    >>> [chosen(share, gpu=True) for share in (0, 1, 2, 8, 96)]
    [1, 1, 1, 7, 32]
    >>> [chosen(share, gpu=False) for share in (1, 2, 8, 64)]
    [1, 1, 1, 8]
    """
    return min(max(share - 1 if gpu else share // 8, 1), MOST_CHOSEN)


def worker_options(num_workers: int, pin_memory: bool = False) -> dict[str, Any]:
    """Keyword arguments by which every `DataLoader` here starts its workers.

    Raises:
        OSError: see `check_temporary_folder`.
    """
    if num_workers > 0:
        check_temporary_folder()
    return {
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "pin_memory": pin_memory,
        "worker_init_fn": start_worker,
        # Forking this process, which by now has threads (gloo, autograd), can deadlock a worker.
        "multiprocessing_context": "forkserver" if num_workers > 0 else None,
        # The loader draws a seed for its workers, which no item uses: spare the global generator.
        "generator": torch.Generator(),
    }


def start_worker(worker: int) -> None:
    """Make a worker end with its parent and compute in one thread."""
    end_with_parent()
    torch.set_num_threads(1)
