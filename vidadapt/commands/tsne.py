"""t-SNE: the features that trained runs give their last layer, side by side, coloured by class."""

from __future__ import annotations

import sys

from vidadapt import launching
from vidadapt.apps.study.options import parse_options
from vidadapt.apps.study.tsne_run import TsneOptions, draw_features
from vidadapt.distributed import World

TEXT = "Show how trained runs part the classes of a list, by t-SNE."
EPILOG = """examples:
  vidadapt tsne --run_dir runs/linear runs/adaptformer --out runs/tsne
  vidadapt tsne --run_dir runs/ssv2_linear runs/ssv2_adaptformer --out tsne --videos 1000
  vidadapt tsne --run_dir runs/mine --out tsne --classes "opening something" "closing something"

Writes OUT/tsne.png and OUT/tsne.svg; OUT/tsne.json with every figure of the captions; and for each
run OUT/features_<run>.npz: what its last layer is given of the centre view of each video, with
labels, paths and the places in the picture. Every run must have the same list and classes. Options
of vidadapt evaluate that say where the videos and the backbone are (--data.root DIR,
--model.weights FILE, --checkpoint last, ...) may be given, too, and hold for all runs. Needs
scikit-learn: pip install 'vidadapt[analysis]'.
"""


def parse(argv: list[str]) -> TsneOptions:
    """Read the options of the command line."""
    return parse_options(TsneOptions, argv, "tsne", TEXT, EPILOG)


def main(world: World) -> None:
    """Draw the runs that the command line names."""
    draw_features(parse(sys.argv[1:]), world)


def run() -> None:
    """Run this process's command line."""
    launching.launch(main)
