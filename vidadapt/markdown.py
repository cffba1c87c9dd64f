"""Markdown tables that are legible as plain text, too."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The lines of a table; the first column to the left, figures to the right.

    >>> print(markdown_table(["reader", "ms"], [["pyav", "14.0"], ["decord", "8.25"]]))
    | reader |   ms |
    |--------|-----:|
    | pyav   | 14.0 |
    | decord | 8.25 |
    """
    columns = list(zip(headings, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = [_line(cells, widths) for cells in (headings, *rows)]
    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
    return "| " + " | ".join(padded) + " |"
