"""Memory of contenders in one process: the most that each holds; what becomes of freed memory."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

Result = TypeVar("Result")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt(3)
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(work: Callable[[], Result], device: torch.device) -> tuple[Result, int | None]:
    """What the work returns, and the most that it held at once beyond what was held before.

    On CUDA by torch's allocator. On a CPU by the process's resident set, whose peak Linux resets
    when asked (`man 5 proc`, clear_refs); None on other systems. Freed memory is given back to the
    system beforehand, since the work would otherwise fill it unseen.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = work()
        return result, torch.cuda.max_memory_allocated(device) - before
    if not CLEAR.exists():
        return work(), None
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5")
    before = resident_bytes("VmRSS")
    result = work()
    return result, resident_bytes("VmHWM") - before


def keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next one, as it does where one model has a process.

    With several models in a process it gives the top of the heap back after some steps and not
    after others, by what lies above; the next step then takes up to 1.5 times as long.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def own_bytes(model: nn.Module) -> int:
    """Of parameters and buffers, each once."""
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


def resident_bytes(key: str) -> int:
    (line,) = (row for row in STATUS.read_text().splitlines() if row.startswith(key + ":"))
    return int(line.split()[1]) * 1024
