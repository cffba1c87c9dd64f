"""Table and plots of a benchmark, from its results.jsonl alone."""

from __future__ import annotations

from pathlib import Path

from vidadapt import runs
from vidadapt.apps.study.plots import draw
from vidadapt.apps.study.results import read_results
from vidadapt.apps.study.table import csv_text, markdown


def write_report(out: Path) -> list[Path]:
    """Write table.md, table.csv and plots/*.png, *.svg beside `out`/results.jsonl.

    Returns:
        The files written.

    Raises:
        ResultsError: results.jsonl cannot be used, naming its line.
    """
    lines = read_results(out / "results.jsonl")
    texts = {"table.md": markdown(lines), "table.csv": csv_text(lines)}
    for name, text in texts.items():
        runs.write_text(out / name, text)
    return [*(out / name for name in texts), *draw(lines, out / "plots")]
