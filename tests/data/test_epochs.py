from itertools import chain

import pytest

from vidadapt.data.epochs import EpochBatches, epoch_batches, steps_per_epoch


def global_batches(num_samples, epoch, world_size, batch_size, accumulation, repeats=1):
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
        )
        for rank in range(world_size)
    ]
    assert all(len(batch) == batch_size for batches in ranks for batch in batches)
    steps = len(ranks[0]) // accumulation
    return [
        list(chain(*(b for r in ranks for b in r[k * accumulation : (k + 1) * accumulation])))
        for k in range(steps)
    ]


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_global_batches_do_not_depend_on_the_split(repeats):
    splits = [(1, 12, 1), (2, 6, 1), (3, 4, 1), (1, 4, 3), (2, 3, 2), (1, 1, 12), (12, 1, 1)]
    whole = global_batches(100, 3, *splits[0], repeats)
    assert len(whole) == 100 * repeats // 12
    for split in splits[1:]:
        assert global_batches(100, 3, *split, repeats) == whole


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
