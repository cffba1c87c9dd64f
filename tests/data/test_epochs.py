import math
from collections import Counter
from fractions import Fraction
from itertools import chain

import numpy as np
import pytest

from vidadapt.data.epochs import (
    ClassDraws,
    EpochBatches,
    class_shares,
    epoch_batches,
    steps_per_epoch,
)

UNEVEN = np.repeat([4, 0, 2, 7], [60, 25, 13, 2])  # 100 labels of four classes
SAMPLINGS = ("square_root", "balanced")


def global_batches(num_samples, epoch, world_size, batch_size, accumulation, repeats=1, **more):
    ranks = [
        epoch_batches(
            num_samples,
            epoch,
            7,
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            accumulation=accumulation,
            repeats=repeats,
            **more,
        )
        for rank in range(world_size)
    ]
    assert all(len(batch) == batch_size for batches in ranks for batch in batches)
    steps = len(ranks[0]) // accumulation
    return [
        list(chain(*(b for r in ranks for b in r[k * accumulation : (k + 1) * accumulation])))
        for k in range(steps)
    ]


@pytest.mark.parametrize("sampling", ["natural", *SAMPLINGS])
@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_global_batches_do_not_depend_on_the_split(repeats, sampling):
    by_class = None if sampling == "natural" else ClassDraws(UNEVEN, sampling)
    splits = [(1, 12, 1), (2, 6, 1), (3, 4, 1), (1, 4, 3), (2, 3, 2), (1, 1, 12), (12, 1, 1)]
    whole = global_batches(100, 3, *splits[0], repeats, by_class=by_class)
    assert len(whole) == 100 * repeats // 12
    for split in splits[1:]:
        assert global_batches(100, 3, *split, repeats, by_class=by_class) == whole


def test_every_sample_once_an_epoch_in_a_new_order():
    epochs = [list(chain(*epoch_batches(60, e, 0, batch_size=10))) for e in range(3)]
    for number, keys in enumerate(epochs):
        assert {key[0] for key in keys} == {number} and {key[2] for key in keys} == {0}
        assert sorted(key[1] for key in keys) == list(range(60))
    assert len({tuple(key[1] for key in keys) for keys in epochs}) == 3
    assert epoch_batches(60, 0, 0, batch_size=10) != epoch_batches(60, 0, 1, batch_size=10)


def test_the_dropped_rest_changes_from_epoch_to_epoch():
    seen = [{k[1] for b in epoch_batches(13, e, 0, batch_size=5) for k in b} for e in range(30)]
    assert all(len(samples) == 10 for samples in seen)
    assert set.union(*seen) == set(range(13))


def test_copies_are_adjacent_and_numbered():
    keys = list(chain(*epoch_batches(8, 0, 0, batch_size=4, repeats=2)))
    assert [key[2] for key in keys] == [0, 1] * 8
    assert all(a[1] == b[1] for a, b in zip(keys[::2], keys[1::2], strict=True))
    assert sorted(key[1] for key in keys[::2]) == list(range(8))


# --- draws by class -------------------------------------------------------------------------------


def slow_shares(counts, sampling, order):
    """Draws of each class: exact fractions, and the remaining draws one at a time.

    Args:
        order: of classes, for those whose fractions are equal.
    """
    total = sum(counts)
    of_each = [Fraction(1) if sampling == "balanced" else root(count) for count in counts]
    exact = [total * one / sum(of_each) for one in of_each]
    shares = [math.floor(one) for one in exact]
    while sum(shares) < total:
        shares[max(order, key=lambda c: exact[c] - shares[c])] += 1
    return shares


def root(count: int) -> Fraction:
    """A square root to 60 digits."""
    return Fraction(math.isqrt(count * 10**120), 10**60)


