"""The number of processes that load videos."""

from __future__ import annotations

import os

import torch

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
    return default_workers(share, gpu=torch.cuda.is_available())


def default_workers(share: int, gpu: bool) -> int:
    """Loader processes for a training process whose share is `share` cores.

    >>> [default_workers(share, gpu=True) for share in (0, 1, 2, 8, 96)]
    [1, 1, 1, 7, 32]
    >>> [default_workers(share, gpu=False) for share in (1, 2, 8, 64)]
    [1, 1, 1, 8]
    """
    return min(max(share - 1 if gpu else share // 8, 1), MOST_CHOSEN)
