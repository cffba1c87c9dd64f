"""Random states seeded by tuples of numbers, for NumPy and torch's global CPU generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(*numbers: int) -> Iterator[np.random.Generator]:
    """Run a block in a random state that depends on `numbers` (>= 0) alone, and restore it after.

    torch's global CPU generator is forked and seeded, because torchvision v2 draws from it; the
    yielded NumPy generator is independent of it. Generators of other devices are left alone.

    >>> with seeded(0, 1) as rng:
    ...     a = (torch.rand(()).item(), rng.random())
    >>> with seeded(0, 1) as rng:
    ...     a == (torch.rand(()).item(), rng.random())
    True
    """
    for_numpy, for_torch = np.random.SeedSequence(numbers).spawn(2)
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also reseed the CUDA generators, which are not forked here.
        torch.default_generator.manual_seed(int(for_torch.generate_state(1, np.uint64)[0]))
        yield np.random.default_rng(for_numpy)
