"""Benchmark methods over numbers of frames: accuracies and full cost, a table and plots."""

from __future__ import annotations

from vidadapt import launching
from vidadapt.apps.study.matrix_options import MatrixOptions
from vidadapt.apps.study.matrix_run import run_matrix
from vidadapt.apps.study.options import parse_options

EPILOG = """\
A configuration is vidadapt train's YAML. It may hold `variants`, which names overrides of it, and
`prepare`, words for vidadapt prepare that make its videos; configs/demo.yaml has both. A sweep is a
YAML with `variants` alone: configs/sweeps/. For videos of your own, copy a configuration and set
`data.lists` (vidadapt prepare makes them) or `data.train_list` in it, or give --folds or --tasks.
Every cell (variant, frames, fold or task, seed) is an ordinary vidadapt train and evaluate;
interrupted, the same command goes on: finished cells are kept, a begun one continues after its last
epoch. The exit status is 1 if a cell failed (others: docs/failures.md).

examples:
  vidadapt bench_frames --config demo --frames 2 4 8 \\
    --methods linear vpt adaptformer --seeds 0
  vidadapt bench_frames --config demo --frames 8 --out runs/bottleneck \\
    --sweep sweeps/bottleneck
  vidadapt bench_frames --config mine.yaml --frames 2 4 8 --cost_only --out runs/cost \\
    --methods linear vpt adaptformer arc losa full
  vidadapt bench_frames --config mine.yaml --frames 8 --folds data/folds --out runs/folds \\
    --methods linear adaptformer
  vidadapt bench_frames --config my_vtab.yaml --frames 1 --tasks lists/vtab --out runs/vtab \\
    --rates 8e-3 8e-2
  vidadapt bench_frames --report runs/frames
"""


def parse(argv: list[str] | None) -> MatrixOptions:
    """Read the options of the command line."""
    return parse_options(MatrixOptions, argv, "bench_frames", __doc__ or "", EPILOG)


def main(argv: list[str] | None = None) -> int:
    """Benchmark as the arguments say; the exit status: 1 if a cell failed."""
    return run_matrix(parse(argv))


def run() -> None:
    """Run this process's command line."""
    launching.alone(main, goes_on="; the same command goes on")
