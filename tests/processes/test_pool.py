"""The worker pool by itself: order, bytes, what is left out later, and errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from vidadapt.processes import Done, Lost, Pool, Work

SIZE = 3_000
UNGUARDED = """
from functools import partial
from vidadapt.processes import Pool, Work, run_isolated

def quotient(dividend, divisor):
    return dividend // divisor

print([found for _, found, _ in run_isolated(abs, [-3], 1, 60.0)])
work = Work(partial(quotient, 10**200_000), partial(map, None))
list(Pool(work, num_workers=1, limit=60.0).results([[3]]))
"""


class Odd(Exception):
    """Made of more than its message, so that pickle cannot make it again."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"of {first} and {second}")


class Unknown:
    """A task's item that no worker can load."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return not_here, (os.getpid(),)


def not_here(process: int) -> None:
    assert os.getpid() == process, "of another process"


def fail(how: str) -> object:
    if how == "odd":
        raise Odd(1, 2)
    if how == "local":
        error = ValueError("with a function")
        error.function = lambda: 0
        raise error
    return lambda: 0


def whole(values: list[bytes]) -> tuple[list[bytes], list[np.ndarray]]:
    return values, [np.frombuffer(value, np.uint8)[::2] for value in values]


def as_sent(result: list[bytes], data: np.ndarray) -> tuple[list[bytes], bytes]:
    return result, data.tobytes()


def same(value: bytes) -> bytes:
    return value


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


@pytest.mark.parametrize(
    ("item", "kind", "said"),
    [
        ("odd", RuntimeError, r"Odd\('of 1 and 2'\)"),
        ("local", RuntimeError, r"ValueError\('with a function'\)"),
        ("result", AttributeError, "pickle local object"),
        (Unknown(), AssertionError, "of another process"),
    ],
)
def test_what_pickle_cannot_copy_is_an_error_with_its_cause(
    item: object, kind: type[Exception], said: str
) -> None:
    with (
        closing(Pool(Work(fail, apart_from_memory), num_workers=1, limit=None)) as pool,
        pytest.raises(kind, match=said) as error,
    ):
        list(pool.results([[item]]))
    assert "worker.py" in str(error.value.__cause__)


def apart_from_memory(values: list[object]) -> tuple[list[object], tuple[()]]:
    return values, ()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_tasks_and_results_larger_than_a_pipe_hold_up_nobody(num_workers: int) -> None:
    """Each worker has its next task sent while it sends a result; arrays may have gaps."""
    tasks = [[bytes([place]) * 1_000_001, b"ab"] for place in range(8)]
    work = Work(same, whole)
    with closing(Pool(work, num_workers=num_workers, limit=20, unpack=as_sent)) as pool:
        found = [one.result for one in pool.results(tasks, in_order=True) if isinstance(one, Done)]
    assert found == [(task, b"".join(value[::2] for value in task)) for task in tasks]


def test_a_pass_ends_where_another_begins() -> None:
    """It would get the other one's results, or wait for ever for its own."""
    with closing(Pool(Work(load, apart), num_workers=2, limit=20, unpack=rows)) as pool:
        first = pool.results([[place] for place in range(9)], in_order=True)
        next(first)
        second = pool.results([[place] for place in range(9, 14)], in_order=True)
        found = [next(second)]
        with pytest.raises(RuntimeError, match="this pass has ended"):
            next(first)
        found += second
        assert [one.items for one in found if isinstance(one, Done)] == [[n] for n in range(9, 14)]
        third = pool.results([[place] for place in range(9)])
        next(third)
        pool.close()
        with pytest.raises(RuntimeError, match="this pass has ended"):
            list(third)


def test_a_script_without_a_main_guard_may_use_all_functions_but_its_own(tmp_path: Path) -> None:
    """Of which it is told, however large the work."""
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED)
    told = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert told.stdout == "[3]\n"
    assert "LostProcess: a process for decoding could not start" in told.stderr, told.stderr


def test_a_worker_that_stops_before_its_next_task_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vidadapt.processes.pool.START", 8.0)
    with closing(Pool(Work(load, apart), num_workers=1, limit=1.0, unpack=rows)) as pool:
        assert len(list(pool.results([[2]]))) == 1
        os.kill(pool._workers[0].process.pid or 0, signal.SIGSTOP)
        [found] = pool.results([[2]])
        assert isinstance(found, Done) and np.array_equal(found.result, [load(2)])


def test_many_quick_tasks_are_not_taken_for_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Together they take longer than one worker may, which is seen between them again and again."""
    with closing(Pool(Work(load, apart), num_workers=1, limit=1.0, unpack=rows)) as pool:
        list(pool.results([[2]]))
        monkeypatch.setattr("vidadapt.processes.pool.START", 0.0)
        process = pool._workers[0].process
        assert all(isinstance(one, Done) for one in pool.results([[n] for n in range(200)]))
        assert pool._workers[0].process is process


def stay(log: Path, most: int, item: int) -> int:
    """Return 0 at once; of another item note that it has begun, and hang the first `most` times."""
    if item:
        with log.open("a") as file:
            file.write(f"{item}\n")
        if len(log.read_text().split()) <= most:
            time.sleep(600)
    return item


@pytest.mark.parametrize("most", [1, 99])
def test_an_item_hangs_where_its_worker_ends_itself_twice(tmp_path: Path, most: int) -> None:
    """While nobody looks, as where a job is suspended, the worker's own clock ends it."""
    log = tmp_path / "begun.txt"
    work = Work(partial(stay, log, most), apart_from_memory)
    with closing(Pool(work, num_workers=2, limit=1.0)) as pool:
        results = pool.results([[0], [5]])
        assert next(results) == Done(0, [0], [0])
        while not log.exists():
            time.sleep(0.01)
        worker = next(one for one in pool._workers if one.tasks)
        worker.process.join(60)
        assert worker.process.exitcode == -signal.SIGALRM
        found, *rest = results
    if most == 1:
        assert [found, *rest] == [Done(1, [5], [5])]
    else:
        assert isinstance(found, Lost) and found.item == 5
        assert rest == [Done(1, [], None)]
        assert found.reason == "the decoder process did not finish within 1 s"
