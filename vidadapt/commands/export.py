"""Export: write a run's model as one plain weights file, its method merged into the backbone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from vidadapt import config, launching, runs
from vidadapt.models import LAYOUTS
from vidadapt.serving import export

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}

DESCRIPTION = (
    __doc__
    + """

Methods that are linear maps (arc, lora, ssf) are merged exactly; full, linear and bitfit have
nothing to merge; the others are refused with the reason.

layouts:
  backbone  all but fc_norm and head, safetensors: model.weights of another run (fresh head)
  vidadapt  and fc_norm and head: also the trained classifier, with models.build(keep_head=True)
  videomae  the same as a .pth file that MCG-NJU/VideoMAE's own fine-tuning code loads
  huggingface  a folder that transformers loads: VideoMAEForVideoClassification of a tubelet ViT
            with a linear head, VJEPA2ForVideoClassification of V-JEPA 2 with vjepa_attentive
A BatchNorm in front of the linear head is folded into it: use model.head linear with the file."""
)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="vidadapt export",
        description=DESCRIPTION,
        epilog="example: vidadapt export runs/mine merged.pth --layout videomae",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checkpoint",
        help="a run's folder (its best, else its last), one of these, its URL in a store, or "
        "hub:OWNER/NAME",
    )
    parser.add_argument("out", type=Path, help="file to write; of huggingface, the folder")
    parser.add_argument("--layout", choices=LAYOUTS, default="backbone", help="default: backbone")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="default: fp32")
    parser.add_argument(
        "--weights", type=Path, help="weights of the backbone; default: the run's model.weights"
    )
    parser.add_argument(config.plugins.OPTION, metavar="MODULES", help=config.plugins.HELP)
    words = config.spelt(sys.argv[1:] if argv is None else argv)
    config.import_plugins(words)
    return parser.parse_args(words)


def main(argv: list[str] | None = None) -> None:
    """Export as the arguments say."""
    arguments = parse(argv)
    dtype = DTYPES[arguments.dtype]
    runs.check_writable("out", arguments.out.absolute().parent)
    change = export(arguments.checkpoint, arguments.out, arguments.layout, dtype, arguments.weights)
    out: Path = arguments.out
    written = out / "model.safetensors" if arguments.layout == "huggingface" else out
    size = written.stat().st_size / 1e6
    print(f"{arguments.out}: {size:.2f} MB, {arguments.dtype}, layout {arguments.layout}")
    if change is not None:
        print(f"largest change of a logit on random clips: {change:.1e}")


def run() -> None:
    """Run this process's command line."""
    launching.alone(main)
