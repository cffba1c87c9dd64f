"""Run a function on jobs in worker processes, where one may hang or crash without the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, TypeVar

from vidadapt.processes.pool import Lost, Pool
from vidadapt.processes.worker import Work

Job = TypeVar("Job")


def _listed(values: list[Any]) -> tuple[list[Any], tuple[()]]:
    return values, ()


def run_isolated(
    function: Callable[[Job], Any],
    jobs: Sequence[Job],
    num_workers: int,
    time_limit: float | None,
    limit_key: str = "",
    start: Callable[[], None] | None = None,
) -> Iterator[tuple[Job, Any, str]]:
    """Yield (job, result, error) as jobs end; error is empty, or says how the worker ended.

    A worker that dies or needs more than `time_limit` seconds for one job is replaced; only the
    job it had is lost.

    Args:
        function: importable by name; its argument and result can be pickled; it must not raise.
        num_workers: processes, at least 1.
        time_limit, limit_key: see `Pool`.
        start: see `Work`.

    Raises:
        LostProcess, OSError: see `Pool`.
    """
    work = Work(function, _listed, start)
    pool = Pool(work, num_workers=num_workers, limit=time_limit, limit_key=limit_key)
    with closing(pool):
        for found in pool.results([[job] for job in jobs]):
            if isinstance(found, Lost):
                yield found.item, None, found.reason
            elif found.items:
                yield found.items[0], found.result[0], ""
