"""Markdown tables that are legible as plain text, too, and the figures in them."""

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


def figure(value: float) -> str:
    """Three digits, or all before the point.

    >>> figure(2.2308), figure(99.96), figure(2090.6), figure(0.5)
    ('2.23', '100', '2,091', '0.500')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
    return "| " + " | ".join(padded) + " |"
