from collections import Counter
from itertools import chain

import numpy as np
import pytest

from vidadapt.data.epochs import EpochBatches, epoch_batches, steps_per_epoch

UNEVEN = np.repeat([4, 0, 2, 7], [60, 25, 13, 2])  # 100 labels of four classes


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


@pytest.mark.parametrize("balanced_by", [None, UNEVEN], ids=["plain", "balanced"])
@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_global_batches_do_not_depend_on_the_split(repeats, balanced_by):
    splits = [(1, 12, 1), (2, 6, 1), (3, 4, 1), (1, 4, 3), (2, 3, 2), (1, 1, 12), (12, 1, 1)]
    whole = global_batches(100, 3, *splits[0], repeats, balanced_by=balanced_by)
    assert len(whole) == 100 * repeats // 12
    for split in splits[1:]:
        assert global_batches(100, 3, *split, repeats, balanced_by=balanced_by) == whole


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


# --- as many samples of each class ----------------------------------------------------------------


def slow_balanced_keys(labels, epoch, seed, repeats):
    """Every key of an epoch in its order, drawn with dicts and loops."""
    rng = np.random.default_rng([seed, epoch])
    members: dict[int, list[int]] = {}
    for sample, label in enumerate(labels.tolist()):
        members.setdefault(label, []).append(sample)
    classes = sorted(members)
    share, rest = divmod(len(labels), len(classes))
    lucky = {classes[i] for i in rng.permutation(len(classes))[:rest]}
    drawn = []
    for label in classes:
        left = share + (label in lucky)
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


@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("epoch", [0, 1, 9])
def test_a_balanced_epoch_is_that_of_a_slow_reference(epoch, repeats):
    whole = epoch_batches(100, epoch, 5, batch_size=1, repeats=repeats, balanced_by=UNEVEN)
    assert list(chain(*whole)) == slow_balanced_keys(UNEVEN, epoch, 5, repeats)


def test_a_balanced_epoch_has_each_class_and_within_it_each_sample_equally_often():
    labels = UNEVEN[np.random.default_rng(0).permutation(len(UNEVEN))][:-1]
    orders = []
    for epoch in range(20):
        keys = list(chain(*epoch_batches(99, epoch, 0, batch_size=1, balanced_by=labels)))
        assert len(keys) == 99 == len(set(keys))
        orders.append([index for _, index, _ in keys])
        of_classes = Counter(labels[orders[-1]].tolist())
        assert set(of_classes) == set(labels.tolist())
        assert sorted(of_classes.values()) == [24, 25, 25, 25]
        times = Counter(orders[-1])
        for label in set(labels.tolist()):
            of_samples = [times[index] for index in np.flatnonzero(labels == label).tolist()]
            assert max(of_samples) - min(of_samples) <= 1
    assert {index for order in orders for index in order} == set(range(99))
    assert orders[0] != orders[1]


def test_a_balanced_epoch_goes_on_where_it_was_left():
    stream = list(chain(*epoch_batches(100, 3, 0, batch_size=4, balanced_by=UNEVEN)))
    left = epoch_batches(100, 3, 0, batch_size=6, balanced_by=UNEVEN, consumed=32)
    assert list(chain(*left)) == stream[32 : 32 + 66]
    sampler = EpochBatches(100, 0, batch_size=6, balanced_by=UNEVEN)
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
