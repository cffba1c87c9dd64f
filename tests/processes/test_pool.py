"""The worker pool by itself: order, bytes, what is left out later, and errors."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from vidadapt.processes import Done, Lost, Pool, Work

SIZE = 3_000


def load(item: int | str) -> np.ndarray:
    """Random bytes of an item; odd ones take longer, and words do what they say."""
    if item == "exit":
        os._exit(3)
    if item == "raise":
        raise KeyError("of the item")
    time.sleep(0.02 * (int(item) % 2))
    return np.random.default_rng(int(item)).integers(0, 256, SIZE, dtype=np.uint8)


def note_and_load(log: Path, item: int | str) -> np.ndarray:
    with log.open("a") as file:
        file.write(f"{item}\n")
    return load(item)


def apart(values: list[np.ndarray]) -> tuple[int, list[np.ndarray]]:
    return len(values), values


def rows(number: int, data: np.ndarray) -> np.ndarray:
    return data.reshape(number, SIZE)


@pytest.fixture(params=[0, 1, 3])
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    with closing(Pool(Work(load, apart), num_workers=request.param, limit=20, unpack=rows)) as made:
        yield made


def test_results_come_in_order_pass_after_pass(pool: Pool) -> None:
    tasks = [[number, number + 7] for number in range(9)]
    next(iter(pool.results(tasks, in_order=True)))  # a pass that is broken off
    for _ in range(2):
        found = list(pool.results(tasks, in_order=True, barred=lambda item: item in (8, 15)))
        assert [one.place for one in found if isinstance(one, Done)] == list(range(9))
        for task, one in zip(tasks, found, strict=True):
            left = [item for item in task if item not in (8, 15)]
            assert isinstance(one, Done) and one.items == left
            if left:
                assert np.array_equal(one.result, np.stack([load(item) for item in left]))
            else:
                assert one.result is None


@pytest.mark.parametrize("in_order", [False, True])
def test_what_is_barred_by_a_loss_is_in_no_later_result(tmp_path: Path, in_order: bool) -> None:
    """Results that have come already are made again without it; nothing else is lost."""
    log = tmp_path / "begun.txt"
    pool = Pool(Work(partial(note_and_load, log), apart), num_workers=2, limit=None, unpack=rows)
    tasks = [[0], ["exit", 2], [4, 6], [8, 10], [6, 12]]
    lost, results = [], {}
    with closing(pool):
        for found in pool.results(
            tasks, barred=lambda item: bool(lost) and item in ("exit", 6), in_order=in_order
        ):
            if isinstance(found, Lost):
                lost.append(found)
            else:
                results[found.place] = found.items, bool(lost)
    [loss] = lost
    assert (loss.item, loss.reason) == ("exit", "the decoder process died (exit status 3)")
    for place, left in enumerate([[0], [2], [4], [8, 10], [12]]):
        items, is_later = results[place]
        assert items == left or not is_later
    assert not in_order or list(results) == [0, 1, 2, 3, 4]
    assert log.read_text().split().count("exit") == 1


def test_what_is_raised_in_a_worker_is_raised_here_with_its_place() -> None:
    with (
        closing(Pool(Work(load, apart), num_workers=1, limit=None)) as pool,
        pytest.raises(KeyError, match="of the item") as error,
    ):
        list(pool.results([[1], ["raise"]], in_order=True))
    assert "in load" in str(error.value.__cause__)