def slow_keys(labels, sampling, epoch, seed, repeats):
    """Every key of an epoch in its order, drawn with dicts and loops."""
    rng = np.random.default_rng([seed, epoch])
    members: dict[int, list[int]] = {}
    for sample, label in enumerate(labels.tolist()):
        members.setdefault(label, []).append(sample)
    classes = sorted(members)
    order = rng.permutation(len(classes)).tolist()
    shares = slow_shares([len(members[label]) for label in classes], sampling, order)
    drawn = []
    for label, left in zip(classes, shares, strict=True):
        while left > 0:
            taken = rng.permutation(members[label]).tolist()[:left]
            drawn += taken
            left -= len(taken)
    seen: Counter[int] = Counter()
    keys = []
    for sample in rng.permutation(drawn).tolist():
        keys += [(epoch, sample, seen[sample] * repeats + copy) for copy in range(repeats)]
        seen[sample] += 1
    return keys


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("epoch", [0, 1, 9])
def test_an_epoch_drawn_by_class_is_that_of_a_slow_reference(epoch, repeats, sampling):
    by_class = ClassDraws(UNEVEN, sampling)
    whole = epoch_batches(100, epoch, 5, batch_size=1, repeats=repeats, by_class=by_class)
    assert list(chain(*whole)) == slow_keys(UNEVEN, sampling, epoch, 5, repeats)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_any_labels_are_drawn_as_often_as_they_should_be(sampling):
    """Whole epochs of random lists: few and many classes, of equal and very different sizes."""
    for trial in range(100):
        rng = np.random.default_rng(trial)
        num_classes = int(rng.integers(1, 40))
        sizes = np.ceil(rng.pareto(0.7, num_classes)).clip(1, 300).astype(int)
        labels = rng.permutation(np.repeat(rng.permutation(99)[:num_classes], sizes))
        by_class = ClassDraws(labels, sampling)
        keys = list(chain(*epoch_batches(len(labels), trial, 3, batch_size=1, by_class=by_class)))
        assert len(keys) == len(labels) == len(set(keys))
        assert keys == slow_keys(labels, sampling, trial, 3, 1)
        times = Counter(index for _, index, _ in keys)
        for label in set(labels.tolist()):
            of_samples = [times[index] for index in np.flatnonzero(labels == label).tolist()]
            assert max(of_samples) - min(of_samples) <= 1 <= sum(of_samples)


def test_square_root_shares_are_between_the_natural_and_the_balanced_ones():
    counts, rng = np.array([100, 25, 4, 1]), np.random.default_rng(0)
    assert class_shares(counts, "square_root", rng).tolist() == [72, 36, 15, 7]
    assert sorted(class_shares(counts, "balanced", rng).tolist()) == [32, 32, 33, 33]
    assert class_shares(np.full(7, 9), "square_root", rng).tolist() == [9] * 7


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_an_epoch_has_the_shares_of_its_classes_and_other_parts_of_large_ones(sampling):
    labels = UNEVEN[np.random.default_rng(0).permutation(len(UNEVEN))][:-1]
    by_class, orders = ClassDraws(labels, sampling), []
    for epoch in range(20):
        keys = list(chain(*epoch_batches(99, epoch, 0, batch_size=1, by_class=by_class)))
        orders.append([index for _, index, _ in keys])
        of_classes = sorted(Counter(labels[orders[-1]].tolist()).values())
        assert of_classes == ([24, 25, 25, 25] if sampling == "balanced" else [8, 19, 28, 44])
    assert {index for order in orders for index in order} == set(range(99))
    assert orders[0] != orders[1]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_an_epoch_drawn_by_class_goes_on_where_it_was_left(sampling):
    by_class = ClassDraws(UNEVEN, sampling)
    stream = list(chain(*epoch_batches(100, 3, 0, batch_size=4, by_class=by_class)))
    left = epoch_batches(100, 3, 0, batch_size=6, by_class=by_class, consumed=32)
    assert list(chain(*left)) == stream[32 : 32 + 66]
    sampler = EpochBatches(100, 0, batch_size=6, by_class=by_class)
    sampler.set_epoch(3, 32)
    assert list(sampler) == left and len(sampler) == len(left)


def test_sampler_follows_its_epoch():
    sampler = EpochBatches(50, 1, batch_size=4, rank=1, world_size=2, accumulation=3)
    assert (sampler.steps, len(sampler), sampler.keys_per_epoch) == (2, 6, 48)
    split = {"batch_size": 4, "rank": 1, "world_size": 2, "accumulation": 3}
    for epoch in (0, 5, 2):
        sampler.set_epoch(epoch)
        assert list(sampler) == epoch_batches(50, epoch, 1, **split)
        assert len(list(sampler)) == len(sampler)


def test_impossible_splits_are_errors():
    with pytest.raises(ValueError, match=r"7 training samples x 1 copies are fewer than .* of 8"):
        EpochBatches(7, 0, batch_size=2, world_size=2, accumulation=2)
    assert steps_per_epoch(7, batch_size=2, world_size=2, accumulation=2, repeats=2) == 1
    for name in ("batch_size", "world_size", "accumulation", "repeats"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            steps_per_epoch(10, **{"batch_size": 1, name: 0})
    with pytest.raises(ValueError, match="rank 2 is outside"):
        EpochBatches(10, 0, batch_size=1, rank=2, world_size=2)
    with pytest.raises(ValueError, match="seed must not be negative"):
        EpochBatches(10, -1, batch_size=1)
