"""Temporal: does a trained model, or a data set, use time? Accuracy in other frame orders."""

from __future__ import annotations

import sys

from vidadapt import launching
from vidadapt.apps.study.options import parse_options
from vidadapt.apps.study.temporal_run import TemporalOptions, report_temporal
from vidadapt.distributed import World, together

TEXT = "Say whether a trained model, or a data set, uses time and the frames' order."
EPILOG = """examples:
  vidadapt temporal --run_dir runs/ssv2_adaptformer
  torchrun --nproc-per-node 8 -m vidadapt temporal --run_dir runs/ssv2_adaptformer --split dev
  vidadapt temporal --run_dir runs/linear runs/adaptformer runs/full --out time_of_ssv2
  vidadapt temporal --run_dir 'runs/folds/cells/linear_8f_s0_fold*/run' --out time_of_mine
  vidadapt temporal --adapter ssv2_adapter --data.root VIDEOS --data.test_list test.txt \\
      --model.weights videomae_vit_b.pth

Every video of the test list is read and decoded once (for each model) and scored with the frames
of its clips in order, reversed, shuffled, and with the middle one repeated. Further options are
those of vidadapt evaluate and hold for all models: --split, --checkpoint, --eval.num_clips,
--eval.num_crops, --data.root, ..., see its --help. Frames are reordered before the model sees
them, so within tubelets, too.

Several models are shown side by side, on the same list: one that does not use the order may be
unable to; if any does, the order of its frames tells the data set's classes apart.

Writes temporal.json, temporal.md (verdict, tables), temporal.png and temporal.svg (each class in
the four orders).
"""


def parse(argv: list[str]) -> TemporalOptions:
    """Read the options of the command line."""
    return parse_options(TemporalOptions, argv, "temporal", TEXT, EPILOG)


def main(world: World) -> None:
    """Report on the models that the command line names."""
    with together(world):
        asked = parse(sys.argv[1:])
    report_temporal(asked, world)


def run() -> None:
    """Run this process's command line."""
    launching.launch(main)
