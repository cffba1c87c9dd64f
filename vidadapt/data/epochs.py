"""Order the training items of each process; a function of the seed and the epoch.

An item's key is (epoch, index, copy): the epoch travels with the index, since a value set on the
dataset never reaches workers that persist over epochs. No key is twice in an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

SampleKey = tuple[int, int, int]

# What the share of a class in an epoch is in proportion to, of numbers of samples (C,).
IN_PROPORTION_TO: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "square_root": np.sqrt,
    "balanced": lambda counts: np.ones(len(counts)),
}


@dataclass(frozen=True)
class ClassDraws:
    """How an epoch draws its samples from the classes.

    Attributes:
        labels: (N,) int, classes of the samples.
        sampling: key of `IN_PROPORTION_TO`.
    """

    labels: np.ndarray
    sampling: str


def epoch_batches(
    num_samples: int,
    epoch: int,
    seed: int,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    accumulation: int = 1,
    repeats: int = 1,
    by_class: ClassDraws | None = None,
    consumed: int = 0,
) -> list[list[SampleKey]]:
    """The micro-batches of this rank in this epoch, each a list of `batch_size` keys.

    The samples are permuted by (seed, epoch), or drawn class by class, see `drawn_by_class`; each
    occurs `repeats` times in a row, and the copies of a sample are numbered in the order of the
    epoch. This stream is cut into global batches of batch_size x world_size x accumulation keys:
    global batch k holds the same keys however many processes share it. Rank r takes the r-th equal
    slice of each, cut into `accumulation` micro-batches. The rest at the end, less than a global
    batch, is dropped for this epoch (another part in every epoch).

    Args:
        by_class: how often an epoch has each class; None: each sample comes once.
        consumed: keys at the beginning of the stream that were trained on already; global batches
            of any size are cut from the rest.

    >>> [whole] = epoch_batches(5, 0, 0, batch_size=4)  # the fifth sample is left for other epochs
    >>> [first] = epoch_batches(5, 0, 0, batch_size=2, rank=0, world_size=2)
    >>> [second] = epoch_batches(5, 0, 0, batch_size=2, rank=1, world_size=2)
    >>> len(set(whole)), whole == first + second
    (4, True)
    >>> epoch_batches(1, 7, 0, batch_size=2, repeats=2)
    [[(7, 0, 0), (7, 0, 1)]]
    >>> stream = sum(epoch_batches(8, 0, 0, batch_size=2), [])
    >>> sum(epoch_batches(8, 0, 0, batch_size=3, consumed=2), []) == stream[2:]
    True

    Raises:
        ValueError: fewer samples x repeats than one global batch, or counts below 1.
    """
    steps_per_epoch(
        num_samples,
        batch_size=batch_size,
        world_size=world_size,
        accumulation=accumulation,
        repeats=repeats,
    )
    rng = np.random.default_rng([seed, epoch])
    if by_class is None:
        order, before = rng.permutation(num_samples), np.zeros(num_samples, np.int64)
    else:
        order, before = drawn_by_class(by_class, rng)

    def key(place: int) -> SampleKey:
        draw, copy = divmod(place, repeats)
        return epoch, int(order[draw]), int(before[draw]) * repeats + copy

    slice_size = batch_size * accumulation
    steps = (num_samples * repeats - consumed) // (slice_size * world_size)
    batches = []
    for step in range(steps):
        first = consumed + (step * world_size + rank) * slice_size
        for start in range(first, first + slice_size, batch_size):
            batches.append([key(place) for place in range(start, start + batch_size)])
    return batches


def class_shares(counts: np.ndarray, sampling: str, rng: np.random.Generator) -> np.ndarray:
    """Divide an epoch of as many draws as there are samples among the classes.

    A class's exact share is in proportion to `IN_PROPORTION_TO` of its number of samples. It gets
    the whole part; the draws that are left go one each to the classes with the largest fractions,
    of equal ones to some chosen at random. Every class has at least one draw.

    Args:
        counts: (C,) int, samples of each class, none of them 0.

    Returns:
        (C,) int64 with the sum of `counts`.

    >>> class_shares(np.array([100, 25, 4]), "square_root", np.random.default_rng(0)).tolist()
    [76, 38, 15]
    """
    of_each = IN_PROPORTION_TO[sampling](counts)
    exact = counts.sum() * of_each / of_each.sum()
    shares = np.floor(exact).astype(np.int64)
    order = rng.permutation(len(counts))
    order = order[np.argsort((shares - exact)[order], kind="stable")]
    shares[order[: counts.sum() - shares.sum()]] += 1
    return shares


def drawn_by_class(of: ClassDraws, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw as many samples as there are, from each class its share, in a random order.

    Of a class with more samples than its share (see `class_shares`) a random part is drawn; one
    with fewer gives all of its samples before one of them comes again. Classes without a sample
    have no share.

    Returns:
        Samples (N,) int64, places in the labels; and how often each was drawn before (N,) int64.

    >>> labels = np.array([5, 5, 5, 2])
    >>> order, before = drawn_by_class(ClassDraws(labels, "balanced"), np.random.default_rng(0))
    >>> np.bincount(labels[order]).tolist(), before[order == 3].tolist()
    ([0, 0, 2, 0, 0, 2], [0, 1])
    """
    _, counts = np.unique(of.labels, return_counts=True)
    shares = class_shares(counts, of.sampling, rng)
    by_class = np.split(np.argsort(of.labels, kind="stable"), np.cumsum(counts)[:-1])
    drawn = []
    for members, wanted in zip(by_class, shares.tolist(), strict=True):
        passes = [rng.permutation(members) for _ in range(-(-wanted // len(members)))]
        drawn.append(np.concatenate(passes)[:wanted])
    order = rng.permutation(np.concatenate(drawn))
    # Places of equal samples, one after another, in the order of the epoch.
    places = np.argsort(order, kind="stable")
    first = np.searchsorted(order[places], order[places])
    before = np.empty(len(order), np.int64)
    before[places] = np.arange(len(order)) - first
    return order, before


def steps_per_epoch(
    num_samples: int,
    *,
    batch_size: int,
    world_size: int = 1,
    accumulation: int = 1,
    repeats: int = 1,
) -> int:
    """Optimiser steps (whole global batches) of one epoch.

    >>> steps_per_epoch(100, batch_size=8, world_size=2, accumulation=2)
    3

    Raises:
        ValueError: fewer samples x repeats than one global batch, or counts below 1.
    """
    sizes = {
        "num_samples": num_samples,
        "batch_size": batch_size,
        "world_size": world_size,
        "accumulation": accumulation,
        "repeats": repeats,
    }
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    global_batch = batch_size * world_size * accumulation
    steps = num_samples * repeats // global_batch
    if steps == 0:
        raise ValueError(
            f"{num_samples} training samples x {repeats} copies are fewer than one global batch of "
            f"{global_batch} (batch_size {batch_size} x {world_size} processes x accumulation "
            f"{accumulation}); lower batch_size or accumulation, or add samples"
        )
    return steps


def shared_out(global_batch: int, batch_size: int, world_size: int) -> tuple[int, int] | None:
    """(batch_size, accumulation) with which `world_size` processes have the same global batch.

    The batch size stays if it can, else the largest smaller one that fits is taken; None: the
    processes cannot share the batch equally.

    >>> shared_out(64, 16, 4), shared_out(64, 16, 2), shared_out(64, 16, 8), shared_out(64, 16, 3)
    ((16, 1), (16, 2), (8, 1), None)
    """
    each, rest = divmod(global_batch, world_size)
    if rest or not each:
        return None
    size = next(size for size in range(min(batch_size, each), 0, -1) if each % size == 0)
    return size, each // size


class EpochBatches(Sampler[list[SampleKey]]):
    """Batch sampler over `epoch_batches`; call `set_epoch` before each pass.

    `len()` is the number of this rank's remaining micro-batches, `steps` the number of optimiser
    steps of a whole epoch, `keys_per_epoch` how many of the `num_samples` x `repeats` clips all
    ranks together see in it, and `global_batch` how many they see in a step.
    """

    def __init__(
        self,
        num_samples: int,
        seed: int,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        accumulation: int = 1,
        repeats: int = 1,
        by_class: ClassDraws | None = None,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is outside 0..{world_size - 1}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        self.epoch = self.consumed = 0
        self._num_samples, self._seed, self._rank = num_samples, seed, rank
        self._split = {
            "batch_size": batch_size,
            "world_size": world_size,
            "accumulation": accumulation,
            "repeats": repeats,
        }
        self._by_class = by_class
        self.steps = steps_per_epoch(num_samples, **self._split)
        self.global_batch = batch_size * world_size * accumulation
        self.keys_per_epoch = self.steps * self.global_batch

    def set_epoch(self, epoch: int, consumed: int = 0) -> None:
        """Set the epoch of the next pass, and how many keys (of all ranks) it leaves out first."""
        self.epoch, self.consumed = epoch, consumed

    def __len__(self) -> int:
        keys = self._num_samples * self._split["repeats"] - self.consumed
        return keys // self.global_batch * self._split["accumulation"]

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return iter(
            epoch_batches(
                self._num_samples,
                self.epoch,
                self._seed,
                rank=self._rank,
                by_class=self._by_class,
                consumed=self.consumed,
                **self._split,
            )
        )
