"""Memory that a process and its device have used."""

from __future__ import annotations

from pathlib import Path

import torch


def process_memory(key: str) -> int | None:
    """Bytes from Linux's account of this process; None on other systems.

    `VmRSS` is what it holds in memory now, `VmHWM` the most that it ever held.

    Not `getrusage`, whose peak starts at that of the process which started this one.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    for line in status.read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return None


def reset_peak(device: torch.device) -> int | None:
    """Return the bytes in use, and let `peak_memory` begin from them.

    On a CPU a peak cannot be reset: `peak_memory` stays that of the process's whole life.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    return process_memory("VmRSS")


def peak_memory(device: torch.device) -> int | None:
    """Most bytes in use so far: torch's allocator on CUDA, the process's resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return process_memory("VmHWM")
