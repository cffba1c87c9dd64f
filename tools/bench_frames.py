"""Benchmark methods over numbers of frames: accuracies and full cost, a table and plots."""

from __future__ import annotations

from vidadapt import launching
from vidadapt.apps.study.matrix_run import MatrixOptions, run_matrix
from vidadapt.apps.study.options import parse_options

EPILOG = """\
A configuration is tools/train.py's YAML. It may hold `variants`, which names overrides of it, and
`prepare`, words for tools/prepare.py that make its videos; configs/demo.yaml has both. A sweep is a
YAML with `variants` alone: configs/sweeps/. For videos of your own, copy a configuration and set
`data.lists` (tools/prepare.py makes them) or `data.train_list` in it. Every cell (variant, frames,
seed) is an ordinary tools/train.py and tools/evaluate.py; interrupted, the same command goes on:
finished cells are kept, a begun one continues after its last epoch. The exit status is 1 if a cell
failed (others: docs/failures.md).

examples:
  python tools/bench_frames.py --config configs/demo.yaml --frames 2 4 8 \\
    --methods linear vpt adaptformer --seeds 0
  python tools/bench_frames.py --config configs/demo.yaml --frames 8 --out runs/bottleneck \\
    --sweep configs/sweeps/bottleneck.yaml
  python tools/bench_frames.py --config mine.yaml --frames 2 4 8 --cost_only --out runs/cost \\
    --methods linear vpt adaptformer arc losa full
  python tools/bench_frames.py --report runs/frames
"""


def parse(argv: list[str] | None) -> MatrixOptions:
    """Read the options of the command line."""
    return parse_options(MatrixOptions, argv, "bench_frames", __doc__ or "", EPILOG)


def main(argv: list[str] | None = None) -> int:
    """Benchmark as the arguments say; the exit status: 1 if a cell failed."""
    return run_matrix(parse(argv))


if __name__ == "__main__":
    launching.alone(main, goes_on="; the same command goes on")
