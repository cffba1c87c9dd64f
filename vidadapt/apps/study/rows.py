"""Lines of results.jsonl put together: a row is a variant at a number of frames, over its seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from vidadapt.apps.study.results import Line


@dataclass(frozen=True)
class Row:
    """The cells of a variant at a number of frames, one a seed, or a single one for its cost."""

    variant: str
    method: str
    frames: int
    cells: tuple[Line, ...]

    def known(self, key: str) -> list[float]:
        """The figures of its cells under a key, without those that are null."""
        return [cell[key] for cell in self.cells if cell[key] is not None]

    def mean(self, key: str) -> float | None:
        """Over the seeds that have it; None: none has."""
        values = self.known(key)
        return statistics.fmean(values) if values else None

    def deviation(self, key: str) -> float | None:
        """Sample standard deviation over the seeds; None below two."""
        values = self.known(key)
        return statistics.stdev(values) if len(values) > 1 else None

    def median(self, key: str) -> float | None:
        """Over the seeds that have it; None: none has."""
        values = self.known(key)
        return statistics.median(values) if values else None

    def noisy(self, *keys: str) -> bool:
        """Whether a cell's timing under one of these spread keys spreads too far."""
        return any(key in (cell["noisy"] or ()) for key in keys for cell in self.cells)


def rows_of(lines: Sequence[Line]) -> list[Row]:
    """By number of frames, then the variants in their first order."""
    order = {variant: place for place, variant in enumerate(variants_of(lines))}
    found: dict[tuple[int, str], list[Line]] = {}
    for line in lines:
        found.setdefault((line["frames"], line["variant"]), []).append(line)
    return [
        Row(variant, cells[0]["method"], frames, tuple(cells))
        for (frames, variant), cells in sorted(
            found.items(), key=lambda item: (item[0][0], order[item[0][1]])
        )
    ]


def variants_of(lines: Sequence[Line]) -> list[str]:
    """Each once, in the order of their first line."""
    return list(dict.fromkeys(line["variant"] for line in lines))


def frames_of(lines: Sequence[Line]) -> list[int]:
    """Each number of frames once, ascending."""
    return sorted({line["frames"] for line in lines})


def seeds_of(lines: Sequence[Line]) -> list[int]:
    """Each seed once, ascending; empty where only costs were measured."""
    return sorted({line["seed"] for line in lines if line["seed"] is not None})
