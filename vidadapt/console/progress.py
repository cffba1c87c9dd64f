"""Progress of long work: a bar with rate and ETA on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def track(
    items: Iterable[Item],
    *,
    total: int,
    label: str,
    unit: str,
    units_per_item: int = 1,
    shown: bool = True,
) -> Iterator[Item]:
    """Yield the items while showing how many units are done, how fast, and the time left.

    Without a terminal a line is printed every ten seconds.

    Args:
        total: units in all, `units_per_item` for each item.
        shown: whether to print at all (only the main process does).
    """
    if not shown:
        yield from items
        return
    if sys.stderr.isatty():
        with tqdm(total=total, desc=label, unit=" " + unit, leave=False) as bar:
            for item in items:
                yield item
                bar.update(units_per_item)
        return
    start = said = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        done = number * units_per_item
        now = time.monotonic()
        if now - said >= 10 and done < total:
            rate = done / (now - start)
            left = duration((total - done) / rate)
            print(
                f"{label}: {done}/{total} {unit}, {rate:.1f} {unit}/s, {left} left",
                file=sys.stderr,
                flush=True,
            )
            said = now


def duration(seconds: float) -> str:
    """Format seconds for people.

    >>> duration(42.31), duration(4 * 60 + 2), duration(7500)
    ('42.3 s', '4 min 02 s', '2 h 05 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
